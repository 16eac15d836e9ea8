"""Replace a file or the files of a directory atomically: a reader finds the old state or the new one."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import CheckpointError, GPTError


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
