"""Do threads that share a batch compute what one does, and leave OpenBLAS as it was?"""

import os
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from numpy_gpt import GPTError, adamw, named
from numpy_gpt.options import Settings
from numpy_gpt.params import tree_map
from numpy_gpt.threads import Threads, only, openblas, shared, side_by_side
from numpy_gpt.trainer import Trainer
from parity.inputs import TINY, random_batch, random_model

SETTINGS = Settings(batch_size=6, context=7, lr=1e-2, min_lr=1e-3, warmup=0, clip=0.5)
CONFIG = replace(TINY, dropout=0.2)


def batches(t):
    return [(6 * i, *random_batch(CONFIG, B=6, T=7, seed=2 * t + i)) for i in range(2)]


def trainer(n, dtype=np.float64):
    m = random_model(CONFIG, dtype=dtype)
    made = Trainer(m._replace(params=tree_map(np.copy, m.params)), adamw.moments(m.params), SETTINGS)
    made.threads = with_threads(n)
    made.n = n
    return made


def with_threads(n):
    threads = Threads()
    threads.n = threads.pool._max_workers = n
    return threads


@pytest.mark.parametrize("n", [2, 3, 4])
def test_shared_by_threads_a_step_is_the_same(n):
    """To rounding; four don't share six sequences evenly"""
    alone, together = trainer(1), trainer(n)
    for t in range(1, 4):
        assert np.isclose(alone.step(t, 1e-2, batches(t)), together.step(t, 1e-2, batches(t)), rtol=1e-13)
    x, y = random_batch(CONFIG, B=12, T=7, seed=9)
    assert np.isclose(alone.loss(x, y), together.loss(x, y), rtol=1e-13)
    for (name, a), (_, b) in zip(named(alone.m.params), named(together.m.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11, err_msg=name)


def test_every_thread_has_its_share():
    made = trainer(3)
    x, y = batches(1)[0][1:]
    shares = made.shares(6, x, y)
    assert [(weight, first, len(x), len(y)) for weight, first, x, y in shares] == [
        (1 / 3, first, 2, 2) for first in (6, 8, 10)
    ]
    assert [len(x) for _, _, x, _ in made.shares(0, x[:4], y[:4])] == [1, 1, 2]
    assert [len(x) for _, _, x, _ in made.shares(0, x[:1], y[:1])] == [1]


def test_a_model_that_is_large_for_its_batch_is_not_shared(monkeypatch):
    """The second tree of gradients would cost more than is won"""
    m = random_model(TINY)
    for batch_size, together in ((1, False), (2, True)):
        s = replace(SETTINGS, batch_size=batch_size, context=1)
        monkeypatch.setattr("numpy_gpt.trainer.WORTH", 0.7 * m.config.num_parameters())
        made = Trainer(m, adamw.moments(m.params), s)
        assert made.n == (min(2, Threads().n) if together else 1)


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


def test_two_who_ask_at_once_share_the_same(monkeypatch):
    made, asked = [], threading.Barrier(2)
    only.cache_clear()
    monkeypatch.setattr("numpy_gpt.threads.Threads", lambda: (time.sleep(0.1), made.append(0), object())[2])
    both = with_threads(2).map(lambda _: (asked.wait(timeout=10), shared())[1], range(2))
    only.cache_clear()
    assert both[0] is both[1]
    assert made == [0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_fork_has_threads_of_its_own():
    code = """
import os, signal
from numpy_gpt.threads import shared
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
        monkeypatch.setattr("numpy_gpt.threads.shared", lambda threads=threads: threads)
        params, moments = tree_map(np.copy, m.params), adamw.moments(m.params)
        for t in range(1, 4):
            adamw.step(params, grads, moments, t, 1e-2)
        found.append(b"".join(a.tobytes() for _, a in named(params)))
    assert found[0] == found[1]


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


def test_side_by_side_each_product_keeps_to_a_core(monkeypatch):
    """The last first; what comes back is in order"""
    blas, order, alone = of_numpy(), [], with_threads(1)
    before = blas.get()
    monkeypatch.setattr("numpy_gpt.threads.shared", lambda: alone)
    assert side_by_side(lambda i: (order.append(i), i, blas.get())[1:], range(3)) == [(0, 1), (1, 1), (2, 1)]
    assert order == [2, 1, 0]
    assert blas.get() == before
    assert side_by_side(lambda i: (i, blas.get()), [5]) == [(5, before)]


def test_what_nobody_helped_with_is_not_kept(monkeypatch):
    """Inside of shared work every thread is busy, and calls for help wait: what both take at a time is all there is"""

    def work(_):
        for _ in range(4):
            side_by_side(lambda i: np.zeros(10**6), range(3))
            seen.append(tracemalloc.get_traced_memory()[0])

    threads, seen = with_threads(2), []
    monkeypatch.setattr("numpy_gpt.threads.shared", lambda: threads)
    tracemalloc.start()
    with threads.instead_of_blas():
        threads.map(work, range(2))
    tracemalloc.stop()
    assert max(seen) < 2 * 3 * 8e6


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


def test_numpys_openblas_is_found():
    blas = of_numpy()
    before = blas.get()
    blas.set(before + 1)
    assert blas.get() == before + 1
    blas.set(before)


def of_numpy():
    found = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    if "openblas" not in found:
        pytest.skip(f"NumPy stands on {found}")
    return openblas()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system doesn't let a process choose its cores")
def test_without_openblas_there_are_as_many_as_cores_may_be_used(monkeypatch):
    monkeypatch.setattr("numpy_gpt.threads.openblas", lambda: None)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert Threads().n == 1
    finally:
        os.sched_setaffinity(0, before)
    assert Threads().n == len(before)
