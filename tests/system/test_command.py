"""Test the exit status and the messages of commands whose streams are closed or full."""

import os
import subprocess
import sys

import pytest

BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # as users have it


def ended(redirection, args):
    """Run a command in bash; return its own exit status and what went to stderr"""
    script = f"{sys.executable} -m numpy_gpt.{args} {redirection}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=BUFFERED)
    return done.returncode, done.stderr


STATUSES = {"train --resume --out nowhere": 1, "train --nonsense": 2, "checkpoint verify nowhere": 3}


@pytest.mark.parametrize("args", STATUSES)
@pytest.mark.parametrize("redirection", [">/dev/full 2>&1", "2>/dev/full", "2>&1 | true", ">&- 2>&-"])
def test_status_of_a_mistake_stays_if_no_stream_can_be_written(tmp_path, monkeypatch, args, redirection):
    monkeypatch.chdir(tmp_path)
    assert ended(redirection, args) == (STATUSES[args], "")


@pytest.mark.parametrize(
    ("redirection", "status", "complaint"),
    [("| true", 0, ""), (">/dev/full", 1, "train: the output can't be written: No space left on device.\n")],
)
def test_help_without_a_reader_is_no_error(redirection, status, complaint):
    assert ended(redirection, "train --help") == (status, complaint)
