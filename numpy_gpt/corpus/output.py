"""Write a new file that appears when it is complete. Another process can't write it meanwhile."""

import filecmp
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import GPTError
from ..system.atomic import replacing
from ..system.locks import acquire, release


@contextmanager
def creating(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write to, which gets its name when the block ends; raise GPTError if another file has it then"""
    with replacing(path) as file:
        yield file
        file.flush()
        if not (os.path.isfile(path) and filecmp.cmp(path, file.name, shallow=False)):  # the same needs no error
            check_new(path)


def check_new(path: Path) -> None:
    """Raise GPTError if a path exists"""
    if os.path.exists(path) and not os.path.isfile(path):
        raise GPTError(f"{path} isn't a regular file: choose another --out.")
    if os.path.lexists(path):
        raise GPTError(f"{path} exists: remove it, or choose another --out.")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of an output; raise GPTError if another process holds it"""

    def refuse() -> None:
        raise GPTError(f"another process is writing {path}: wait until it ends, or choose another --out.") from None

    lock = acquire(path.with_name(f".{path.name}.lock"), refuse)
    try:
        yield
    finally:
        release(lock, remove=True)
