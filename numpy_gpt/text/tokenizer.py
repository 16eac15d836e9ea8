"""Tokenize by GPT-2's byte-level BPE with the vocabulary beside the weights; tiktoken needs no network or cache."""

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
from . import tokenizer_json

OPENAI = ("encoder.json", "vocab.bpe")
HUGGING_FACE = ("vocab.json", "merges.txt")  # the same contents
TOKENIZER_JSON = ("tokenizer.json",)  # both in one, and the steps before and after BPE
EOT = "<|endoftext|>"
LARGEST = 1 << 25  # bytes of a file; OpenAI's have 1 MB and 0.5 MB
# Contractions; words, numbers and other signs, each with the space before it; spaces without the one before a word.
# Possessive (++) if a run can end in one place only: backtracking would cost stack.
PATTERN = r"'(?:s|t|re|ve|m|ll|d)| ?(?:\p{L}++|\p{N}++|[^\s\p{L}\p{N}]++)|\s++$|\s+(?!\S)|\s"
# All spaces before a word except the last are one piece. So text may be cut before that last space. A million spaces in
# one text would overflow tiktoken's backtracking stack.
SPACE = r"[^\S\x1c-\x1f]"  # tiktoken's \s, which lacks four of Python's
BEFORE_THE_LAST_SPACE = re.compile(rf"(?<!{SPACE}){SPACE}{{100000,}}(?={SPACE}[\S\x1c-\x1f])")
PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
OTHERS = sorted({*range(256)}.difference(PRINTABLE))
BYTES = [*PRINTABLE, *OTHERS]  # in the order of OpenAI's ids
SIGNS = dict(zip(BYTES, map(chr, [*PRINTABLE, *range(256, 256 + len(OTHERS))]), strict=True))
BYTE_OF = {sign: byte for byte, sign in SIGNS.items()}  # the files write each byte as a printable character


def load(
    directory: str | Path, layouts: Iterable[tuple[str, ...]] = (OPENAI, HUGGING_FACE, TOKENIZER_JSON)
) -> "Tokenizer | None":
    """Return the tokenizer of a directory, or None if the directory has no vocabulary

    The first of the layouts whose files are there is read. One of OpenAI's two files alone raises CheckpointError. One
    of Hugging Face's two files alone is ignored, since it may belong to another kind of tokenizer.
    """
    if not isinstance(directory, str | os.PathLike):
        raise GPTError(f"directory is {directory!r}: it must be a path.")
    if not os.path.isdir(directory):
        raise CheckpointError(f"{directory} isn't a directory: give the one that has {' and '.join(OPENAI)}.")
    for names in layouts:
        paths = [Path(directory, name) for name in names]
        there = [os.path.exists(path) for path in paths]
        if all(there) or (any(there) and names == OPENAI):
            return Tokenizer(*paths)
    return None


class Tokenizer:
    """Convert text to token ids and back; created from encoder.json and vocab.bpe, or from tokenizer.json alone

    The constructor reads the files. They are parsed when the tokenizer is used first.
    """

    def __init__(self, encoder: Path, merges: Path | None = None):
        self.encoder, self.merges = encoder, merges or encoder
        self.contents = [read_bytes(path, LARGEST) for path in (encoder, merges) if path]

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, in which <|endoftext|> is ordinary text

        `encoding.encode(text, allowed_special="all")` returns <|endoftext|>'s own id instead.
        """
        if not isinstance(text, str):
            raise GPTError(f"text is {type(text).__name__}: it must be str.")
        ids, start = [], 0
        for spaces in BEFORE_THE_LAST_SPACE.finditer(text):
            ids += self.encoding.encode_ordinary(text[start : spaces.end()])
            start = spaces.end()
        return ids + self.encoding.encode_ordinary(text[start:])

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids; bytes that aren't UTF-8 become U+FFFD"""
        return self.decode_bytes(ids).decode(errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of token ids"""
        try:
            each = iter(ids)
        except TypeError:
            each = None
        if each is None or isinstance(ids, str | bytes):
            raise GPTError(f"ids is {ids!r:.60}: it must be a list of token ids.")
        return b"".join(map(self.token, each))

    def token(self, i: int) -> bytes:
        """Return the bytes of one token"""
        try:
            return self.tokens[operator.index(i)]
        except (TypeError, ValueError, RuntimeError, KeyError):  # PyTorch raises any of the first three
            raise GPTError(f"the token id {i!r} isn't in the vocabulary, which has 0 to {self.n_vocab - 1}.") from None

    def decoder(self) -> "Decoder":
        """Return a decoder for ids that come one at a time"""
        return Decoder(self)

    def validate(self) -> None:
        """Parse the files; raise CheckpointError if they aren't a vocabulary of GPT-2's byte-level BPE"""
        self.vocabulary = read_vocabulary(self.encoder, self.merges, *self.files)

    @cached_property
    def files(self) -> tuple[bytes, bytes]:
        """Return the contents of encoder.json and vocab.bpe"""
        if self.merges == self.encoder:
            return tokenizer_json.convert(self.encoder, self.contents[0], EOT)
        encoder, merges = self.contents
        return encoder, merges

    @cached_property
    def vocabulary(self) -> tuple[dict[bytes, int], int | None]:
        """Return the ids of the tokens, and the id of <|endoftext|>, or None if the vocabulary lacks it"""
        return read_vocabulary(self.encoder, self.merges, *self.files)

    @cached_property
    def tokens(self) -> dict[int, bytes]:
        """Return the bytes of every token, by its id"""
        ids, eot = self.vocabulary
        return {i: token for token, i in ids.items()} | ({} if eot is None else {eot: EOT.encode()})

    @property
    def n_vocab(self) -> int:
        """Return the number of tokens"""
        return len(self.tokens)

    @property
    def eot(self) -> int | None:
        """Return the id of <|endoftext|>, or None if the vocabulary lacks it"""
        return self.vocabulary[1]

    @cached_property
    def encoding(self) -> Any:
        """Return tiktoken's Encoding, which merges the pair with the lowest id first: the order of vocab.bpe"""
        import tiktoken  # here, since decoding doesn't need it

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
        """Return the rest of the text: the held bytes unless dropped, with U+FFFD for an incomplete character"""
        return self.utf8.decode(b"" if drop_held else self.held, final=True)


def read_vocabulary(
    encoder_path: Path, merges_path: Path, encoder: bytes, merges: bytes
) -> tuple[dict[bytes, int], int | None]:
    """Return the ids of the tokens, and the id of <|endoftext|>; raise CheckpointError if they aren't a vocabulary"""
    ids = parse_ids(encoder_path, encoder)
    eot = ids.pop(EOT, None)
    ordinary = {to_bytes(encoder_path, token): i for token, i in ids.items()}
    check_merges(merges_path, merges, ids)
    return ordinary, eot


def parse_ids(path: Path, text: bytes) -> dict[str, int]:
    """Return the ids of the tokens, which are 0 to n - 1, each once"""
    ids = parse_json(path, text)
    tokens: dict[int, str] = {}
    for token, i in ids.items():
        if type(i) is not int or not 0 <= i < len(ids):
            raise CheckpointError(f"{path}: the token {token[:40]!r} has the id {i!r}, not one of 0 to {len(ids) - 1}.")
        if tokens.setdefault(i, token) != token:
            raise CheckpointError(f"{path}: {tokens[i]!r} and {token!r} have one id, {i}: get the file again.")
    return ids


def to_bytes(path: Path, token: str) -> bytes:
    """Return the bytes that the characters of a token represent"""
    try:
        return bytes(BYTE_OF[sign] for sign in token)
    except KeyError as e:
        raise CheckpointError(f"{path}: the token {token[:40]!r} has the character {e}, which isn't a byte.") from None


def check_merges(path: Path, text: bytes, ids: Mapping[str, int]) -> None:
    """Check that the merges make every token that isn't a byte, of two earlier tokens, in the order of the ids"""
    made = set(SIGNS.values())
    if not made <= ids.keys():
        raise CheckpointError(f"{path}: the vocabulary lacks the byte {min(made - ids.keys())!r}: get its files again.")
    last = -1
    for line in merge_lines(path, text):
        a, _, b = line.partition(" ")
        if a not in made or b not in made or ids.get(a + b, -1) <= last:
            raise CheckpointError(
                f"{path}: {line[:40]!r} isn't a merge of two tokens into the next: get the vocabulary's files again."
            )
        last = ids[a + b]
        made.add(a + b)
    if made != ids.keys():
        raise CheckpointError(
            f"{path} doesn't make the token {min(ids.keys() - made)!r}: get the vocabulary's files again."
        )


def merge_lines(path: Path, text: bytes) -> list[str]:
    """Return the lines of vocab.bpe without the version"""
    try:
        lines = text.decode().split("\n")
    except UnicodeDecodeError as e:
        raise CheckpointError(f"{path} isn't text ({e}): get the file again.") from None
    return [line for i, line in enumerate(lines) if line and not (i == 0 and line.startswith("#version"))]
