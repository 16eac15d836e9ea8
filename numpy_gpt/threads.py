"""Threads that share work. NumPy lets go of Python's lock while it computes, so they run side by side.

OpenBLAS, on which NumPy stands, has threads too, for one product at a time. Where ours share a batch it keeps to one:
halves of a batch side by side use two cores for everything, and not for the products alone.
"""

import ctypes
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any


class Threads:
    def __init__(self):
        self.get, self.set = openblas()
        self.n = max(1, self.get())  # as many as OpenBLAS would use
        self.pool = ThreadPoolExecutor(max(1, self.n - 1))

    def each(self, f: Callable[..., Any], parts: Sequence[tuple]) -> list[Any]:
        """[f(*part), ...], at the same time"""
        mine, *others = parts
        futures = [self.pool.submit(f, *part) for part in others]
        return [f(*mine), *(future.result() for future in futures)]

    @contextmanager
    def instead_of_blas(self) -> Iterator[None]:
        """A thread of OpenBLAS that has nothing to do keeps its core busy for a while: from here on it sleeps"""
        before = self.get()
        self.set(1)
        try:
            yield
        finally:
            self.set(before)


def openblas() -> tuple[Callable[[], int], Callable[[int], Any]]:
    """How many threads it uses, and how to change that; where NumPy stands on another library, there is one of ours"""
    try:
        loaded = set(re.findall(r"/\S*openblas\S*", Path("/proc/self/maps").read_text()))
    except OSError:  # not Linux
        loaded = set()
    for path, prefix, suffix in product(sorted(loaded), ("scipy_", ""), ("64_", "")):
        library = ctypes.CDLL(path)
        names = [f"{prefix}openblas_{verb}_num_threads{suffix}" for verb in ("get", "set")]
        if all(hasattr(library, name) for name in names):
            return getattr(library, names[0]), getattr(library, names[1])
    return (lambda: 1), (lambda n: None)
