"""Lock directories against other processes; the operating system releases a lock if its process is killed."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import GPTError
from .atomic import making

if TYPE_CHECKING:
    from filelock import FileLock

WRITE_LOCK = ".writing.lock"  # in a directory while files in it are replaced
RUN_LOCK = ".lock"  # in a training run's directory: locked until the run ends, and never removed afterwards
UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # on network file systems without locks


@contextmanager
def locked(directory: Path, wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a directory's lock; call wait first if another process holds it

    A directory that can't be written to isn't locked: writing to it fails with an error of its own.
    """
    if not os.access(directory, os.W_OK):
        yield
        return
    lock = acquire(directory / WRITE_LOCK, wait)
    try:
        yield
    finally:
        release(lock, remove=True)


@contextmanager
def locked_run(directory: Path) -> Iterator[None]:
    """Hold a training run's lock; raise GPTError if another process holds it

    After an exception, the lock file is removed if this call created it and nothing else was added to the directory.
    """

    def refuse() -> None:
        raise GPTError(f"another run is writing to {directory}: wait until it ends, or choose another place.") from None

    existing, remove = names(directory), False
    lock = acquire(directory / RUN_LOCK, refuse)
    try:
        yield
    except BaseException:
        remove = RUN_LOCK not in existing and names(directory) == existing | {RUN_LOCK}
        raise
    finally:
        release(lock, remove)


@contextmanager
def run_directory(directory: Path) -> Iterator[None]:
    """Create a training run's directory and hold its lock; an exception before any other write removes both again"""
    with making(directory), locked_run(directory):
        yield


def acquire(path: Path, wait: Callable[[], None]) -> "FileLock":
    """Lock a file, which is created if it doesn't exist; call wait first if another process holds the lock"""
    from filelock import FileLock, Timeout  # here, since the import takes 20 ms

    lock = FileLock(path, thread_local=False, preserve_lock_file=True)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o666))  # filelock waits forever if /proc refuses the file
        try:
            lock.acquire(timeout=0)
        except Timeout:
            wait()
            lock.acquire()
    except OSError as e:
        if e.errno not in UNSUPPORTED:
            raise GPTError(f"{path} can't be written to: {e.strerror}.") from None
    return lock


def release(lock: "FileLock", remove: bool) -> None:
    """Release a lock, and remove its file first: afterwards it could be another process's lock

    Windows removes no open file. There it is removed afterwards, which fails if another process has opened it.
    """
    if remove and os.name != "nt":
        unlink(lock.lock_file)
    lock.release()
    if remove and os.name == "nt":
        unlink(lock.lock_file)


def unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def names(directory: Path) -> set[str]:
    """Return the names in a directory, or none if it can't be listed"""
    try:
        return set(os.listdir(directory))
    except OSError:
        return set()
