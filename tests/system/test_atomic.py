"""Test that a file is replaced atomically, and that a reader finds one state."""

import os

import pytest

from numpy_gpt import CheckpointError, GPTError
from numpy_gpt.system.atomic import read_consistently, replacing


def test_read_of_files_replaced_at_every_read_raises(tmp_path):
    file = tmp_path / "file"

    def read(_):
        file.write_bytes(file.read_bytes() + b"x")
        return file.stat().st_size

    file.touch()
    with pytest.raises(CheckpointError, match=r"changed during each of 1,000 attempts to read it"):
        read_consistently(tmp_path, read, lambda _: [file])
    assert read_consistently(tmp_path, lambda _: file.stat().st_size, lambda _: [file]) == 1000


def test_file_is_replaced_after_the_last_write(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as f:
        f.write(b"new")
        f.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def write_half(error):
        with replacing(path) as f:
            f.write(b"ne")
            raise error

    with pytest.raises(GPTError, match="No space left on device; the previous file"):
        write_half(OSError(28, "No space left on device"))
    with pytest.raises(KeyboardInterrupt):
        write_half(KeyboardInterrupt)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]
