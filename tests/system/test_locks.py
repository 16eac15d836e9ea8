"""Test that one process at a time holds a directory's lock, and that locks leave no files behind."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from numpy_gpt import GPTError
from numpy_gpt.system.locks import RUN_LOCK, WRITE_LOCK, locked, locked_run, run_directory

HOLD = """
import sys
from pathlib import Path
from numpy_gpt.system.locks import locked
with locked(Path(sys.argv[1]), wait=lambda: print("waits", flush=True)):
    print("locked", flush=True)
    sys.stdin.read()
"""


def holder(directory):
    """Start a process that holds the lock until its stdin is closed"""
    command = [sys.executable, "-c", HOLD, str(directory)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def is_locked(directory):
    def refuse():
        raise GPTError("locked")

    try:
        with locked(directory, refuse):
            return False
    except GPTError:
        return True


def test_second_process_waits_until_the_lock_is_released(tmp_path):
    with locked(tmp_path):
        other = holder(tmp_path)
        assert other.stdout.readline() == "waits\n"
    assert other.communicate()[0] == "locked\n"
    assert os.listdir(tmp_path) == []


def test_lock_of_a_killed_process_is_free(tmp_path):
    with holder(tmp_path) as other:
        assert other.stdout.readline() == "locked\n"
        assert is_locked(tmp_path)
        other.kill()
    assert os.listdir(tmp_path) == [WRITE_LOCK]
    assert not is_locked(tmp_path)
    assert os.listdir(tmp_path) == []


def test_lock_file_removed_while_another_waits_is_created_anew(tmp_path):
    # Otherwise the waiting thread would hold the lock of a removed file, and a third could lock a new one
    waiting, found = threading.Event(), []

    def hold():
        with locked(tmp_path, waiting.set):
            found.extend([os.listdir(tmp_path), is_locked(tmp_path)])

    with locked(tmp_path):
        thread = threading.Thread(target=hold)
        thread.start()
        assert waiting.wait(20)
    thread.join(20)
    assert found == [[WRITE_LOCK], True]
    assert os.listdir(tmp_path) == []


def test_directory_without_write_permission_is_not_locked(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with locked(tmp_path), locked(tmp_path):
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EIO])
def test_file_system_without_locks_is_used_without(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    if number == errno.EIO:
        with (
            pytest.raises(GPTError, match=r"/\.writing\.lock can't be written to: Input/output error"),
            locked(tmp_path),
        ):
            pass
    else:
        with locked(tmp_path), locked(tmp_path):
            assert os.listdir(tmp_path) == [WRITE_LOCK]
        assert os.listdir(tmp_path) == []


def test_lock_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / RUN_LOCK).mkdir()
    with pytest.raises(GPTError, match=r"/\.lock can't be written to: Is a directory"), locked_run(tmp_path):
        pass


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="/proc is Linux's")
@pytest.mark.parametrize("lock", [locked, locked_run])
def test_lock_in_a_directory_that_takes_no_files_raises(lock):
    with pytest.raises((GPTError, OSError), match="/proc/"), lock(Path("/proc")):
        Path("/proc/file").touch()  # without root's permissions there is no lock


def test_lock_of_a_run_refuses_a_second_run_and_is_kept(tmp_path):
    message = f"another run is writing to {tmp_path}: wait until it ends, or choose another place."
    with locked_run(tmp_path):
        assert fail_in(tmp_path) == message
    assert os.listdir(tmp_path) == [RUN_LOCK]
    assert fail_in(tmp_path) == "failed"
    assert os.listdir(tmp_path) == [RUN_LOCK]


def fail_in(directory, write=None):
    """Enter a run's directory, write a file and fail; return the message of the error"""
    try:
        with run_directory(directory):
            assert RUN_LOCK in os.listdir(directory)
            if write:
                write.touch()
            raise GPTError("failed")
    except GPTError as e:
        return str(e)


def test_failed_run_removes_what_it_created_unless_something_was_written(tmp_path):
    fail_in(tmp_path / "a" / "b")
    assert os.listdir(tmp_path) == []
    fail_in(tmp_path / "a" / "b", write=tmp_path / "a" / "by another process")
    assert os.listdir(tmp_path / "a") == ["by another process"]
    fail_in(tmp_path / "a")
    assert os.listdir(tmp_path / "a") == ["by another process"]
    fail_in(tmp_path / "a", write=tmp_path / "a" / "log.jsonl")
    fail_in(tmp_path / "a")
    assert sorted(os.listdir(tmp_path / "a")) == [RUN_LOCK, "by another process", "log.jsonl"]
