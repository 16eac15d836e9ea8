"""Lock directories and files against other processes."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import GPTError
from .atomic import making

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(place: Path, wait=lambda: None) -> Iterator[None]:
    """Hold the lock of a directory or a file; wait() is called if another process holds it"""
    if not fcntl:
        yield
        return
    descriptor = lock(place, wait)
    try:
        yield
    finally:
        os.close(descriptor)


def lock(place: Path, wait: Callable[[], None]) -> int:
    """Open a directory or a file and lock it; do so again if another process removed it before the lock was held"""
    while True:
        flags = os.O_RDONLY if os.path.isdir(place) else os.O_RDWR | os.O_CREAT
        try:
            descriptor = os.open(place, flags, 0o666)
        except OSError as e:
            raise GPTError(f"{place} can't be written to: {e.strerror}.") from None
        try:
            flock(descriptor, wait)
            if names_open_file(place, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def names_open_file(place: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(place))
    except FileNotFoundError:
        return False


def flock(descriptor: int, wait: Callable[[], None]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        wait()
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        pass  # some network file systems lock no directories


LOCK = ".lock"  # in a training run's directory; the run holds it to its end


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Hold a training run's lock; raise if another process holds it

    An exception removes the lock file again if this created it and nothing else was added to the directory.
    """

    def refuse() -> None:
        raise GPTError(f"another run is writing to {directory}: wait for its end, or choose another place.") from None

    place, before = directory / LOCK, names(directory)
    with locked(place, refuse):
        try:
            yield
        except BaseException:
            if place.name not in before and names(directory) == before | {place.name}:
                place.unlink(missing_ok=True)
            raise


def names(directory: Path) -> set[str]:
    """Return the names in a directory, or none if it can't be listed"""
    try:
        return set(os.listdir(directory))
    except OSError:
        return set()


@contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """Create and lock a directory; an exception before anything is written to it leaves all as it was"""
    with making(directory), alone(directory):
        yield
