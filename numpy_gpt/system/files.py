"""Files that can't be trusted are read here, and files that must not be left half-written are written here."""

import json
import mmap
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import CheckpointError, GPTError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


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


def cache() -> Path:
    """The user's, as the system has it"""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes path's place when all is written, and leaves no trace otherwise"""
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(part, path)
    except OSError as e:
        raise GPTError(f"{path} can't be written: {e.strerror}; what was there before still is.") from None
    finally:
        with suppress(OSError):  # it isn't there
            part.unlink()


def make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as e:  # ValueError: a NUL in the name
        raise GPTError(f"{path} can't be made a directory: {getattr(e, 'strerror', e)}.") from None


@contextmanager
def making(directory: Path) -> Iterator[None]:
    """Create a directory and its parents; after an exception remove again those that it created, if they are empty"""
    made: list[Path] = []
    try:
        for path in (*reversed(directory.parents), directory):
            if not os.path.isdir(path):
                with suppress(OSError, ValueError):  # make_directory raises them as GPTError
                    path.mkdir()
                    made.append(path)
        make_directory(directory)
        yield
    except BaseException:
        with suppress(OSError):  # one isn't empty
            for path in reversed(made):
                path.rmdir()
        raise


@contextmanager
def filling(stage: Path) -> Iterator[None]:
    """A new directory, which is gone again if it can't be filled"""
    try:
        stage.mkdir()
        yield
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise


def put_in_place(stage: Path, directory: Path, names: Iterable[str]) -> None:
    """Replace the files of these names that stage has; stage keeps them, so that one of the two is always whole"""
    for name in names:
        place, link = directory / name, directory / f".{name}.part"
        if not (stage / name).exists():
            continue
        link.unlink(missing_ok=True)
        try:
            os.link(stage / name, link)
        except OSError:  # a file system without hard links
            shutil.copyfile(stage / name, link)
        os.replace(link, place)
        link.unlink(missing_ok=True)  # it stays where both were the same file already


def read_settled(directory: Path, read: Callable[[Path], Any], files: Callable[[Path], Iterable[Path]]) -> Any:
    """What read gives, once none of these files became another one meanwhile: somebody may be saving"""
    for _ in range(1000):
        before, result, error = [identity(file) for file in files(directory)], None, None
        try:
            result = read(directory)
        except CheckpointError as e:
            error = e
        if [identity(file) for file in files(directory)] == before:
            break
    else:
        raise CheckpointError(f"{directory} was saved to each of the 1,000 times that it was read: try again later.")
    if error:
        raise error
    return result


def identity(path: Path) -> tuple | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return path, status.st_ino, status.st_mtime_ns, status.st_size


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
