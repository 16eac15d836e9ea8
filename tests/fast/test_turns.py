"""Do threads that call the library at the same time compute in turns, with the results that they get alone?"""

import os
import threading
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from pools import output, with_threads

from numpy_gpt import GPTError, complete, complete_batch, forward, loss_and_grads, named
from numpy_gpt.fast.turns import in_turns, one_at_a_time, waiting
from parity.inputs import TINY, random_model


def in_threads(f, n):
    """Return [f(0), ..., f(n - 1)], each called in a thread of its own"""
    found = [None] * n

    def call(k):
        found[k] = f(k)

    started = [threading.Thread(target=call, args=(k,)) for k in range(n)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join(timeout=60)
    return found


def test_one_at_a_time_admits_one_thread_and_its_workers():
    inside, both_workers = [], threading.Barrier(2)

    def work(_):
        both_workers.wait(timeout=10)
        with one_at_a_time():
            return len(inside)

    def compute(_):
        with one_at_a_time():
            inside.append(None)
            counts = with_threads(2).map(work, range(2))
            inside.pop()
            return counts

    assert in_threads(compute, 5) == [[1, 1]] * 5


def test_error_in_one_at_a_time_admits_the_next_thread():
    with suppress(GPTError), one_at_a_time():
        raise GPTError("no")

    def compute(_):
        with one_at_a_time():
            return True

    assert in_threads(compute, 1) == [True]


def test_in_turns_lets_a_waiting_thread_go_first_after_each_slice(monkeypatch):
    monkeypatch.setattr("numpy_gpt.fast.turns.SLICE", 0)
    monkeypatch.setattr("numpy_gpt.fast.turns.HANDOVER", 0.05)
    started, order = threading.Event(), []

    def items(name):
        for i in range(3):
            if name == 0:
                started.set()
                while i == 0 and not waiting:
                    time.sleep(0.001)
            order.append(name)
            yield i

    def compute(name):
        if name == 1:
            started.wait(timeout=10)
        return in_turns(items(name))

    assert in_threads(compute, 2) == [[0, 1, 2]] * 2
    assert order[:2] == [0, 1]


def test_library_calls_in_several_threads_return_the_same_bits_as_alone():
    m = random_model(replace(TINY, n_ctx=256))
    rows = np.arange(200)[None] % TINY.n_vocab  # several tiles of queries, which limit OpenBLAS to one thread

    def call(k):
        if k % 3 == 0:
            return forward(m, np.roll(rows, k)).tobytes()
        if k % 3 == 1:
            loss, grads = loss_and_grads(m, rows, rows)
            return loss, [g.tobytes() for _, g in named(grads)]
        return complete(m, [k], 30, seed=k), complete_batch(m, [[k], [1, k]], 9)

    assert in_threads(call, 12) == [call(k) for k in range(12)]


def test_thread_whose_wait_is_interrupted_no_longer_waits(monkeypatch):
    class Interrupted:
        def __enter__(self):
            assert waiting
            raise KeyboardInterrupt

        def __exit__(self, *error):
            raise AssertionError

    monkeypatch.setattr("numpy_gpt.fast.turns.computing", Interrupted())
    with pytest.raises(KeyboardInterrupt), one_at_a_time():
        raise AssertionError
    assert not waiting


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_child_forked_while_a_thread_computes_can_compute():
    code = """
import os, signal, threading
from numpy_gpt.fast.turns import one_at_a_time, waiting
inside, end = threading.Event(), threading.Event()
def other():
    with one_at_a_time():
        inside.set()
        end.wait(10)
threading.Thread(target=other).start()
inside.wait(10)
threading.Thread(target=other).start()
while not waiting:
    pass
if os.fork() == 0:
    signal.alarm(5)
    with one_at_a_time():
        os._exit(8 if waiting else 7)
print(os.waitstatus_to_exitcode(os.wait()[1]))
end.set()
"""
    assert output(code) == ("7\n", "")
