"""GPT-2's byte-level BPE, from the vocabulary beside the weights: tiktoken does it, nothing is fetched or cached."""

import codecs
import operator
import os
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, GPTError
from ..system.files import parse_json, read_bytes

OPENAI = ("encoder.json", "vocab.bpe")
HUGGING_FACE = ("vocab.json", "merges.txt")  # its names for the same contents
EOT = "<|endoftext|>"
LARGEST = 1 << 25  # bytes of a file; OpenAI's have 1 MB and 0.5 MB
# Contractions; words, numbers and other signs, each with the space before it; spaces, but for the one before a word.
# Possessive (++) where a run can end in one place only: to be ready to step back would cost stack.
PATTERN = r"'(?:s|t|re|ve|m|ll|d)| ?(?:\p{L}++|\p{N}++|[^\s\p{L}\p{N}]++)|\s++$|\s+(?!\S)|\s"
# All but the last of the spaces before a word are a piece of their own, so text may be cut after them; a million in one
# text are more steps back than tiktoken's stack has room for.
SPACE = r"[^\S\x1c-\x1f]"  # tiktoken's \s, which lacks four of Python's
BEFORE_THE_LAST_SPACE = re.compile(rf"(?<!{SPACE}){SPACE}{{100000,}}(?={SPACE}[\S\x1c-\x1f])")
PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
BYTES = [*PRINTABLE, *(byte for byte in range(256) if byte not in PRINTABLE)]  # in the order of OpenAI's ids
SIGNS = {byte: chr(byte if byte in PRINTABLE else 256 + i - len(PRINTABLE)) for i, byte in enumerate(BYTES)}
BYTE_OF = {sign: byte for byte, sign in SIGNS.items()}  # both files write a byte as a character that can be seen


def load(directory: str | Path, layouts: Iterable[tuple[str, str]] = (OPENAI, HUGGING_FACE)) -> "Tokenizer | None":
    """Return the tokenizer of a directory, or None if the directory has no vocabulary

    The first layout whose two files are there is read. One file alone raises CheckpointError in OpenAI's layout; in
    Hugging Face's it is ignored, since it may belong to another kind of tokenizer.
    """
    if not isinstance(directory, str | os.PathLike):
        raise GPTError(f"directory is {directory!r}: it must be a path.")
    if not os.path.isdir(directory):
        raise CheckpointError(f"{directory} is no directory: give the one that has {' and '.join(OPENAI)}.")
    for names in layouts:
        paths = [Path(directory, name) for name in names]
        there = [os.path.exists(path) for path in paths]
        if all(there) or (any(there) and names == OPENAI):
            return Tokenizer(*paths)
    return None


class Tokenizer:
    """Has the bytes of the two files from the start, and looks into them when it is first used; tiktoken encodes"""

    def __init__(self, encoder: Path, merges: Path):
        self.encoder, self.merges = encoder, merges
        self.files = read_bytes(encoder, LARGEST), read_bytes(merges, LARGEST)

    def encode(self, text: str) -> list[int]:
        """What stands in it is text, <|endoftext|> too; .encoding knows that as a token"""
        if not isinstance(text, str):
            raise GPTError(f"text is {type(text).__name__}: it must be str.")
        ids, start = [], 0
        for spaces in BEFORE_THE_LAST_SPACE.finditer(text):
            ids += self.encoding.encode_ordinary(text[start : spaces.end()])
            start = spaces.end()
        return ids + self.encoding.encode_ordinary(text[start:])

    def decode(self, ids: Iterable[int]) -> str:
        """Bytes that are no UTF-8 become U+FFFD"""
        return self.decode_bytes(ids).decode(errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        try:
            each = iter(ids)
        except TypeError:
            each = None
        if each is None or isinstance(ids, str | bytes):
            raise GPTError(f"ids is {ids!r:.60}: it must be a list of token ids.")
        return b"".join(map(self.token, each))

    def token(self, i: int) -> bytes:
        try:
            return self.tokens[operator.index(i)]
        except (TypeError, ValueError, RuntimeError, KeyError):  # PyTorch raises any of the first three
            raise GPTError(
                f"the token id {i!r} is none of the vocabulary's: those are 0 to {self.n_vocab - 1}."
            ) from None

    def decoder(self) -> "Decoder":
        return Decoder(self)

    @cached_property
    def vocabulary(self) -> tuple[dict[bytes, int], int | None]:
        """The ids of the tokens, and that of <|endoftext|>, if there is one"""
        encoder, merges = self.files
        ids = read_encoder(self.encoder, encoder)
        eot = ids.pop(EOT, None)
        ordinary = {to_bytes(self.encoder, token): i for token, i in ids.items()}
        check_merges(self.merges, merges, ids)
        return ordinary, eot

    @cached_property
    def tokens(self) -> dict[int, bytes]:
        ids, eot = self.vocabulary
        return {i: token for token, i in ids.items()} | ({} if eot is None else {eot: EOT.encode()})

    @property
    def n_vocab(self) -> int:
        return len(self.tokens)

    @property
    def eot(self) -> int | None:
        return self.vocabulary[1]

    @cached_property
    def encoding(self) -> Any:
        """tiktoken's; of two pairs that could be merged it takes the one with the lower id, as vocab.bpe lists them"""
        import tiktoken  # here, since decoding needs none of it

        ids, eot = self.vocabulary
        special = {} if eot is None else {EOT: eot}
        return tiktoken.Encoding(
            str(self.merges),
            pat_str=PATTERN,
            mergeable_ranks=ids,
            special_tokens=special,
            explicit_n_vocab=self.n_vocab,
        )


class Decoder:
    """Decode ids one at a time; hold back the bytes of an incomplete character

    The caller can hold back more: the last bytes of the text, if a stop string may begin in them.
    """

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self.held = b""

    def feed(self, i: int, hold: int = 0) -> str:
        """Return the new text that an id completes, without the last `hold` bytes"""
        new = self.held + self.tokenizer.token(i)
        end = len(new) - hold
        self.held = new[end:]
        return self.utf8.decode(new[:end], final=hold > 0)  # a stop string begins with a new character

    def flush(self, drop_held: bool = False) -> str:
        """Return the rest of the text: of the held bytes unless they are dropped, U+FFFD for an incomplete character"""
        return self.utf8.decode(b"" if drop_held else self.held, final=True)


def read_encoder(path: Path, text: bytes) -> dict[str, int]:
    """The ids of the tokens: 0 to n - 1, each once"""
    ids = parse_json(path, text)
    tokens: dict[int, str] = {}
    for token, i in ids.items():
        if type(i) is not int or not 0 <= i < len(ids):
            raise CheckpointError(f"{path}: the token {token[:40]!r} has the id {i!r}, not one of 0 to {len(ids) - 1}.")
        if tokens.setdefault(i, token) != token:
            raise CheckpointError(f"{path}: {tokens[i]!r} and {token!r} have one id, {i}: get the file again.")
    return ids


def to_bytes(path: Path, token: str) -> bytes:
    try:
        return bytes(BYTE_OF[sign] for sign in token)
    except KeyError as e:
        raise CheckpointError(f"{path}: the token {token[:40]!r} has the sign {e}, which stands for no byte.") from None


def check_merges(path: Path, text: bytes, ids: Mapping[str, int]) -> None:
    """Every token is a byte or made of two before it, and the later it is made the higher is its id"""
    made = set(SIGNS.values())
    if not made <= ids.keys():
        raise CheckpointError(f"{path}: the vocabulary lacks the byte {min(made - ids.keys())!r}: get its files again.")
    last = -1
    for line in merge_lines(path, text):
        a, _, b = line.partition(" ")
        if a not in made or b not in made or ids.get(a + b, -1) <= last:
            raise CheckpointError(
                f"{path}: {line[:40]!r} doesn't join two tokens to the next: get the vocabulary's files again."
            )
        last = ids[a + b]
        made.add(a + b)
    if made != ids.keys():
        raise CheckpointError(
            f"{path} doesn't make the token {min(ids.keys() - made)!r}: get the vocabulary's files again."
        )


def merge_lines(path: Path, text: bytes) -> list[str]:
    try:
        lines = text.decode().split("\n")
    except UnicodeDecodeError as e:
        raise CheckpointError(f"{path} is no text ({e}): get the file again.") from None
    return [line for i, line in enumerate(lines) if line and not (i == 0 and line.startswith("#version"))]
