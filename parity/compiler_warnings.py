"""Ignore the warnings that torch.compile raises, in the tests that compile."""

import pytest

IGNORED = [
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores"),  # the compiler suggests them
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # raised inside the compiler
]


def compiles(test):
    """Return a test with the marks"""
    for mark in IGNORED:
        test = mark(test)
    return test
