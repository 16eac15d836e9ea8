"""Open the files of a text; read a pipe once, into a temporary file of the token cache."""

import os
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import NamedTuple

from ..errors import GPTError
from ..system.atomic import make_directory
from ..system.files import cache_directory

BLOCK = 1 << 20  # bytes that are read from a pipe at a time
DESCRIPTORS = "/dev/fd/"


class Spooled(NamedTuple):
    """Hold the contents of a pipe, with the pipe's name for error messages"""

    name: str
    contents: BufferedRandom

    def __str__(self) -> str:
        return self.name


File = str | Path | Spooled


@contextmanager
def opened(file: File) -> Iterator[BufferedReader | BufferedRandom]:
    """Open a file or a spooled pipe at its beginning; raise GPTError if it can't be read"""
    if isinstance(file, Spooled):
        file.contents.seek(0)
        yield file.contents
        return
    if os.path.exists(file) and not os.path.isfile(file):
        raise GPTError(f"{file} can't be read: it is neither a file nor a pipe.")
    try:
        with open(file, "rb") as f:
            yield f
    except GPTError:
        raise
    except (OSError, ValueError) as e:  # ValueError: a NUL in the name
        raise GPTError(f"{file} can't be read: {getattr(e, 'strerror', e)}.") from None


def size(file: File) -> int:
    """Return the size of a file in bytes"""
    with opened(file) as f:
        return os.fstat(f.fileno()).st_size


def is_rereadable(file: str) -> bool:
    """Return whether a later process can read the file by this name; descriptors will be other files then"""
    is_descriptor = file.startswith((DESCRIPTORS, "/dev/stdin", "/proc/"))
    return not is_descriptor and os.path.isfile(file) and os.access(file, os.R_OK)


@contextmanager
def spooled(files: Iterable[File]) -> Iterator[Mapping[File, Spooled]]:
    """Read each pipe among the files once; yield a dict from the pipe to its contents"""
    with ExitStack() as stack:
        yield {file: spool(file, stack) for file in dict.fromkeys(files) if is_pipe(file)}


def is_pipe(file: File) -> bool:
    """Return whether a file is a pipe or a socket that hasn't been spooled"""
    if isinstance(file, Spooled):
        return False
    try:
        mode = os.stat(file).st_mode
    except (OSError, ValueError):  # opened raises GPTError
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def spool(pipe: File, stack: ExitStack) -> Spooled:
    """Read a pipe into a file without a name, which the stack or the end of the process removes"""
    name, directory = str(pipe), token_directory()
    try:
        contents = stack.enter_context(tempfile.TemporaryFile(dir=directory))  # noqa: SIM115
        with open_pipe(name) as f, progress_bar("reading", None) as bar:
            while block := f.read(BLOCK):
                contents.write(block)
                bar.update(len(block))
        contents.flush()
    except OSError as e:
        raise GPTError(f"{name} can't be read into {directory}: {e.strerror}.") from None
    return Spooled(name, contents)


def open_pipe(name: str) -> BufferedReader:
    """Open a pipe, or a socket by its descriptor, since a socket can't be opened by name"""
    number = "0" if name == "/dev/stdin" else name.removeprefix(DESCRIPTORS)
    by_number = name != number and number.isdecimal()
    return open(os.dup(int(number)) if by_number else name, "rb")


def token_directory() -> Path:
    """Create the directory of the token cache, and return it"""
    path = cache_directory() / "tokens"
    try:
        make_directory(path)
    except GPTError as e:
        raise GPTError(f"{e} It is for the token cache: set XDG_CACHE_HOME to another directory.") from None
    return path


def progress_bar(description: str, total: int | None):
    """Return a progress bar of bytes, which only a terminal shows"""
    from tqdm import tqdm

    disable = None if sys.stderr else True  # None: unless stderr is a terminal
    return tqdm(desc=description, total=total, unit="B", unit_scale=True, disable=disable, leave=False)
