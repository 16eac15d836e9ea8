"""Find the texts in a folder: plain text, Markdown and source code."""

import os
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from ..errors import GPTError
from .documents import Documents

PROSE = "adoc asciidoc asc bib latex md markdown mdx mkd org pod rst tex texi text textile txt wiki"
CODE = (
    "adb ads agda asm awk bas bash bat c c++ cc cfg cjs cl clj cljs cmake cob coffee conf cpp cr cs css cu cuh cxx "
    "d dart dockerfile el elm erl ex exs f f03 f08 f77 f90 f95 fish for fs fsi fsx gd gleam glsl go gradle graphql "
    "groovy h h++ hcl hh hpp hrl hs htm html hxx idr ini ino java jl js jsx kt kts lean less lhs lisp lua m make "
    "mjs mk ml mli mm mojo move nim nix odin pas php pl pm pony proto ps1 purs py pyi pyx pxd r rb rkt rs s sass "
    "scala scheme scm scss sh sml sol sql sv svelte swift tcl tf toml ts tsx v vb vhd vhdl vim vue wat xs yaml yml "
    "zig zsh"
)
SUFFIXES = frozenset({"", *(f".{name}" for name in f"{PROSE} {CODE}".split())})  # "" as in README and Makefile
SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__"})
VIRTUAL_ENVIRONMENT = ("pyvenv.cfg", "conda-meta")  # one of them is in its folder


def add_folder(documents: Documents, root: Path) -> None:
    """Add the texts in a folder, until there are enough tokens"""
    if not os.path.isdir(root):
        problem = "is a file" if os.path.exists(root) else "doesn't exist"
        raise GPTError(f"{root} {problem}: give a folder.")
    add_files(documents, files_in(root, SKIPPED_FOLDERS, documents.refused), SUFFIXES)


def add_files(documents: Documents, files: Iterator[Path], suffixes: Collection[str]) -> None:
    """Add the text files with one of these suffixes, until there are enough tokens"""
    for path in files:
        if documents.full:
            return
        if path.suffix.lower() not in suffixes:
            documents.refused["of other kinds"] += 1
        elif (text := read_text(path, documents.refused)) is not None:
            documents.add(text)


def read_text(path: Path, refused: Counter[str]) -> str | None:
    """Return the text of a file; None if it can't be read, or isn't text in UTF-8"""
    try:
        content = path.read_bytes()
    except OSError:
        refused["unreadable"] += 1
        return None
    if b"\0" in content:
        refused["binary"] += 1
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        refused["not UTF-8"] += 1
        return None


def files_in(root: Path, skipped_folders: Collection[str], refused: Counter[str]) -> Iterator[Path]:
    """Yield the regular files under a folder, sorted by name in each folder

    Hidden files and folders, virtual environments and skipped_folders are left out. A link is followed if the file or
    folder that it leads to hasn't been visited yet.
    """
    root = Path(os.path.realpath(root))
    visited = {root}
    stack = [entries_of(root, refused)]
    while stack:
        path = next(stack[-1], None)
        if path is None:
            stack.pop()
        elif path not in visited:
            visited.add(path)
            if os.path.isfile(path):
                yield path
            elif os.path.isdir(path) and not is_skipped(path, skipped_folders):
                stack.append(entries_of(path, refused))
            elif not os.path.exists(path):  # a broken link, a loop of links, or a folder that can't be searched
                refused["unreadable"] += 1


def entries_of(folder: Path, refused: Counter[str]) -> Iterator[Path]:
    """Return the paths in a folder that aren't hidden, sorted by name; a link is replaced by its target"""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        refused["unreadable"] += 1
        names = []
    paths = (folder / name for name in names if not name.startswith("."))
    return (Path(os.path.realpath(path)) if os.path.islink(path) else path for path in paths)


def is_skipped(folder: Path, skipped_folders: Collection[str]) -> bool:
    """Return whether a folder is a virtual environment or has one of these names"""
    return folder.name in skipped_folders or any(os.path.lexists(folder / name) for name in VIRTUAL_ENVIRONMENT)
