"""How every command ends: with a sentence instead of a traceback, and with a status that a script can go by."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .errors import CheckpointError, GPTError


def run(name: str, main: Callable[[], int | None], failed: int = 1) -> int:
    """main's status, or: failed, 3 for weights that are missing or broken, 130 after Ctrl-C; 0 where nobody reads on"""
    if sys.stdout:  # a closed one is None
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        status = main()
        if sys.stdout:
            sys.stdout.flush()
        return status or 0
    except GPTError as e:
        tell(f"{name}: {e}")
        return 3 if isinstance(e, CheckpointError) else failed
    except KeyboardInterrupt:
        return 130
    except MemoryError:
        tell(f"{name}: there is not enough memory for this.")
        return failed
    except OSError as e:  # of stdout: what else can't be read or written is a GPTError
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at exit
        if isinstance(e, BrokenPipeError):
            return 0
        tell(f"{name}: the output can't be written: {e.strerror}.")
        return failed


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for the end of this, however slow a reader is; a second one doesn't"""
    came: list[bool] = []

    def wait(*_: Any) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(True)

    before = signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def tell(text: str) -> None:
    """On stderr, where there is one"""
    if sys.stderr:
        with suppress(OSError):
            print(text, file=sys.stderr)
