"""How every command ends: with a sentence instead of a traceback, and with a status that a script can go by."""

import os
import sys
from collections.abc import Callable

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
        print(f"{name}: {e}", file=sys.stderr)
        return 3 if isinstance(e, CheckpointError) else failed
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at exit
        return 0
