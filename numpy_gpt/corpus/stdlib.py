"""Find the sources of Python's own library."""

import sysconfig
from collections import Counter
from pathlib import Path

from ..errors import GPTError
from .documents import Documents
from .folder import SKIPPED_FOLDERS, add_files, files_in

TESTS = {"test", "tests", "idle_test"}
NOT_PYTHONS_OWN = {"site-packages", "dist-packages"}


def add_stdlib(documents: Documents) -> None:
    """Add the modules of Python's library without its tests, until there are enough tokens"""
    root = Path(sysconfig.get_path("stdlib"))
    if not root.is_dir():
        raise GPTError(f"{root}, the library of this Python, isn't a folder: use another installation of Python.")
    found = files_in(root, SKIPPED_FOLDERS | TESTS | NOT_PYTHONS_OWN, Counter())
    add_files(documents, (path for path in found if path.suffix == ".py"), {".py"})
