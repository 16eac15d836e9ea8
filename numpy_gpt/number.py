"""Which objects count as a whole or a real number: Python's, NumPy's and PyTorch's, but no booleans."""

import operator
from numbers import Real
from typing import Any


def is_index(x: Any) -> bool:
    try:
        return operator.index(x) == x and not isinstance(x, bool)
    except (TypeError, ValueError, RuntimeError):  # PyTorch raises any of the three
        return False


def is_real(x: Any) -> bool:
    try:
        return isinstance(x, Real) and not isinstance(x, bool) and float(x) == x
    except OverflowError:  # 10**400
        return False
