"""Run a process whose stderr is a terminal."""

import os
import termios
from contextlib import suppress


def shown_on_a_terminal(start):
    """Return what start(stderr), a process, writes to a terminal of 100 columns, and what it prints on stdout"""
    terminal, stderr = os.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    process = start(stderr)
    os.close(stderr)
    shown = b""
    with suppress(OSError):  # on Linux: the other end is closed
        while some := os.read(terminal, 1 << 16):
            shown += some
    os.close(terminal)
    return shown.decode(), process.communicate(timeout=20)[0]
