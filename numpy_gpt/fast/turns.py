"""Let the threads of a program that call the library at the same time compute in turns.

Threads that call OpenBLAS at the same time fight for its workers, and each waits for the other's matmuls. They also
change its number of threads, and so the last bits of each other's results.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from threading import Lock, get_ident
from time import monotonic, sleep
from typing import Any

SLICE = 0.02  # seconds of computing after which another thread goes first
HANDOVER = 0.0002  # seconds in which a waiting thread wakes up

computing = Lock()
waiting: set[int] = set()  # threads that wait for this lock
in_turn: ContextVar[bool] = ContextVar("in_turn", default=False)  # the pool's workers inherit it from the caller of map


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait until no other thread of the process is inside this context, except the workers of this thread"""
    if in_turn.get():
        yield
        return
    register_fork_hook()
    try:
        waiting.add(get_ident())
        with computing:
            waiting.discard(get_ident())
            started = monotonic()
            token = in_turn.set(True)
            try:
                yield
            finally:
                in_turn.reset(token)
    finally:
        waiting.discard(get_ident())  # Ctrl-C may end the wait for the lock
    if waiting and monotonic() - started > SLICE:
        sleep(HANDOVER)  # or this thread could take the lock again before the others wake up


def in_turns(items: Iterator[Any]) -> list[Any]:
    """Return list(items); after each SLICE of seconds, another thread that waits in one_at_a_time goes first

    Changing the thread for every single item would take longer.
    """
    found = []
    while True:
        with one_at_a_time():
            end = monotonic() + SLICE
            for item in items:
                found.append(item)
                if monotonic() > end:
                    break
            else:
                return found


@cache
def register_fork_hook() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)


def forget() -> None:
    """Replace the lock in a forked child, which has none of the threads that held it or waited for it"""
    global computing
    computing = Lock()
    waiting.clear()
