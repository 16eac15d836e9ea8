"""How every command ends: with a sentence instead of a traceback, and with a status that a script can go by."""

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from ..errors import CheckpointError, GPTError
from . import config_file


def run(name: str, main: Callable[[], int | None], failed: int = 1) -> int:
    """Return main's status, or: failed, 3 if weights are missing or corrupt, 130 after Ctrl-C

    A closed pipe on stdout is no error. No stream keeps text that Python would fail to write at exit.
    """
    if sys.stdout:  # a closed one is None
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    status = 0
    try:
        status = ended(name, main, failed)
        if sys.stdout:
            sys.stdout.flush()
    except KeyboardInterrupt:  # the reader of stdout is slow
        status = 130
    except OSError as e:  # of stdout: what else can't be read or written is a GPTError
        silence(sys.stdout)
        if not isinstance(e, BrokenPipeError):
            print_unwritten(name, e)
            status = status or failed
    if sys.stderr:
        try:
            sys.stderr.flush()
        except OSError:  # argparse leaves in the buffer what it can't write
            silence(sys.stderr)
    return status


def ended(name: str, main: Callable[[], int | None], failed: int) -> int:
    """Return main's status, or that of its error, which is printed"""
    try:
        return main() or 0
    except SystemExit as e:  # of argparse, after --help or wrong usage
        return int(e.code or 0)
    except GPTError as e:
        print_stderr(f"{name}: {e}")
        return 3 if isinstance(e, CheckpointError) else failed
    except KeyboardInterrupt:
        return 130
    except MemoryError:
        print_stderr(f"{name}: there is not enough memory for this.")
        return failed


def parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line, with the values of --config FILE.toml as defaults"""
    what = "options by name, as in seed = 1; the command line overrides them, or adds to --stop"
    parser.add_argument("--config", metavar="FILE.toml", default=None, help=what)
    refuse_unknown(parser, words)
    given = parser.parse_args(words)
    if given.config is None:
        return given
    try:
        parser.set_defaults(**config_file.read(given.config, parser))
    except GPTError as e:
        parser.error(str(e))
    return parser.parse_args(words)


def refuse_unknown(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Refuse an unknown option with a space in it: argparse would take it for a positional or an item of a list"""
    options = {name: action for action in parser._actions for name in action.option_strings}
    valued = False  # the word before is an option that takes this word as its value
    for word in words:
        if word == "--":
            return
        name, equals, _ = word.partition("=")
        long = word.startswith("--")
        action = options.get(name) or next((options[o] for o in options if long and o.startswith(name)), None)
        if long and " " in word and not action and not valued:
            hint = config_file.suggestion(re.split("[= ]", word)[0], options)
            parser.error(f"unrecognized argument {word[:40]!r}{hint}: {otherwise(parser)}.")
        valued = action is not None and action.nargs is None and not equals


def otherwise(parser: argparse.ArgumentParser) -> str:
    """Return how to give a value that starts with --"""
    names = [action.metavar or action.dest for action in parser._actions if not action.option_strings]
    return f"put -- before a {names[-1]} that starts with --" if names else "put ./ before a file that starts with --"


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


class Stop:
    """Ctrl-C, SIGTERM or a closed terminal ask for the end, which comes when it suits; the same again, at once"""

    SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

    def __init__(self, notice: str):
        self.notice = notice.encode() + b"\n"
        self.came: list[int] = []

    def __enter__(self) -> "Stop":
        heard = [number for number in self.SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # nohup ignores one
        self.before = {number: signal.signal(number, self.ask) for number in heard}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def ask(self, number: int, _: Any) -> None:
        if number in self.came:
            raise KeyboardInterrupt
        if not self.came and sys.stderr:
            with suppress(OSError):
                os.write(sys.stderr.fileno(), self.notice)  # print can't be entered twice
        self.came.append(number)

    @property
    def signal(self) -> int:
        """The one that came first, or 0"""
        return self.came[0] if self.came else 0


def print_stderr(text: str) -> None:
    """Print on stderr, where there is one"""
    if sys.stderr:
        try:
            print(text, file=sys.stderr, flush=True)
        except OSError:
            silence(sys.stderr)


def print_unwritten(name: str, error: OSError) -> None:
    print_stderr(f"{name}: the output can't be written: {error.strerror}.")


def silence(stream: TextIO) -> None:
    """Redirect a stream that can't be written to the null device: Python flushes its buffer again at exit"""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
