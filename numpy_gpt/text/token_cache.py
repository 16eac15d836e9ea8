"""Tokenize a text once for a vocabulary, and map its tokens from the user's cache afterwards.

A file in the cache is named by the contents of the text and the vocabulary. Neither text nor tokens need fit into
memory, except for a single word.
"""

import codecs
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import regex

from ..errors import GPTError
from ..fast.threads import cores
from ..system.atomic import replacing
from ..system.cli import print_stderr
from ..system.locks import locked
from .sources import File, bar, opened, size, spooled, token_directory
from .tokenizer import EOT, Tokenizer

PIECE = 1 << 20  # bytes that are read and tokenised at a time
# After a word and before a space every piece of the tokenizer's pattern ends, wherever the text was begun to be read.
# The spaces after a mark belong to the mark.
LAST_CUT = regex.compile(rf"(?r)(?<=\S)(?<!{regex.escape(EOT)})(?=\s)")
MARK = regex.compile(rf"\s*{regex.escape(EOT)}\s*")
FORMAT = b"1"  # counts up when the same text and vocabulary give another file
LAST = np.dtype("<u8")  # of the number that a file of tokens ends with


def tokenize(files: Sequence[File], tokenizer: Tokenizer, name: str | None = None) -> np.ndarray:
    """Return the tokens of the files in one row, mapped from a file; <|endoftext|> separates files and documents

    name is their key, if it is known and no file is a pipe that is still to be read. The mapped file ends with the
    number of its tokens: one that is cut off is made anew.
    """
    if name is None:
        with spooled(files) as pipes:
            files = [pipes.get(file, file) for file in files]
            return tokenize(files, tokenizer, key(files, tokenizer))
    path, dtype = place(name, tokenizer)
    if length(path, dtype) is None:
        folder = path.parent
        with locked(folder, lambda: print_stderr(f"another process writes to {folder}: waiting for it.")):
            if length(path, dtype) is None:  # that one hasn't made it
                make(path, files, tokenizer, name, dtype)
    n = length(path, dtype)
    return np.asarray(np.memmap(path, dtype, "r", shape=(n,))) if n else np.empty(0, dtype)


def place(name: str, tokenizer: Tokenizer) -> tuple[Path, np.dtype]:
    """Return the file in the token cache of the text with this key, and the dtype of its tokens"""
    dtype = np.dtype("<u2" if tokenizer.n_vocab <= 1 << 16 else "<u4")
    return token_directory() / f"{name}.u{8 * dtype.itemsize}", dtype


def cached(name: str, tokenizer: Tokenizer) -> bool:
    return length(*place(name, tokenizer)) is not None


def length(path: Path, dtype: np.dtype) -> int | None:
    """How many tokens a file says it has, and has"""
    if not os.path.isfile(path) or path.stat().st_size < LAST.itemsize:
        return None
    with opened(path) as f:
        f.seek(-LAST.itemsize, os.SEEK_END)
        n = int(np.frombuffer(f.read(), LAST)[0])
        return n if f.tell() == n * dtype.itemsize + LAST.itemsize else None


def make(path: Path, files: Sequence[File], tokenizer: Tokenizer, name: str, dtype: np.dtype) -> None:
    n = 0
    with replacing(path) as f:
        with progress(files, "tokens") as bar:
            for row in rows(pieces(files, bar.update), tokenizer):
                f.write(row.astype(dtype).data)
                n += len(row)
        f.write(np.array([n], LAST).data)
        if key(files, tokenizer) != name:
            raise GPTError(f"{' '.join(map(str, files))} changed while it was read: start again.")


def key(files: Iterable[File], tokenizer: Tokenizer) -> str:
    """What a text and a vocabulary are called: the same for the same contents, wherever they lie"""
    digests = [hashlib.sha256(part).digest() for part in (FORMAT, *tokenizer.files)]
    for file in files:
        with opened(file) as f:
            digests.append(hashlib.file_digest(f, "sha256").digest())
    return hashlib.sha256(b"".join(digests)).hexdigest()[:32]


def progress(files: Iterable[File], what: str):
    return bar(what, sum(size(file) for file in files))


def rows(texts: Iterable[str | None], tokenizer: Tokenizer) -> Iterator[np.ndarray]:
    """The ids of each piece, a few of them at once: tiktoken lets other threads run"""

    def encode(text):
        return np.array(mark if text is None else tokenizer.encode(text), np.uint32)

    mark = [] if tokenizer.eot is None else [tokenizer.eot]
    texts, n = iter(texts), cores()
    with ThreadPoolExecutor(n) as pool:
        while some := list(islice(texts, 2 * n)):
            yield from pool.map(encode, some)


def pieces(files: Iterable[File], done=lambda nbytes: None) -> Iterator[str | None]:
    """The text of all files, in pieces whose tokens are those of the whole; None between two documents"""
    parted, begun = False, False
    for file in files:
        parted = begun
        for text in read(file, done):
            for i, part in enumerate(MARK.split(text)):
                parted |= begun and i > 0
                if part:
                    if parted:
                        yield None
                    yield part
                    parted, begun = False, True


def read(file: File, done=lambda nbytes: None) -> Iterator[str]:
    """The text of a file, in pieces of some PIECE bytes"""
    utf8, text = codecs.getincrementaldecoder("utf-8")(), ""
    with opened(file) as f:
        for n, block in enumerate(iter(lambda: f.read(PIECE), b"")):
            text += decoded(file, utf8, block, n * PIECE)
            text = text.removeprefix("\ufeff") if n == 0 else text
            cut = LAST_CUT.search(text)
            if cut:
                yield text[: cut.start()]
                text = text[cut.start() :]
            done(len(block))
        decoded(file, utf8, b"", f.tell())
    yield text


def decoded(file, utf8, block, start):
    try:
        return utf8.decode(block, final=not block)
    except UnicodeDecodeError as e:
        at = start + len(block) - len(e.object) + e.start  # the decoder kept the beginning of a character
        raise GPTError(f"{file} is no UTF-8 text: byte {at} is {e.object[e.start]:#04x}.") from None
