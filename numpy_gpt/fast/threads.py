"""Threads that share work. NumPy lets go of Python's lock while it computes, so they run side by side.

OpenBLAS, on which NumPy stands, has threads too, for one product at a time. Where ours share a batch it keeps to one:
halves of a batch side by side use two cores for everything, and not for the products alone.
"""

import atexit
import ctypes
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache, partial
from importlib import import_module
from itertools import product
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, NamedTuple

# A thread of OpenBLAS that has nothing to do keeps its core busy for 2^28 cycles, a tenth of a second, unless this is
# set before NumPy is imported. 2^20 are longer than decoding pauses between two products.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")


class Call:
    """For help: either a thread answers it, or who called calls it off

    After a Ctrl-C a call may stay behind, but no lock that others need is shut for good, as an executor's can be.
    """

    def __init__(self, work: Callable[[], Any]):
        self.work: Callable[[], Any] | None = work
        self.errors: list[BaseException] = []
        self.taken, self.unfinished = Lock(), Lock()
        self.unfinished.acquire()

    def answer(self) -> None:
        if not self.taken.acquire(blocking=False):
            return
        try:
            self.work()  # type: ignore[misc]
        except BaseException as e:
            self.errors.append(e)
        self.unfinished.release()

    def called_off(self) -> bool:
        """If nobody has begun. It lets go of the work: until a thread is free, the call stands in the queue"""
        if not self.taken.acquire(blocking=False):
            return False
        self.work = None
        return True


class Threads:
    def __init__(self):
        self.blas = openblas()
        self.n = self.blas.get() if self.blas else cores()  # as many as OpenBLAS would use
        self.calls: SimpleQueue[Call | None] = SimpleQueue()
        self.started: list[Thread] = []
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

        calls: list[Call] = []
        try:
            for _ in range(self.helpers(min(self.n, len(todo)) - 1)):
                calls.append(Call(partial(copy_context().run, work)))
                self.calls.put(calls[-1])
            work()
        finally:
            todo.clear()
            begun = [call for call in calls if not call.called_off()]  # who hasn't begun needn't
            for call in begun:
                call.unfinished.acquire()
        for call in begun:
            if call.errors:
                raise call.errors.pop()  # who keeps an error keeps its traceback, and what f had there
        return done

    def helpers(self, wanted: int) -> int:
        """How many there are of these: a system may refuse to start a thread, as it does when Python is about to end"""
        with self.lock:
            while len(self.started) < wanted:
                thread = Thread(target=answer_all, args=(self.calls,), daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    break
                self.started.append(thread)
            return min(wanted, len(self.started))

    def end(self) -> None:
        """When the process does, OpenBLAS gives its memory back: nobody may be inside a product"""
        self.calls.put(None)
        for thread in self.started:
            thread.join()

    @contextmanager
    def instead_of_blas(self) -> Iterator[None]:
        """A product keeps to the thread that asks for it, until the last of those here has gone

        That holds for the whole process. How many threads share a product shows in its last bits, and so does, for a
        thread of the caller's, whether others of them compute meanwhile. A Ctrl-C just when two leave can keep it so.
        """
        assert self.blas
        counted = False
        try:
            with self.lock:
                if not self.instead:
                    self.before = self.blas.get()
                self.instead += 1
                counted = True
            self.blas.set(1)
            yield
        finally:
            with self.lock:
                self.instead -= counted
                if counted and not self.instead:
                    self.blas.set(self.before)


def answer_all(calls: SimpleQueue[Call | None]) -> None:
    while call := calls.get():
        call.answer()
        del call  # or it would be kept until the next
    calls.put(None)  # for the others


def cores() -> int:
    """That this process may use"""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def only() -> Threads:
    made = Threads()
    atexit.register(made.end)
    return made


making = Lock()


def shared() -> Threads:
    """One for the process, even if two ask at once: one could count OpenBLAS's threads while the other has one"""
    with making:
        return only()


def forget() -> None:
    """A child of the process has none of the threads, and nobody who would give OpenBLAS its own back"""
    if only.cache_info().currsize and only().instead:
        only().blas.set(only().before)  # type: ignore[union-attr]
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
    """If NumPy stands on it: in a library, names are looked for in those that it loads, too"""
    library = ctypes.CDLL(import_module("numpy._core._multiarray_umath").__file__)
    for prefix, suffix in product(("scipy_", ""), ("64_", "")):
        names = [f"{prefix}openblas_{what}{suffix}" for what in ("get_num_threads", "set_num_threads", "get_corename")]
        if all(hasattr(library, name) for name in names):
            found = OpenBLAS(*(getattr(library, name) for name in names))
            found.core.restype = ctypes.c_char_p  # type: ignore[attr-defined]
            return found
    return None
