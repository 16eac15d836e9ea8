"""Do the threads of a pool complete their work, report errors and exit?"""

import gc
import os
import signal
import threading
import time
import tracemalloc
import weakref
from contextlib import suppress

import numpy as np
import pytest
from pools import numpys_openblas, output, with_threads

from numpy_gpt import GPTError, adamw, named
from numpy_gpt.fast.threads import Threads, pool, shared, side_by_side
from numpy_gpt.params import tree_map
from parity.inputs import TINY, random_model


def test_map_runs_items_in_parallel():
    meet = threading.Barrier(3)
    assert with_threads(3).map(lambda k: (meet.wait(timeout=10), k)[1], iter([0, 1, 2])) == [0, 1, 2]


def test_thread_takes_next_item_when_done():
    """Let one thread wait in its first item until the other has done all the rest"""
    rest = threading.Semaphore(0)
    done = with_threads(2).map(
        lambda k: [rest.acquire(timeout=10) for _ in range(9)] if k == 0 else rest.release(), range(10)
    )
    assert done == [[True] * 9] + [None] * 9


@pytest.mark.parametrize("wrong", [0, 1, 99])
def test_error_in_any_thread_is_raised_by_map(wrong):
    def f(k):
        if k == wrong:
            raise GPTError("no")

    with pytest.raises(GPTError, match="no"):
        with_threads(2).map(f, range(100))


def test_after_an_error_no_item_is_started_and_running_items_finish():
    meet, started, ended = threading.Barrier(3), [], []

    def f(k):
        started.append(k)
        meet.wait(timeout=10)
        if k == 2:
            raise GPTError("no")
        time.sleep(0.2)
        ended.append(k)

    with pytest.raises(GPTError, match="no"):
        with_threads(3).map(f, range(100))
    assert sorted(started) == [0, 1, 2]
    assert sorted(ended) == [0, 1]


def test_nested_maps_complete():
    threads = with_threads(2)
    assert threads.map(lambda k: sum(threads.map(lambda i: i, range(k))), range(50)) == [
        k * (k - 1) // 2 for k in range(50)
    ]


def test_caller_does_all_items_if_no_thread_can_be_started(monkeypatch):
    def start(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    threads = with_threads(3)
    assert threads.map(str, range(5)) == list("01234")
    assert threads.jobs.empty()


def test_map_works_after_the_main_thread_has_ended():
    code = """
import threading, time
from numpy_gpt.fast.threads import Threads
threads = Threads()
threads.n = 3
threading.Thread(target=lambda: (time.sleep(0.3), print(*threads.map(str, range(5)), flush=True))).start()
"""
    assert output(code) == ("0 1 2 3 4\n", "")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no timers that interrupt")
def test_map_works_after_thousands_of_interrupts_at_random_moments():
    code = """
import faulthandler, random, signal
from contextlib import nullcontext
from numpy_gpt.fast.threads import Threads
signal.signal(signal.SIGALRM, signal.default_int_handler)
faulthandler.dump_traceback_later(30, exit=True)
threads = Threads()
threads.n, interrupts = 3, 0
while interrupts < 3000:
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 1e-3))
        while True:
            with threads.single_threaded_blas() if threads.blas else nullcontext():
                threads.map(str, range(5))
    except KeyboardInterrupt:
        interrupts += 1
print(*threads.map(str, range(5)), threads.blas_users)
"""
    assert output(code) == ("0 1 2 3 4 0\n", "")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no timers that interrupt")
def test_exit_waits_for_items_that_an_interrupt_left_running():
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
        done.append("worker done")
signal.setitimer(signal.ITIMER_REAL, 0.2)
try:
    shared().map(f, range(2))
except KeyboardInterrupt:
    done.append("interrupted")
"""
    assert output(code) == ("['interrupted', 'worker done']\n", "")


def test_objects_of_a_failed_item_are_freed_without_garbage_collection():
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


def test_two_threads_that_call_shared_at_once_get_the_same_pool(monkeypatch):
    created, calling = [], threading.Barrier(2)

    class Slow(Threads):
        def __init__(self):
            time.sleep(0.1)
            created.append(self)
            super().__init__()

    callers = with_threads(2)
    monkeypatch.setattr("numpy_gpt.fast.threads.Threads", Slow)
    pool.cache_clear()
    try:
        both = callers.map(lambda _: (calling.wait(timeout=10), shared())[1], range(2))
    finally:
        pool.cache_clear()
    assert both == created * 2
    assert len(created) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_forked_child_gets_a_pool_of_its_own():
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
    assert output(code) == ("7\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_child_forked_while_a_pool_is_created_gets_a_pool_of_its_own():
    code = """
import os, signal, threading, time
from numpy_gpt.fast import threads
created, inside = threads.Threads, threading.Event()
class Slow(created):
    def __init__(self):
        inside.set()
        time.sleep(1)
        super().__init__()
threads.Threads = Slow
threading.Thread(target=threads.shared).start()
inside.wait(10)
if os.fork() == 0:
    signal.alarm(10)
    threads.Threads = created
    threads.shared()
    os._exit(7)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    assert output(code) == ("7\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_child_forked_during_shared_work_has_all_threads_of_openblas():
    if numpys_openblas().get_num_threads() < 2:
        pytest.skip("OpenBLAS uses one thread here")
    code = """
import os, threading
from numpy_gpt.fast.openblas import openblas
from numpy_gpt.fast.threads import shared
before, inside, end = openblas().get_num_threads(), threading.Event(), threading.Event()
def other():
    with shared().single_threaded_blas():
        inside.set()
        end.wait(10)
threading.Thread(target=other).start()
inside.wait(10)
if os.fork() == 0:
    os._exit(7 if shared().n == openblas().get_num_threads() == before else 1)
print(os.waitstatus_to_exitcode(os.wait()[1]))
end.set()
"""
    assert output(code) == ("7\n", "")


def test_workers_use_the_errstate_of_the_caller():
    meet = threading.Barrier(2)

    def f(k):
        meet.wait(timeout=10)
        return np.float32(1e30) * np.float32(1e30)

    with np.errstate(over="ignore"):
        assert np.isinf(with_threads(2).map(f, range(2))).all()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_adamw_step_is_bit_identical_on_any_number_of_threads(n, monkeypatch):
    m = random_model(TINY, dtype=np.float32)
    grads = tree_map(np.sin, m.params)
    monkeypatch.setattr(adamw, "ELEMENTS", 100)
    found = []
    for threads in (with_threads(1), with_threads(n)):
        monkeypatch.setattr("numpy_gpt.fast.threads.shared", lambda threads=threads: threads)
        params, moments = tree_map(np.copy, m.params), adamw.moments(m.params)
        for t in range(1, 4):
            adamw.step(params, grads, moments, t, 1e-2)
        found.append(b"".join(a.tobytes() for _, a in named(params)))
    assert found[0] == found[1]


def test_cancelled_jobs_keep_no_results(monkeypatch):
    # In nested maps every thread is busy, so jobs stay in the queue: only running items may hold memory

    def work(_):
        for _ in range(4):
            side_by_side(lambda i: np.zeros(10**6), range(3))
            seen.append(tracemalloc.get_traced_memory()[0])

    threads, seen = with_threads(2), []
    monkeypatch.setattr("numpy_gpt.fast.threads.shared", lambda: threads)
    tracemalloc.start()
    with threads.single_threaded_blas():
        threads.map(work, range(2))
    tracemalloc.stop()
    assert max(seen) < 2 * 3 * 8e6
