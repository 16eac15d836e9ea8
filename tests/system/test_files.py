"""Test reads of untrusted files."""

import importlib
import json
import os

import pytest

from numpy_gpt import CheckpointError
from numpy_gpt.system.files import cache_directory, map_file, read_bytes, read_json


def test_write_to_a_mapped_file_leaves_the_file_unchanged(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    data = map_file(path)
    data[0] = ord("x")
    assert data.tobytes() == b"xbc"
    assert path.read_bytes() == b"abc"
    path.write_bytes(b"")
    assert len(map_file(path)) == 0


def test_read_of_anything_but_a_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would block
    for name in ("pipe", "", "nothing", "x" * 300, "a\0b"):
        for read in (map_file, read_json):
            with pytest.raises(
                CheckpointError,
                match=r"is a directory or a device|can't be read: (No such file|File name too|(stat: )?embedded null)",
            ):
                read(tmp_path / name)


def test_read_of_a_file_beyond_the_limit_is_refused(tmp_path):
    with open(tmp_path / "large", "wb") as f:
        f.truncate(1 << 40)
    with pytest.raises(CheckpointError, match="1,099,511,627,776 bytes, and a valid one has at most 100"):
        read_bytes(tmp_path / "large", 100)


INVALID_JSON = {
    "an empty file": b"",
    "500,000 brackets": b"[" * 500_000,
    "a truncated object": b'{"n_vocab": 5',
    "not UTF-8": b'{"\xff": 1}',
    "a name twice": b'{"n_head": 1, "n_head": 2}',
    "a number of 5,000 digits": b'{"n": 1' + b"0" * 5000 + b"}",
    "a list": b"[1, 2]",
    "too long": b'{"n": "' + b"x" * (1 << 20) + b'"}',
}


def test_read_json_names_the_type_in_place_of_an_object(tmp_path):
    for text, kind in (
        ("null", "null"),
        ("[]", "a list"),
        ('"x"', "a string"),
        ("true", "a boolean"),
        ("1", "a number"),
    ):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(CheckpointError, match=rf"x\.json contains {kind} instead of an object: get the file again"):
            read_json(tmp_path / "x.json")


@pytest.mark.parametrize("kind", INVALID_JSON)
def test_read_json_refuses_invalid_json(kind, tmp_path):
    (tmp_path / "x.json").write_bytes(INVALID_JSON[kind])
    with pytest.raises(CheckpointError, match=r"x\.json"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text(json.dumps({"n": 1}))
    assert read_json(tmp_path / "x.json") == {"n": 1}


CACHES = {
    ("unix.Unix", "HOME"): ".cache",
    ("unix.Unix", "XDG_CACHE_HOME"): "",
    ("macos.MacOS", "HOME"): "Library/Caches",
    ("windows.Windows", "LOCALAPPDATA"): "",
}


@pytest.mark.parametrize(("system", "variable"), CACHES)
def test_cache_directory_is_where_the_system_has_caches(system, variable, tmp_path, monkeypatch):
    module, name = system.split(".")
    module = importlib.import_module(f"platformdirs.{module}")
    monkeypatch.setattr("platformdirs.PlatformDirs", getattr(module, name))
    monkeypatch.setattr("platformdirs.windows.get_win_folder", lambda _: os.environ["LOCALAPPDATA"])
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    assert cache_directory() == tmp_path / CACHES[system, variable] / "numpy_gpt"
