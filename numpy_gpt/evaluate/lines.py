"""Read the lines of a text, and the objects of JSON Lines."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import GPTError
from ..system.files import JSON_TYPES
from ..text.sources import File, opened
from ..text.token_cache import file_pieces

KINDS = {b"PAR1": "a Parquet file", b"PK\x03\x04": "a zip archive", b"\x1f\x8b": "a gzip file"}


@contextmanager
def unchanged(file: File) -> Iterator[None]:
    """Raise GPTError at the end of a block that reads a file several times if the file changed meanwhile"""
    before = hash_of(file)
    yield
    if hash_of(file) != before:
        raise GPTError(f"{file} changed while it was read: run the command again.")


def hash_of(file: File) -> bytes:
    """Return the SHA-256 of a file"""
    with opened(file) as f:
        return hashlib.file_digest(f, "sha256").digest()


def lines(file: File, expected: str) -> Iterator[str]:
    """Yield the lines of a file without line breaks, LF or CRLF

    Raise GPTError if it isn't UTF-8 text. `expected` is the instruction of the message for a file of another kind.
    """
    with opened(file) as f:
        start = f.read(4)
    for magic, kind in KINDS.items():
        if start.startswith(magic):
            raise GPTError(f"{file} is {kind}, not text: {expected}.")
    parts = []  # of a line that isn't complete
    for piece in file_pieces(file):
        part, *others = piece.split("\n")
        parts.append(part)
        for other in others:
            yield "".join(parts).removesuffix("\r")
            parts = [other]
    if any(parts):
        yield "".join(parts).removesuffix("\r")


def json_object(file: File, number: int, line: str, expected: str) -> dict[str, Any]:
    """Return the JSON object in a line of a file; raise GPTError with the instruction `expected` if there is none"""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise GPTError(f"{file}, line {number} isn't JSON ({e}): {expected}.") from None
    if not isinstance(value, dict):
        raise GPTError(f"{file}, line {number} contains {JSON_TYPES[type(value)]} instead of an object: {expected}.")
    return value


def text_of(file: File, number: int, value: dict[str, Any], key: str, expected: str) -> str:
    """Return the text under a key of line `number`; raise GPTError with the instruction `expected` if there is none"""
    text = value.get(key)
    if not isinstance(text, str):
        raise GPTError(f'{file}, line {number} has no text under the key "{key}": {expected}.')
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise GPTError(f"{file}, line {number} has {text[e.start]!a}, which is half a character: correct it.") from None
    return text
