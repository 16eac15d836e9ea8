"""Test which files of a folder and of Python's library are collected."""

import os
import sysconfig
from pathlib import Path

import pytest
from test_documents import written

from numpy_gpt import GPTError
from numpy_gpt.corpus.folder import add_folder
from numpy_gpt.corpus.stdlib import add_stdlib


def make(root, files):
    """Write files by their paths; a content of Path is the target of a link"""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            path.symlink_to(content)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)


def collected(root, wanted=None):
    """Return the texts of a folder, and the counts of the skipped files"""
    _, documents, _ = written([], wanted=wanted)
    add_folder(documents, root)
    texts = documents.file.getvalue().decode().split("\n<|endoftext|>\n")
    return texts[:-1], dict(documents.refused)


def test_text_markdown_and_code_are_collected_sorted_by_name(tmp_path):
    make(tmp_path, {"b.md": "b", "a/z.py": "az", "a/README": "aR", "c.TXT": "c", "B.rs": "B", "é.c": "é"})
    assert collected(tmp_path) == (["B", "aR", "az", "b", "c", "é"], {})


def test_order_does_not_depend_on_the_order_of_creation(tmp_path):
    names = [f"{letter}{i}.txt" for letter in "abc" for i in range(5)]
    make(tmp_path / "one", {name: name for name in names})
    make(tmp_path / "two", {name: name for name in reversed(names)})
    assert collected(tmp_path / "one") == collected(tmp_path / "two") == (names, {})


@pytest.mark.parametrize(
    "name",
    [
        *(".hidden.txt", ".git/config", "a/.cache/b.py", "node_modules/x/index.js", "a/node_modules/y.js"),
        *("__pycache__/x.py", "env/lib/x.py", "a/my env/lib/x.py", "conda/lib/x.py"),
    ],
)
def test_hidden_and_installed_files_are_left_out(tmp_path, name):
    make(tmp_path, {"text.txt": "text", "env/pyvenv.cfg": "", "a/my env/pyvenv.cfg": "", "conda/conda-meta/x": ""})
    make(tmp_path, {name: "unwanted"})
    assert collected(tmp_path) == (["text"], {})


@pytest.mark.parametrize("name", [".notes", "node_modules", "env"])
def test_folder_itself_may_have_any_name(tmp_path, name):
    make(tmp_path / name, {"a.txt": "a", "pyvenv.cfg": "b"})
    assert collected(tmp_path / name)[0] == ["a", "b"]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"x.txt": b"a\0b"}, "binary"),
        ({"x.txt": "a".encode("utf-16")}, "binary"),
        ({"x.txt": b"caf\xe9"}, "not UTF-8"),
        ({"program": b"\x7fELF\0"}, "binary"),
        ({"x.json": "{}"}, "of other kinds"),
        ({"x.png": b"\x89PNG\0"}, "of other kinds"),
        ({"x.txt": "\n"}, "empty"),
        ({"x.txt": "text\r\n"}, "repeated"),
        ({"x.txt": Path("nowhere")}, "unreadable"),
        ({"x.txt": Path("x.txt")}, "unreadable"),
    ],
)
def test_skipped_file_is_counted_with_its_reason(tmp_path, files, reason):
    make(tmp_path, {"a.txt": "text", **files})
    assert collected(tmp_path) == (["text"], {reason: 1})


def test_byte_order_mark_is_no_text(tmp_path):
    make(tmp_path, {"a.txt": b"\xef\xbb\xbftext"})
    assert collected(tmp_path) == (["text"], {})


def test_links_are_followed_once(tmp_path):
    make(tmp_path / "outside", {"o.txt": "o", "back": tmp_path / "root"})
    make(tmp_path / "root", {"b/x.txt": "x", "a": Path("b"), "c/up": Path(".."), "d.txt": Path("b/x.txt")})
    make(tmp_path / "root", {"e": tmp_path / "outside"})
    assert collected(tmp_path / "root") == (["x", "o"], {})


def test_pipe_is_not_opened(tmp_path):
    make(tmp_path, {"a.txt": "text"})
    os.mkfifo(tmp_path / "b.txt")
    assert collected(tmp_path) == (["text"], {})


def test_collection_stops_with_the_file_that_reaches_the_wanted_tokens(tmp_path):
    make(tmp_path, {"a.txt": "four", "b.txt": "five!", "c.txt": "6"})
    assert collected(tmp_path, wanted=5) == (["four", "five!"], {})


@pytest.mark.parametrize(("name", "message"), [("nowhere", "nowhere doesn't exist"), ("file", "file is a file")])
def test_other_path_than_a_folder_is_refused(tmp_path, name, message):
    (tmp_path / "file").touch()
    with pytest.raises(GPTError, match=message):
        collected(tmp_path / name)


def library(wanted):
    _, documents, _ = written([], wanted=wanted)
    add_stdlib(documents)
    return documents


def test_stdlib_begins_with_the_first_modules():
    texts = library(50_000).file.getvalue().decode().split("\n<|endoftext|>\n")
    root = Path(sysconfig.get_path("stdlib"))
    first = [path.read_text().strip() for path in sorted(root.iterdir()) if path.suffix == ".py"][:2]
    assert texts[:2] == first


def test_stdlib_has_no_tests_and_no_installed_packages(tmp_path, monkeypatch):
    own = {"ast.py": "ast", "json/decoder.py": "decoder", "unittest/case.py": "case"}
    others = ["test/a.py", "json/tests/b.py", "idlelib/idle_test/c.py", "site-packages/d.py", "dist-packages/e/f.py"]
    make(tmp_path, own | dict.fromkeys((*others, "lib-dynload/g.so", "__pycache__/h.py", "LICENSE.txt"), "unwanted"))
    monkeypatch.setattr(sysconfig, "get_path", {"stdlib": str(tmp_path)}.get)
    assert library(None).file.getvalue().decode() == "".join(f"{text}\n<|endoftext|>\n" for text in own.values())


@pytest.mark.slow
def test_stdlib_has_the_whole_library():
    documents = library(None)
    text = documents.file.getvalue().decode()
    assert documents.tokens > 5_000_000
    for name in ("class JSONDecoder", "class ThreadPoolExecutor", "class TestLoader"):  # unittest is part of it
        assert name in text


def test_library_that_is_no_folder_is_an_error(monkeypatch):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: "/nowhere/python.zip")
    with pytest.raises(GPTError, match=r"/nowhere/python.zip, the library of this Python, isn't a folder"):
        library(1)
