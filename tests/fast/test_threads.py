"""Do threads that share work do all of it, say what went wrong, and end?"""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from contextlib import suppress

import numpy as np
import pytest
from pools import of_numpy, with_threads

from numpy_gpt import GPTError, adamw, named
from numpy_gpt.fast.threads import Threads, only, shared, side_by_side
from numpy_gpt.params import tree_map
from parity.inputs import TINY, random_model


def test_they_run_at_the_same_time():
    meet = threading.Barrier(3)
    assert with_threads(3).map(lambda k: (meet.wait(timeout=10), k)[1], iter([0, 1, 2])) == [0, 1, 2]


def test_each_takes_the_next_when_it_is_done():
    """One waits until the other has done all the rest"""
    rest = threading.Semaphore(0)
    done = with_threads(2).map(
        lambda k: [rest.acquire(timeout=10) for _ in range(9)] if k == 0 else rest.release(), range(10)
    )
    assert done == [[True] * 9] + [None] * 9


@pytest.mark.parametrize("wrong", [0, 1, 99])
def test_what_goes_wrong_in_one_of_them_is_said_here(wrong):
    def f(k):
        if k == wrong:
            raise GPTError("no")

    with pytest.raises(GPTError, match="no"):
        with_threads(2).map(f, range(100))


def test_after_a_mistake_nobody_goes_on_and_all_have_ended():
    meet, begun, ended = threading.Barrier(3), [], []

    def f(k):
        begun.append(k)
        meet.wait(timeout=10)
        if k == 2:
            raise GPTError("no")
        time.sleep(0.2)
        ended.append(k)

    with pytest.raises(GPTError, match="no"):
        with_threads(3).map(f, range(100))
    assert sorted(begun) == [0, 1, 2]
    assert sorted(ended) == [0, 1]


def test_they_may_share_work_among_themselves():
    threads = with_threads(2)
    assert threads.map(lambda k: sum(threads.map(lambda i: i, range(k))), range(50)) == [
        k * (k - 1) // 2 for k in range(50)
    ]


def test_where_no_thread_can_be_started_there_is_no_help(monkeypatch):
    def start(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    threads = with_threads(3)
    assert threads.map(str, range(5)) == list("01234")
    assert threads.calls.empty()


def test_they_work_when_the_main_thread_has_ended():
    code = """
import threading, time
from numpy_gpt.fast.threads import Threads
threads = Threads()
threads.n = 3
threading.Thread(target=lambda: (time.sleep(0.3), print(*threads.map(str, range(5)), flush=True))).start()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("0 1 2 3 4\n", "")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no timers that interrupt")
def test_an_interrupt_at_any_moment_does_no_harm():
    code = """
import faulthandler, random, signal
from contextlib import nullcontext
from numpy_gpt.fast.threads import Threads
signal.signal(signal.SIGALRM, signal.default_int_handler)
faulthandler.dump_traceback_later(30, exit=True)
threads = Threads()
threads.n, came = 3, 0
while came < 3000:
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 1e-3))
        while True:
            with threads.instead_of_blas() if threads.blas else nullcontext():
                threads.map(str, range(5))
    except KeyboardInterrupt:
        came += 1
print(*threads.map(str, range(5)), threads.instead)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("0 1 2 3 4 0\n", "")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no timers that interrupt")
def test_the_process_ends_when_its_threads_are_done():
    """Also with what an interrupt has left to them"""
    code = """
import atexit, signal, threading, time
done = []
atexit.register(lambda: print(done))
from numpy_gpt.fast.threads import shared
signal.signal(signal.SIGALRM, signal.default_int_handler)
shared().n, both = 2, threading.Barrier(2)
def f(k):
    both.wait(10)
    if threading.current_thread() is not threading.main_thread():
        time.sleep(0.6)
        done.append("helped")
signal.setitimer(signal.ITIMER_REAL, 0.2)
try:
    shared().map(f, range(2))
except KeyboardInterrupt:
    done.append("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("['interrupted', 'helped']\n", "")


def test_what_went_wrong_is_not_kept():
    class Large:
        pass

    def f(k):
        both.wait(timeout=10)
        if threading.current_thread() is not threading.main_thread():
            large = Large()
            seen.append(weakref.ref(large))
            raise GPTError("no")

    both, seen = threading.Barrier(2), []
    gc.disable()
    try:
        with suppress(GPTError):
            with_threads(2).map(f, range(2))
        assert seen[0]() is None
    finally:
        gc.enable()


def test_two_who_ask_at_once_share_the_same(monkeypatch):
    made, asked = [], threading.Barrier(2)

    class Slow(Threads):
        def __init__(self):
            time.sleep(0.1)
            made.append(self)
            super().__init__()

    helped = with_threads(2)
    monkeypatch.setattr("numpy_gpt.fast.threads.Threads", Slow)
    only.cache_clear()
    try:
        both = helped.map(lambda _: (asked.wait(timeout=10), shared())[1], range(2))
    finally:
        only.cache_clear()
    assert both == made * 2
    assert len(made) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_fork_has_threads_of_its_own():
    code = """
import os, signal
from numpy_gpt.fast.threads import shared
shared().n = 2
shared().map(str, range(9))
if os.fork() == 0:
    signal.alarm(10)
    shared().n = 2
    shared().map(str, range(9))
    os._exit(7)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("7\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_fork_in_the_midst_of_shared_work_has_all_of_openblas():
    if of_numpy().get() < 2:
        pytest.skip("OpenBLAS uses one thread here")
    code = """
import os, threading
from numpy_gpt.fast.threads import openblas, shared
before, inside, end = openblas().get(), threading.Event(), threading.Event()
def other():
    with shared().instead_of_blas():
        inside.set()
        end.wait(10)
threading.Thread(target=other).start()
inside.wait(10)
if os.fork() == 0:
    os._exit(7 if shared().n == openblas().get() == before else 1)
print(os.waitstatus_to_exitcode(os.wait()[1]))
end.set()
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("7\n", "")


def test_they_warn_of_what_the_caller_is_warned_of():
    meet = threading.Barrier(2)

    def f(k):
        meet.wait(timeout=10)
        return np.float32(1e30) * np.float32(1e30)

    with np.errstate(over="ignore"):
        assert np.isinf(with_threads(2).map(f, range(2))).all()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_adamw_computes_the_same_bits_on_any_number_of_threads(n, monkeypatch):
    m = random_model(TINY, dtype=np.float32)
    grads = tree_map(np.sin, m.params)
    monkeypatch.setattr(adamw, "TILE", 100)
    found = []
    for threads in (with_threads(1), with_threads(n)):
        monkeypatch.setattr("numpy_gpt.fast.threads.shared", lambda threads=threads: threads)
        params, moments = tree_map(np.copy, m.params), adamw.moments(m.params)
        for t in range(1, 4):
            adamw.step(params, grads, moments, t, 1e-2)
        found.append(b"".join(a.tobytes() for _, a in named(params)))
    assert found[0] == found[1]


def test_what_nobody_helped_with_is_not_kept(monkeypatch):
    """Inside of shared work every thread is busy, and calls for help wait: what both take at a time is all there is"""

    def work(_):
        for _ in range(4):
            side_by_side(lambda i: np.zeros(10**6), range(3))
            seen.append(tracemalloc.get_traced_memory()[0])

    threads, seen = with_threads(2), []
    monkeypatch.setattr("numpy_gpt.fast.threads.shared", lambda: threads)
    tracemalloc.start()
    with threads.instead_of_blas():
        threads.map(work, range(2))
    tracemalloc.stop()
    assert max(seen) < 2 * 3 * 8e6
