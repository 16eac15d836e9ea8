"""Create thread pools of a given size, and find the OpenBLAS that NumPy uses."""

import pytest

from numpy_gpt.fast.openblas import openblas
from numpy_gpt.fast.threads import Threads


def with_threads(n):
    """Return a new pool of n threads"""
    threads = Threads()
    threads.n = n
    return threads


def numpys_openblas():
    """Return OpenBLAS's functions, or skip the test"""
    return openblas() or pytest.skip("NumPy doesn't use an OpenBLAS whose functions can be called")
