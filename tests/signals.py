"""Restore the default dispositions of signals in child processes."""

import signal


def not_ignored(number):
    """Return a function for Popen's preexec_fn: a test that nohup or a shell's & started would ignore signals"""

    def restore():
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)

    return restore
