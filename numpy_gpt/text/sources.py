"""Open the files that a text is read from; a pipe is read once, into a temporary file of the token cache."""

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
    """What came through a pipe, under the name of the pipe"""

    name: str
    contents: BufferedRandom

    def __str__(self) -> str:
        return self.name


File = str | Path | Spooled


@contextmanager
def opened(file: File) -> Iterator[BufferedReader | BufferedRandom]:
    """Open a file that can be read again: a pipe must be spooled before"""
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
    with opened(file) as f:
        return os.fstat(f.fileno()).st_size


def lasts(file: str) -> bool:
    """Return whether the file can be read after this process, too: a descriptor's name means another file then"""
    passing = file.startswith((DESCRIPTORS, "/dev/stdin", "/proc/"))
    return not passing and os.path.isfile(file) and os.access(file, os.R_OK)


@contextmanager
def spooled(files: Iterable[File]) -> Iterator[Mapping[File, Spooled]]:
    """Read each pipe among the files once; yield what was read by the pipe"""
    with ExitStack() as stack:
        yield {file: spool(file, stack) for file in dict.fromkeys(files) if is_pipe(file)}


def is_pipe(file: File) -> bool:
    if isinstance(file, Spooled):
        return False
    try:
        mode = os.stat(file).st_mode
    except (OSError, ValueError):  # opened raises them as GPTError
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def spool(pipe: File, stack: ExitStack) -> Spooled:
    """Read a pipe into a file without a name, which is gone with the stack, or with the process if that is killed"""
    name, place = str(pipe), token_directory()
    try:
        contents = stack.enter_context(tempfile.TemporaryFile(dir=place))  # noqa: SIM115
        with open_pipe(name) as f, bar("reading", None) as shown:
            while block := f.read(BLOCK):
                contents.write(block)
                shown.update(len(block))
        contents.flush()
    except OSError as e:
        raise GPTError(f"{name} can't be read into {place}: {e.strerror}.") from None
    return Spooled(name, contents)


def open_pipe(name: str) -> BufferedReader:
    """Open a pipe, or a socket by its descriptor: a socket can't be opened by name"""
    number = "0" if name == "/dev/stdin" else name.removeprefix(DESCRIPTORS)
    by_number = name != number and number.isdecimal()
    return open(os.dup(int(number)) if by_number else name, "rb")


def token_directory() -> Path:
    """Create the directory of the token cache, and return it"""
    path = cache_directory() / "tokens"
    try:
        make_directory(path)
    except GPTError as e:
        raise GPTError(f"{e} Tokens are kept there: let XDG_CACHE_HOME name another place.") from None
    return path


def bar(what: str, total: int | None):
    """Return a progress bar of bytes, which only a terminal shows"""
    from tqdm import tqdm

    quiet = None if sys.stderr else True  # None: where it is no terminal
    return tqdm(desc=what, total=total, unit="B", unit_scale=True, disable=quiet, leave=False)
