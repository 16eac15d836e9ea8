"""Check for whole and real numbers of Python, NumPy and PyTorch; booleans don't count as numbers."""

import operator
from numbers import Real
from typing import Any


def is_index(x: Any) -> bool:
    """Return whether x is a whole number of an integer type"""
    try:
        return operator.index(x) == x and not isinstance(x, bool)
    except (TypeError, ValueError, RuntimeError):  # PyTorch raises any of the three
        return False


def is_real(x: Any) -> bool:
    """Return whether x is a real number and equal to a float; inf is, NaN isn't"""
    try:
        return isinstance(x, Real) and not isinstance(x, bool) and float(x) == x
    except OverflowError:  # 10**400
        return False
