"""Test the exit code and the messages of commands, above all when their streams are closed or full."""

import os
import subprocess
import sys

import pytest

BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def run(redirection, arguments, environment=BUFFERED):
    """Run a command in bash; return its own exit code and its stderr"""
    script = f"{sys.executable} -m numpy_gpt.{arguments} {redirection}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment)
    return done.returncode, done.stderr


EXIT_CODES = {"train --resume --out nowhere": 1, "train --nonsense": 2, "checkpoint verify nowhere": 3}


@pytest.mark.parametrize("arguments", EXIT_CODES)
@pytest.mark.parametrize("redirection", [">/dev/full 2>&1", "2>/dev/full", "2>&1 | true", ">&- 2>&-"])
def test_exit_code_of_an_error_is_kept_if_no_stream_can_be_written(tmp_path, monkeypatch, arguments, redirection):
    monkeypatch.chdir(tmp_path)
    assert run(redirection, arguments) == (EXIT_CODES[arguments], "")


UNBUFFERED = BUFFERED | {"PYTHONUNBUFFERED": "1"}
FULL = "checkpoint: the output can't be written: No space left on device.\n"


COMMANDS = {
    "help": ("--help", BUFFERED),
    "-u help": ("--help", UNBUFFERED),
    "info": ("info storyteller", BUFFERED),
    "-u": ("info storyteller", UNBUFFERED),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("redirection", "code", "message"), [("| true", 0, ""), (">/dev/full", 1, FULL)])
def test_only_an_open_stdout_that_cannot_be_written_is_an_error(redirection, code, message, command):
    arguments, environment = COMMANDS[command]
    assert run(redirection, f"checkpoint {arguments}", environment) == (code, message)


def test_closed_stdout_is_no_error():
    assert run(">&-", "checkpoint info storyteller") == (0, "")


INTERRUPTED = """
import os, signal, sys
from numpy_gpt.system.cli import run

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & ignores it

def main():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt as e:
        raise {error}

sys.exit(run("name", main))
"""


@pytest.mark.parametrize("error", ["RuntimeError('__set_name__') from e", "ImportError", "OSError from None"])
def test_error_that_replaces_an_interrupt_exits_with_130(error):
    done = subprocess.run([sys.executable, "-c", INTERRUPTED.format(error=error)], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


BUG = """
import sys
from numpy_gpt.system.cli import run

def main():
    print("output")
    open("nowhere")

sys.exit(run("name", main))
"""


@pytest.mark.parametrize("redirection", ["", ">/dev/full", ">&-"])
def test_error_of_another_file_is_not_reported_as_one_of_stdout(tmp_path, redirection):
    done = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" {redirection}', sys.executable, BUG],
        capture_output=True,
        text=True,
        env=BUFFERED,
        cwd=tmp_path,
    )
    assert done.returncode != 0
    assert "FileNotFoundError: [Errno 2] No such file or directory: 'nowhere'" in done.stderr
    assert "output can't be written" not in done.stderr
