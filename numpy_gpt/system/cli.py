"""Run a command: messages instead of tracebacks, exit codes for scripts, signals, and options from a file."""

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, TextIO

from ..errors import CheckpointError, GPTError
from . import config_file


def run(name: str, main: Callable[[], int | None], failed: int = 1) -> int:
    """Return main's exit code, or `failed` after an error, 3 if weights are missing or corrupt, 130 after Ctrl-C

    A closed pipe on stdout isn't an error. No stream keeps text that Python would fail to write at exit. An OSError of
    another file is a bug and propagates: code that expects one raises GPTError.
    """
    stdout: Any = Stdout(sys.stdout) if sys.stdout else None  # None if the process was started with stdout closed
    status = 0
    with redirect_stdout(stdout):
        try:
            status = exit_code(name, main, failed)
            if stdout:
                stdout.flush()
                if stdout.error:  # argparse ignores an error while it prints --help
                    raise stdout.error
        except KeyboardInterrupt:  # while the flush waits for a slow reader
            status = 130
        except OSError as e:
            if not stdout or e is not stdout.error:
                raise
            silence(stdout)
            if not isinstance(e, BrokenPipeError):
                print_unwritten(name, e)
                status = status or failed
    flush_stderr()
    return status


def exit_code(name: str, main: Callable[[], int | None], failed: int) -> int:
    """Return main's exit code; print the message of a GPTError and return its code"""
    try:
        return main() or 0
    except SystemExit as e:  # argparse's, after --help or wrong usage
        return int(e.code or 0)
    except GPTError as e:
        print_stderr(f"{name}: {e}")
        return 3 if isinstance(e, CheckpointError) else failed
    except KeyboardInterrupt:
        return 130
    except MemoryError:
        print_stderr(f"{name}: there is not enough memory for this.")
        return failed
    except Exception as e:
        if not interrupted(e):
            raise
        return 130


def interrupted(e: BaseException | None) -> bool:
    """Return whether Ctrl-C led to this exception: an import replaces KeyboardInterrupt by an error of its own"""
    while e and not isinstance(e, KeyboardInterrupt):
        e = e.__context__
    return e is not None


class Stdout:
    """Pass everything on to stdout, and record the error of a write that fails"""

    def __init__(self, stream: Any):
        stream.reconfigure(errors="backslashreplace")
        self.stream = stream
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with self.recording():
            return self.stream.write(text)

    def flush(self) -> None:
        with self.recording():
            self.stream.flush()

    @contextmanager
    def recording(self) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            self.error = e
            raise


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str], intermixed: bool = False) -> argparse.Namespace:
    """Parse the command line, with the values of --config FILE.toml as defaults

    intermixed allows options between the positionals: without it, argparse ignores an optional positional after them.
    """
    parse_args = parser.parse_intermixed_args if intermixed else parser.parse_args
    help = "read options by name from this file; the command line overrides them"
    if "--stop" in parser._option_string_actions:
        help += ", and adds to --stop"
    parser.add_argument("--config", metavar="FILE.toml", default=None, help=help)
    refuse_unknown(parser, arguments)
    given = parse_args(arguments)
    if given.config is None:
        return given
    try:
        parser.set_defaults(**config_file.read_options(given.config, parser))
    except GPTError as e:
        parser.error(str(e))
    return parse_args(arguments)


def refuse_unknown(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Refuse an unknown option that contains a space: argparse would take it as a positional or an item of a list"""
    options = {name: action for action in parser._actions for name in action.option_strings}
    takes_next = False  # whether the argument before is an option whose value is this argument
    for argument in arguments:
        if argument == "--":
            return
        name, equals, _ = argument.partition("=")
        long = argument.startswith("--")
        action = options.get(name) or next((options[o] for o in options if long and o.startswith(name)), None)
        if long and " " in argument and not action and not takes_next:
            similar = config_file.suggestion(re.split("[= ]", argument)[0], options)
            parser.error(f"unrecognized argument {argument[:40]!r}{similar}: {leading_dashes_hint(parser)}.")
        takes_next = action is not None and action.nargs is None and not equals


def leading_dashes_hint(parser: argparse.ArgumentParser) -> str:
    """Return an instruction for a positional argument that starts with --"""
    names = [action.metavar or action.dest for action in parser._actions if not action.option_strings]
    return f"put -- before a {names[-1]} that starts with --" if names else "put ./ before a file that starts with --"


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Raise KeyboardInterrupt at the end of the block if Ctrl-C was pressed in it; a second one raises at once"""
    interrupts = 0

    def handle(*_: Any) -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 1:
            raise KeyboardInterrupt

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if interrupts:
        raise KeyboardInterrupt


class Stop:
    """Record Ctrl-C, SIGTERM or SIGHUP in `signal`, for a loop that then ends; raise if the signal comes again"""

    SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

    def __init__(self, notice: str):
        self.notice = notice.encode() + b"\n"
        self.received: list[int] = []

    def __enter__(self) -> "Stop":
        handled = [number for number in self.SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # by nohup: SIGHUP
        self.previous = {number: signal.signal(number, self.handle) for number in handled}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def handle(self, number: int, _: Any) -> None:
        if number in self.received:
            raise KeyboardInterrupt
        if not self.received and sys.stderr:
            with suppress(OSError):
                os.write(sys.stderr.fileno(), self.notice)  # print isn't reentrant
        self.received.append(number)

    @property
    def signal(self) -> int:
        """Return the number of the first signal, or 0"""
        return self.received[0] if self.received else 0


@contextmanager
def exit_on_signals() -> Iterator[Callable[[], None]]:
    """Raise SystemExit on Ctrl-C, SIGTERM and SIGHUP, so that the block can remove what it has created

    The import of an extension module can discard the exception. So the function that is yielded raises it again, as
    does the end of the block. An ignored signal stays ignored: nohup starts a process that ignores SIGHUP.
    """
    received: list[int] = []

    def leave(number: int, _: Any) -> None:
        received.append(number)
        raise SystemExit(128 + number)

    def check() -> None:
        if received:
            raise SystemExit(128 + received[0])

    defaults = (signal.SIG_DFL, signal.default_int_handler)
    initial = {number: signal.signal(number, leave) for number in Stop.SIGNALS if signal.getsignal(number) in defaults}
    try:
        yield check
    finally:
        for number, handler in initial.items():
            signal.signal(number, handler)
        check()


def print_stderr(text: str) -> None:
    """Print on stderr, unless it is closed or can't be written"""
    if sys.stderr:
        try:
            print(text, file=sys.stderr, flush=True)
        except OSError:
            silence(sys.stderr)


def print_unwritten(name: str, error: OSError) -> None:
    """Print why stdout can't be written"""
    print_stderr(f"{name}: the output can't be written: {error.strerror}.")


def flush_stderr() -> None:
    """Flush stderr: argparse leaves a message in its buffer if that can't be written"""
    if sys.stderr:
        try:
            sys.stderr.flush()
        except OSError:
            silence(sys.stderr)


def silence(stream: TextIO | Stdout) -> None:
    """Redirect a stream that can't be written to the null device, since Python flushes its buffer again at exit

    The caller reports the error.
    """
    if isinstance(stream, Stdout):
        stream.error = None
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
