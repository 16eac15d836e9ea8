"""Tokenize a text once per vocabulary, and map its tokens from a file in the user's cache afterwards.

The file's name is a hash of the text and the vocabulary. Memory holds a few pieces of the text at a time, so that
neither text nor tokens need to fit; only a single word must. The file ends with the number of its tokens, and is
written again if its length doesn't match. Its contents aren't verified: a CRC-32 would add a fifth to the time for the
SHA-256 of the text, which dominates the start of a run on a large text.
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
from .sources import File, opened, progress_bar, size, spooled, token_directory
from .tokenizer import EOT, Tokenizer

PIECE = 1 << 20  # bytes that are read and tokenized at a time
# A text may be cut after a word and before a space: a match of the tokenizer's pattern always ends there. Spaces
# after <|endoftext|> belong to the mark.
LAST_CUT = regex.compile(rf"(?r)(?<=\S)(?<!{regex.escape(EOT)})(?=\s)")
MARK = regex.compile(rf"\s*{regex.escape(EOT)}\s*")
FORMAT = b"1"  # to be increased when the same text and vocabulary give another file
COUNT = np.dtype("<u8")  # the number of tokens at the end of a file


def tokenize(files: Sequence[File], tokenizer: Tokenizer, text_key: str | None = None) -> np.ndarray:
    """Return the tokens of the files in one row, mapped from the cache; <|endoftext|> separates files and documents

    text_key is key(files, tokenizer), if that is known. Then no file may be a pipe.
    """
    if text_key is None:
        with spooled(files) as pipes:
            files = [pipes.get(file, file) for file in files]
            return tokenize(files, tokenizer, key(files, tokenizer))
    path, dtype = cache_file(text_key, tokenizer)
    if count(path, dtype) is None:
        directory = path.parent
        with locked(directory, lambda: print_stderr(f"another process is writing to {directory}: waiting for it.")):
            if count(path, dtype) is None:  # unless the other process wrote this file
                write(path, files, tokenizer, text_key, dtype)
    n = count(path, dtype)
    return np.asarray(np.memmap(path, dtype, "r", shape=(n,))) if n else np.empty(0, dtype)


def cache_file(text_key: str, tokenizer: Tokenizer) -> tuple[Path, np.dtype]:
    """Return the path in the token cache of the text with this key, and the dtype of its tokens"""
    dtype = np.dtype("<u2" if tokenizer.n_vocab <= 1 << 16 else "<u4")
    return token_directory() / f"{text_key}.u{8 * dtype.itemsize}", dtype


def is_cached(text_key: str, tokenizer: Tokenizer) -> bool:
    """Return whether the tokens of the text with this key are in the cache"""
    return count(*cache_file(text_key, tokenizer)) is not None


def count(path: Path, dtype: np.dtype) -> int | None:
    """Return the number of tokens in a file; None if it doesn't exist, or doesn't have the length that it should"""
    if not os.path.isfile(path) or path.stat().st_size < COUNT.itemsize:
        return None
    with opened(path) as f:
        f.seek(-COUNT.itemsize, os.SEEK_END)
        n = int(np.frombuffer(f.read(), COUNT)[0])
        return n if f.tell() == n * dtype.itemsize + COUNT.itemsize else None


def write(path: Path, files: Sequence[File], tokenizer: Tokenizer, text_key: str, dtype: np.dtype) -> None:
    """Tokenize the files into path; raise GPTError if they changed meanwhile"""
    n = 0
    with replacing(path) as f:
        with progress(files, "tokens") as bar:
            for ids in encoded(pieces(files, bar.update), tokenizer):
                f.write(ids.astype(dtype).data)
                n += len(ids)
        f.write(np.array([n], COUNT).data)
        if key(files, tokenizer) != text_key:
            raise GPTError(f"{' '.join(map(str, files))} changed while it was read: run the command again.")


def key(files: Iterable[File], tokenizer: Tokenizer) -> str:
    """Return a hash of a text and a vocabulary, which depends on the files' contents and not on their names"""
    digests = [hashlib.sha256(part).digest() for part in (FORMAT, *tokenizer.files)]
    for file in files:
        with opened(file) as f:
            digests.append(hashlib.file_digest(f, "sha256").digest())
    return hashlib.sha256(b"".join(digests)).hexdigest()[:32]


def progress(files: Iterable[File], description: str):
    """Return a progress bar of the files' bytes"""
    return progress_bar(description, sum(size(file) for file in files))


def encoded(texts: Iterable[str | None], tokenizer: Tokenizer) -> Iterator[np.ndarray]:
    """Yield the ids of each piece; one thread per core encodes, since tiktoken releases the GIL"""

    def encode(text: str | None) -> np.ndarray:
        return np.array(mark if text is None else tokenizer.encode(text), np.uint32)

    mark = [] if tokenizer.eot is None else [tokenizer.eot]
    texts, n = iter(texts), cores()
    with ThreadPoolExecutor(n) as pool:
        while some := list(islice(texts, 2 * n)):
            yield from pool.map(encode, some)


def pieces(files: Iterable[File], done=lambda nbytes: None) -> Iterator[str | None]:
    """Yield the text of all files in pieces that can be encoded one by one, and None between two documents

    done is called with the number of bytes after each read.
    """
    separated, started = False, False
    for file in files:
        separated = started
        for text in file_pieces(file, done):
            for i, part in enumerate(MARK.split(text)):
                separated |= started and i > 0
                if part:
                    if separated:
                        yield None
                    yield part
                    separated, started = False, True


def file_pieces(file: File, done=lambda nbytes: None) -> Iterator[str]:
    """Yield the text of a file in pieces of about PIECE bytes, without a byte order mark"""
    utf8, text = codecs.getincrementaldecoder("utf-8")(), ""
    with opened(file) as f:
        for n, block in enumerate(iter(lambda: f.read(PIECE), b"")):
            text += decode(file, utf8, block, n * PIECE)
            text = text.removeprefix("\ufeff") if n == 0 else text
            cut = LAST_CUT.search(text)
            if cut:
                yield text[: cut.start()]
                text = text[cut.start() :]
            done(len(block))
        decode(file, utf8, b"", f.tell())
    yield text


def decode(file: File, utf8: codecs.IncrementalDecoder, block: bytes, start: int) -> str:
    """Decode the block at this offset of a file, an empty one at the end; raise GPTError if it isn't UTF-8"""
    try:
        return utf8.decode(block, final=not block)
    except UnicodeDecodeError as e:
        at = start + len(block) - len(e.object) + e.start  # e.object begins with a character cut by the block before
        raise GPTError(f"{file} isn't UTF-8 text: byte {at} is {e.object[e.start]:#04x}.") from None
