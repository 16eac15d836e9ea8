"""Threads, as many as a test wants, and the OpenBLAS that NumPy stands on"""

import pytest

from numpy_gpt.fast.threads import Threads, openblas


def with_threads(n):
    threads = Threads()
    threads.n = n
    return threads


def of_numpy():
    return openblas() or pytest.skip("NumPy stands on no OpenBLAS that can be asked")
