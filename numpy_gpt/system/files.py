"""Read files that can't be trusted: validated, with a limit, mapped where they are large."""

import json
import mmap
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import CheckpointError


def map_file(path: Path) -> np.ndarray:
    """-> its bytes, of which none is read yet; they can be written to, and the file stays as it is"""
    with opened(path) as f:
        size = size_of(f)
        try:
            data = mmap.mmap(f.fileno(), size, access=mmap.ACCESS_COPY) if size else bytearray()
        except OSError as e:
            raise CheckpointError(f"{path} can't be mapped into memory: {e.strerror}.") from None
    return np.frombuffer(data, np.uint8)


def read_bytes(path: Path, limit: int) -> bytes:
    with opened(path) as f:
        if size_of(f) > limit:
            raise CheckpointError(f"{path} has {size_of(f):,} bytes where {limit:,} are plenty: it is another file.")
        return f.read(limit)


def read_json(path: Path, limit: int = 1 << 20) -> dict[str, Any]:
    return parse_json(path, read_bytes(path, limit))


def parse_json(path: Path, text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=without_duplicates)
    except (ValueError, RecursionError) as e:  # ValueError is also what text that isn't UTF-8 raises
        raise CheckpointError(f"{path} has no valid JSON ({e}): get the file again.") from None
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path} holds a JSON {type(value).__name__} where an object belongs: get the file again."
        )
    return value


def without_duplicates(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def opened(path: Path) -> BinaryIO:
    """A regular file: to open a pipe or a terminal would wait for ever"""
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return open(path, "rb")
    except (OSError, ValueError) as e:  # ValueError: a NUL in the name
        raise CheckpointError(f"{path} can't be read: {getattr(e, 'strerror', e)}.") from None
    raise CheckpointError(f"{path} is a directory or a device where a file is needed.")


def size_of(f: BinaryIO) -> int:
    """Of what was opened: by now its name may be another file's"""
    return os.fstat(f.fileno()).st_size


def cache_directory() -> Path:
    """Return the user's cache directory for this package"""
    from platformdirs import user_cache_path  # here, since the import takes 6 ms

    return user_cache_path("numpy_gpt", appauthor=False, opinion=False)
