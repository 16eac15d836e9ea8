"""Replace a file or the files of a directory atomically: a reader finds the old state or the new one."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import CheckpointError, GPTError


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write to, which is on the disk when the block ends"""
    with open(path, "wb") as f:
        yield f
        f.flush()
        os.fsync(f.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write to; rename it to path when the block ends, or remove it after an exception"""
    part = path.with_name(f".{path.name}.part")
    try:
        with writing(part) as f:
            yield f
        os.replace(part, path)
    except OSError as e:
        raise GPTError(f"{path} can't be written: {e.strerror}; the previous file, if any, is unchanged.") from None
    finally:
        with suppress(OSError):  # it was renamed
            part.unlink()


def make_directory(path: Path) -> None:
    """Create a directory and its parents; raise GPTError if that is impossible"""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as e:  # ValueError: a NUL in the name
        raise GPTError(f"{path} can't be made a directory: {getattr(e, 'strerror', e)}.") from None


@contextmanager
def making(directory: Path) -> Iterator[None]:
    """Create a directory and its parents; after an exception remove those that it created and that are empty"""
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
def replacing_files(directory: Path, stage: Path, obsolete: Collection[Path] = ()) -> Iterator[Path]:
    """Yield a new directory; when the block ends, its files replace those of the same names in directory

    stage is a path in directory. The new directory gets this name in one atomic step when all its files are complete.
    While it has this name, readers must read it instead of directory. It is removed when all its files are in place.
    If the process is killed, one of the two is complete. The next call finishes the replacement, or undoes it if the
    process was killed before that step. The caller must hold a lock. obsolete: files and directories to remove from
    directory, except those that the new files replace.
    """
    part = stage.with_name(f"{stage.name}.part")
    finish_replacement(directory, stage, obsolete)
    with filling(part):
        yield part
    os.rename(part, stage)  # the atomic step
    finish_replacement(directory, stage, obsolete)


def finish_replacement(directory: Path, stage: Path, obsolete: Collection[Path]) -> None:
    """Finish a replacement that was interrupted after its atomic step; undo one that was interrupted before"""
    part = stage.with_name(f"{stage.name}.part")
    remove_directory(part)
    if stage.exists():
        put_in_place(stage, directory)
        for path in (path for path in obsolete if not (stage / path.name).exists()):
            remove_directory(path, ignore_errors=False) if path.is_dir() else path.unlink(missing_ok=True)
        os.rename(stage, part)
        remove_directory(part)


@contextmanager
def filling(stage: Path) -> Iterator[None]:
    """Create a directory; remove it after an exception"""
    try:
        stage.mkdir()
        yield
    except BaseException:
        remove_directory(stage)
        raise


def remove_directory(path: Path, ignore_errors: bool = True) -> None:
    """Remove a directory and its contents"""
    import shutil  # here, since only writing needs it and the import takes 2 ms

    shutil.rmtree(path, ignore_errors)


def put_in_place(stage: Path, directory: Path) -> None:
    """Replace the files in directory by those in stage, which keeps them, so that stage stays complete"""
    for file in sorted(stage.iterdir()):
        link = directory / f".{file.name}.part"
        link.unlink(missing_ok=True)
        try:
            os.link(file, link)
        except OSError:  # a file system without hard links
            from shutil import copyfile  # here, as in remove_directory

            copyfile(file, link)
        os.replace(link, directory / file.name)
        link.unlink(missing_ok=True)  # os.replace keeps it if both names belong to one file already


def read_consistently(directory: Path, read: Callable[[Path], Any], files: Callable[[Path], Iterable[Path]]) -> Any:
    """Return read(directory); retry if one of files(directory) was replaced meanwhile"""
    for _ in range(1000):
        identities, result, error = [identity(file) for file in files(directory)], None, None
        try:
            result = read(directory)
        except CheckpointError as e:
            error = e
        if [identity(file) for file in files(directory)] == identities:
            break
    else:
        raise CheckpointError(f"{directory} changed during each of 1,000 attempts to read it: try again later.")
    if error:
        raise error
    return result


def identity(path: Path) -> tuple | None:
    """Return values that differ between a file and its replacement, or None if there is no file"""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return path, status.st_ino, status.st_mtime_ns, status.st_size
