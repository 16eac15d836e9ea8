"""Has OpenBLAS its threads back when ours have ended, and does it leave them the cores?"""

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from pools import of_numpy, with_threads

from numpy_gpt.fast.threads import Threads, openblas, side_by_side


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a library may be linked so that it can't be asked")
def test_numpys_openblas_is_found():
    name = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    if "openblas" not in name:
        pytest.skip(f"NumPy stands on {name}")
    blas = openblas()
    before = blas.get()
    blas.set(1)
    assert blas.get() == 1
    blas.set(before)
    assert blas.get() == before


def test_openblas_is_left_as_it_was():
    blas, seen = of_numpy(), []
    before = blas.get()
    with suppress(KeyError), with_threads(before + 2).instead_of_blas():
        seen.append(blas.get())
        raise KeyError
    assert (seen, blas.get()) == ([1], before)


def test_openblas_has_its_threads_back_when_the_last_has_ended():
    """Two who begin and end in turn"""
    blas, threads = of_numpy(), with_threads(2)
    before = blas.get()
    one, other = threads.instead_of_blas(), threads.instead_of_blas()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert blas.get() == 1
    other.__exit__(None, None, None)
    assert blas.get() == before


class SlowBLAS:
    """It has two threads, and takes its time to say so and to have them back"""

    def __init__(self):
        self.n, self.asked = 2, 0

    def get(self):
        self.asked += 1
        n = self.n
        time.sleep(0.2)
        return n

    def set(self, n):
        if n != 1:
            time.sleep(0.2)
        self.n = n


def test_two_who_begin_at_once_ask_once_how_many_threads_it_had():
    threads, meet = with_threads(2), threading.Barrier(2)
    threads.blas = SlowBLAS()

    def use(_):
        with threads.instead_of_blas():
            meet.wait(timeout=10)

    with_threads(2).map(use, range(2))
    assert (threads.blas.asked, threads.blas.n) == (1, 2)


def test_who_begins_when_the_last_ends_waits_until_openblas_has_its_threads_back():
    threads, ending = with_threads(2), threading.Event()
    threads.blas = SlowBLAS()

    def use(second):
        if second:
            ending.wait(10)
            time.sleep(0.1)
        with threads.instead_of_blas():
            ending.set()
            time.sleep(0.4 * second)

    with_threads(2).map(use, range(2))
    assert threads.blas.n == 2


def test_side_by_side_each_product_keeps_to_a_core(monkeypatch):
    """The last first; what comes back is in order"""
    blas, order, alone = of_numpy(), [], with_threads(1)
    before = blas.get()
    monkeypatch.setattr("numpy_gpt.fast.threads.shared", lambda: alone)
    assert side_by_side(lambda i: (order.append(i), i, blas.get())[1:], range(3)) == [(0, 1), (1, 1), (2, 1)]
    assert order == [2, 1, 0]
    assert blas.get() == before
    assert side_by_side(lambda i: (i, blas.get()), [5]) == [(5, before)]


@pytest.mark.parametrize("start", ["import numpy_gpt", "import torch_gpt", "import parity.__main__"])
def test_openblas_soon_lets_go_of_a_core_that_it_does_not_need(start):
    """So that ours may have it: a product, and then a tenth of a second in which nothing is computed"""
    of_numpy()
    pytest.importorskip("torch" if "torch" in start else "numpy")
    code = (
        f"import time; {start}; import numpy as np; a = np.ones((2000, 2000), np.float32); a @ a; "
        "t = time.process_time(); time.sleep(0.1); print(time.process_time() - t)"
    )
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_THREAD_TIMEOUT"}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, check=True, env=env | {"OPENBLAS_NUM_THREADS": "2"})
    assert float(done.stdout) < 0.02


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system doesn't let a process choose its cores")
def test_without_openblas_there_are_as_many_as_cores_may_be_used(monkeypatch):
    monkeypatch.setattr("numpy_gpt.fast.threads.openblas", lambda: None)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert Threads().n == 1
    finally:
        os.sched_setaffinity(0, before)
    assert Threads().n == len(before)
