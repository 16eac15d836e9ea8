"""Threads that share work. NumPy lets go of Python's lock while it computes, so they run side by side.

OpenBLAS, on which NumPy stands, has threads too, for one product at a time. Where ours share a batch it keeps to one:
halves of a batch side by side use two cores for everything, and not for the products alone.
"""

import ctypes
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from itertools import product
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

# A thread of OpenBLAS that has nothing to do keeps its core busy for 2^28 cycles, a tenth of a second, unless this is
# set before NumPy is imported. 2^20 are longer than decoding pauses between two products.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")


class Threads:
    def __init__(self):
        self.blas = openblas()
        self.n = self.blas.get() if self.blas else cores()  # as many as OpenBLAS would use
        self.pool = ThreadPoolExecutor(max(1, self.n - 1))
        self.lock, self.instead, self.before = Lock(), 0, 0

    def map(self, f: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """[f(item), ...]: each thread takes the next item, until all are done"""
        todo = deque(enumerate(items))
        done: list[Any] = [None] * len(todo)

        def work():
            try:
                while todo:
                    try:
                        i, item = todo.popleft()
                    except IndexError:  # another was faster
                        return
                    done[i] = f(item)
            except BaseException:
                todo.clear()  # nobody goes on
                raise

        helpers: list[Future] = []
        works = [work]
        try:
            for _ in range(min(self.n, len(todo)) - 1):
                helpers.append(self.pool.submit(copy_context().run, each, works))
            work()
        finally:
            todo.clear()
            begun = [helper for helper in helpers if not helper.cancel()]  # who hasn't begun needn't
            wait(begun)
            works.clear()  # or the pool would keep what f and done hold, until one of its threads is free
        for helper in begun:
            helper.result()
        return done

    @contextmanager
    def instead_of_blas(self) -> Iterator[None]:
        """In the whole process a product keeps to the thread that asks for it, until the last of those here has gone"""
        assert self.blas
        with self.lock:
            if not self.instead:
                self.before = self.blas.get()
            self.instead += 1
        try:
            self.blas.set(1)
            yield
        finally:
            with self.lock:
                self.instead -= 1
                if not self.instead:
                    self.blas.set(self.before)


def cores() -> int:
    """That this process may use"""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(works: list[Callable[[], None]]) -> None:
    for work in works:
        work()


@cache
def only() -> Threads:
    return Threads()


making = Lock()


def shared() -> Threads:
    """One for the process, even if two ask at once: one could count OpenBLAS's threads while the other has one"""
    with making:
        return only()


def forget() -> None:
    """A child of the process has none of the threads"""
    only.cache_clear()
    making.release()


def side_by_side(f: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """[f(item), ...], each with its products on one core: the longest stand last, and are begun first"""
    threads = shared()
    if len(items) == 1 or not threads.blas:
        return [f(item) for item in items]
    with threads.instead_of_blas():
        return threads.map(f, items[::-1])[::-1]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=making.acquire, after_in_parent=making.release, after_in_child=forget)


class OpenBLAS(NamedTuple):
    get: Callable[[], int]  # how many threads it uses
    set: Callable[[int], Any]
    core: Callable[[], bytes]  # for which CPU its kernels are


def openblas() -> OpenBLAS | None:
    """If NumPy stands on it"""
    try:
        loaded = set(re.findall(r"/\S*openblas\S*", Path("/proc/self/maps").read_text()))
    except OSError:  # not Linux
        loaded = set()
    for path, prefix, suffix in product(sorted(loaded), ("scipy_", ""), ("64_", "")):
        library = ctypes.CDLL(path)
        names = [f"{prefix}openblas_{what}{suffix}" for what in ("get_num_threads", "set_num_threads", "get_corename")]
        if all(hasattr(library, name) for name in names):
            found = OpenBLAS(*(getattr(library, name) for name in names))
            found.core.restype = ctypes.c_char_p  # type: ignore[attr-defined]
            return found
    return None
