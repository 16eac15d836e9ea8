"""Is nothing half-written, nothing written to that was only read, and one process at a time in a locked directory?"""

import json
import os
import subprocess
import sys
import threading

import pytest

from numpy_gpt import CheckpointError, GPTError
from numpy_gpt.system.atomic import read_settled, replacing
from numpy_gpt.system.files import map_file, read_bytes, read_json
from numpy_gpt.system.locks import claimed, locked


def test_a_mapped_file_can_be_written_to_and_stays_as_it_is(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    data = map_file(path)
    data[0] = ord("x")
    assert data.tobytes() == b"xbc"
    assert path.read_bytes() == b"abc"
    path.write_bytes(b"")
    assert len(map_file(path)) == 0


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # to open it would wait for ever
    for name in ("pipe", "", "nothing", "x" * 300, "a\0b"):
        for read in (map_file, read_json):
            with pytest.raises(
                CheckpointError,
                match=r"is a directory or a device|can't be read: (No such file|File name too|(stat: )?embedded null)",
            ):
                read(tmp_path / name)


def test_what_is_replaced_whenever_it_is_read_gets_a_sentence(tmp_path):
    file = tmp_path / "file"

    def read(_):
        file.write_bytes(file.read_bytes() + b"x")
        return file.stat().st_size

    file.touch()
    with pytest.raises(CheckpointError, match=r"was saved to each of the 1,000 times that it was read"):
        read_settled(tmp_path, read, lambda _: [file])
    assert read_settled(tmp_path, lambda _: file.stat().st_size, lambda _: [file]) == 1000


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with open(tmp_path / "large", "wb") as f:
        f.truncate(1 << 40)
    with pytest.raises(CheckpointError, match="1,099,511,627,776 bytes where 100 are plenty"):
        read_bytes(tmp_path / "large", 100)


NO_JSON = {
    "nothing": b"",
    "a bomb of brackets": b"[" * 500_000,
    "half of it": b'{"n_vocab": 5',
    "not UTF-8": b'{"\xff": 1}',
    "a name twice": b'{"n_head": 1, "n_head": 2}',
    "a number of 5,000 digits": b'{"n": 1' + b"0" * 5000 + b"}",
    "a list": b"[1, 2]",
    "too long": b'{"n": "' + b"x" * (1 << 20) + b'"}',
}


@pytest.mark.parametrize("what", NO_JSON)
def test_json_that_is_none_gets_a_sentence(what, tmp_path):
    (tmp_path / "x.json").write_bytes(NO_JSON[what])
    with pytest.raises(CheckpointError, match=r"x\.json"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text(json.dumps({"n": 1}))
    assert read_json(tmp_path / "x.json") == {"n": 1}


def test_a_file_is_replaced_when_all_is_written(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as f:
        f.write(b"new")
        f.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_that_could_not_be_written_stays_as_it_was(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def half(error):
        with replacing(path) as f:
            f.write(b"ne")
            raise error

    with pytest.raises(GPTError, match="No space left on device; what was there before still is"):
        half(OSError(28, "No space left on device"))
    with pytest.raises(KeyboardInterrupt):
        half(KeyboardInterrupt)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_one_process_waits_for_the_other(tmp_path):
    script = f"""
from pathlib import Path
from numpy_gpt.system.locks import locked
with locked(Path({str(tmp_path)!r}), wait=lambda: print("waits", flush=True)):
    print("alone", flush=True)
"""
    with locked(tmp_path):
        other = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert other.stdout.readline() == "waits\n"
    assert other.communicate()[0] == "alone\n"
    assert os.listdir(tmp_path) == []


def test_lock_file_that_is_removed_while_another_waits_is_locked_anew(tmp_path):
    """Otherwise the one that waited and the next to come would both hold the lock"""
    place, waiting, found = tmp_path / ".lock", threading.Event(), []

    def hold():
        with locked(place, waiting.set):
            found.append(claim(tmp_path))

    with locked(place):
        thread = threading.Thread(target=hold)
        thread.start()
        waiting.wait()
        place.unlink()
    thread.join()
    assert found == [f"another run is writing to {tmp_path}: wait for its end, or choose another place."]
    assert claim(tmp_path) == "failed"


def claim(directory, write=None):
    """Claim a directory, write a file and fail; return why"""
    try:
        with claimed(directory):
            assert ".lock" in os.listdir(directory)
            if write:
                write.touch()
            raise GPTError("failed")
    except GPTError as e:
        return str(e)


def test_failed_claim_removes_what_it_created_unless_something_was_written(tmp_path):
    claim(tmp_path / "a" / "b")
    assert os.listdir(tmp_path) == []
    claim(tmp_path / "a" / "b", write=tmp_path / "a" / "by another process")
    assert os.listdir(tmp_path / "a") == ["by another process"]
    claim(tmp_path / "a")
    assert os.listdir(tmp_path / "a") == ["by another process"]
    claim(tmp_path / "a", write=tmp_path / "a" / "log.jsonl")
    claim(tmp_path / "a")
    assert sorted(os.listdir(tmp_path / "a")) == [".lock", "by another process", "log.jsonl"]
