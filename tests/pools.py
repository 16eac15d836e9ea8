"""Create thread pools of a given size, run code in a process of its own, and find the OpenBLAS that NumPy uses."""

import subprocess
import sys

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


def output(code):
    """Return stdout and stderr of Python code in a process of its own"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    return done.stdout, done.stderr
