"""Read untrusted files: with validation and a size limit, or mapped into memory if they are large."""

import json
import mmap
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import CheckpointError

JSON_TYPES = {list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
JSON_TYPES[type(None)] = "null"
GET_AGAIN = "get the file again"


def map_file(path: Path) -> np.ndarray:
    """Return a file's bytes, mapped copy-on-write: none is read yet, and the file doesn't change with the array"""
    with open_regular(path) as f:
        size = size_of(f)
        try:
            data = mmap.mmap(f.fileno(), size, access=mmap.ACCESS_COPY) if size else bytearray()
        except OSError as e:
            raise CheckpointError(f"{path} can't be mapped into memory: {e.strerror}.") from None
    return np.frombuffer(data, np.uint8)


def read_bytes(path: Path, limit: int) -> bytes:
    """Return a file's bytes; raise CheckpointError if there are more than limit"""
    with open_regular(path) as f:
        if size_of(f) > limit:
            raise CheckpointError(
                f"{path} has {size_of(f):,} bytes, and a valid one has at most {limit:,}: get the right file."
            )
        return f.read(limit)


def read_json(path: Path, limit: int = 1 << 20, advice: str = GET_AGAIN) -> dict[str, Any]:
    """Return the JSON object in a file; raise CheckpointError if there is none, or if it has more than limit bytes"""
    return parse_json(path, read_bytes(path, limit), advice)


def parse_json(path: Path, text: bytes, advice: str = GET_AGAIN) -> dict[str, Any]:
    """Return the JSON object in text; raise CheckpointError, which names path, if there is none"""
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=without_duplicates)
    except (ValueError, RecursionError) as e:  # ValueError also if it isn't UTF-8
        raise CheckpointError(f"{path} isn't valid JSON ({e}): {advice}.") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} contains {JSON_TYPES[type(value)]} instead of an object: {advice}.")
    return value


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return pairs as a dict; raise ValueError if two have the same name"""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file; raise CheckpointError for anything else, since opening a pipe or a terminal could block"""
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return open(path, "rb")
    except (OSError, ValueError) as e:  # ValueError: a NUL in the name
        raise CheckpointError(f"{path} can't be read: {getattr(e, 'strerror', e)}.") from None
    raise CheckpointError(f"{path} is a directory or a device: give a file.")


def size_of(f: BinaryIO) -> int:
    """Return the size of an open file: another file may have its name by now"""
    return os.fstat(f.fileno()).st_size


def cache_directory() -> Path:
    """Return the user's cache directory for this package"""
    from platformdirs import user_cache_path  # here, since the import takes 6 ms

    return user_cache_path("numpy_gpt", appauthor=False, opinion=False)
