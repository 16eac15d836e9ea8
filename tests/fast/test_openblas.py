"""Does OpenBLAS get its threads back when the pool's work ends, and does it leave idle cores to the pool?"""

import os
import sys
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from pools import numpys_openblas, with_threads

from numpy_gpt.fast.openblas import openblas
from numpy_gpt.fast.threads import Threads, side_by_side


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the functions of a linked library may not be found")
def test_openblas_is_found_if_numpy_is_built_with_it():
    name = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    if "openblas" not in name:
        pytest.skip(f"NumPy uses {name}")
    blas = openblas()
    before = blas.get_num_threads()
    blas.set_num_threads(1)
    assert blas.get_num_threads() == 1
    blas.set_num_threads(before)
    assert blas.get_num_threads() == before


def test_single_threaded_blas_restores_the_number_of_threads_after_an_error():
    blas, seen = numpys_openblas(), []
    before = blas.get_num_threads()
    with suppress(KeyError), with_threads(before + 2).single_threaded_blas():
        seen.append(blas.get_num_threads())
        raise KeyError
    assert (seen, blas.get_num_threads()) == ([1], before)


def test_overlapping_contexts_restore_the_number_of_threads_when_the_last_ends():
    blas, threads = numpys_openblas(), with_threads(2)
    before = blas.get_num_threads()
    one, other = threads.single_threaded_blas(), threads.single_threaded_blas()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert blas.get_num_threads() == 1
    other.__exit__(None, None, None)
    assert blas.get_num_threads() == before


class SlowBLAS:
    """Imitate an OpenBLAS of two threads whose functions take time"""

    def __init__(self):
        self.n, self.reads = 2, 0

    def get_num_threads(self):
        self.reads += 1
        n = self.n
        time.sleep(0.2)
        return n

    def set_num_threads(self, n):
        if n != 1:
            time.sleep(0.2)
        self.n = n


def test_contexts_entered_at_once_read_the_number_of_threads_once():
    threads, meet = with_threads(2), threading.Barrier(2)
    threads.blas = SlowBLAS()

    def use(_):
        with threads.single_threaded_blas():
            meet.wait(timeout=10)

    with_threads(2).map(use, range(2))
    assert (threads.blas.reads, threads.blas.n) == (1, 2)


def test_context_entered_while_the_last_ends_waits_until_the_threads_are_restored():
    threads, ending = with_threads(2), threading.Event()
    threads.blas = SlowBLAS()

    def use(second):
        if second:
            ending.wait(10)
            time.sleep(0.1)
        with threads.single_threaded_blas():
            ending.set()
            time.sleep(0.4 * second)

    with_threads(2).map(use, range(2))
    assert threads.blas.n == 2


def test_side_by_side_computes_last_items_first_with_single_threaded_blas(monkeypatch):
    blas, order, one = numpys_openblas(), [], with_threads(1)
    before = blas.get_num_threads()
    monkeypatch.setattr("numpy_gpt.fast.threads.shared", lambda: one)
    results = side_by_side(lambda i: (order.append(i), i, blas.get_num_threads())[1:], range(3))
    assert results == [(0, 1), (1, 1), (2, 1)]
    assert order == [2, 1, 0]
    assert blas.get_num_threads() == before
    assert side_by_side(lambda i: (i, blas.get_num_threads()), [5]) == [(5, before)]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system doesn't let a process choose its cores")
def test_without_openblas_the_pool_has_a_thread_for_each_allowed_core(monkeypatch):
    monkeypatch.setattr("numpy_gpt.fast.threads.openblas", lambda: None)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert Threads().n == 1
    finally:
        os.sched_setaffinity(0, before)
    assert Threads().n == len(before)
