"""Control the OpenBLAS library that NumPy computes matmuls with.

NumPy has no interface to it, so its functions are looked up by name in the loaded library.
"""

import ctypes
import os
from collections.abc import Callable
from functools import cache
from importlib import import_module
from itertools import product
from typing import Any, NamedTuple

TIMEOUT = "OPENBLAS_THREAD_TIMEOUT"  # log2 of the clock cycles that an idle thread spins before it sleeps
SHORT = 20  # 2^20 cycles are longer than the pauses between two matmuls of decoding


class OpenBLAS(NamedTuple):
    """Hold functions of the library"""

    get_num_threads: Callable[[], int]
    set_num_threads: Callable[[int], Any]
    core_name: Callable[[], bytes]  # the CPU that its kernels were written for


def openblas() -> OpenBLAS | None:
    """Return OpenBLAS's functions, or None if NumPy uses another library"""
    for prefix, suffix in product(("scipy_", ""), ("64_", "")):
        names = [f"{prefix}openblas_{name}{suffix}" for name in ("get_num_threads", "set_num_threads", "get_corename")]
        if all(hasattr(library(), name) for name in names):
            found = OpenBLAS(*(getattr(library(), name) for name in names))
            found.core_name.restype = ctypes.c_char_p  # type: ignore[attr-defined]
            return found
    return None


@cache
def library() -> ctypes.CDLL:
    """Return a handle that finds functions in NumPy's extension module and in the libraries it is linked to"""
    return ctypes.CDLL(import_module("numpy._core._multiarray_umath").__file__)


def shorten_idle_time() -> None:
    """Make idle OpenBLAS threads sleep after 2^20 clock cycles instead of 2^28, about a tenth of a second

    Before it sleeps, an idle thread spins and slows down the threads of this package. OpenBLAS reads the setting from
    the environment when it is loaded, so this function makes it read the environment again and restart its threads. It
    does nothing if OPENBLAS_THREAD_TIMEOUT is set, or if the library has no functions for this.
    """
    needed = ("openblas_read_env", "openblas_thread_timeout", "blas_thread_shutdown_")
    if TIMEOUT in os.environ or not all(hasattr(library(), name) for name in needed):
        return
    if library().openblas_thread_timeout() == SHORT:
        return
    os.environ[TIMEOUT] = str(SHORT)
    try:
        library().openblas_read_env()
    finally:
        del os.environ[TIMEOUT]
    library().blas_thread_shutdown_()  # the next matmul starts them again
