"""Speed up the maths; read this code last."""

from . import memory, openblas


def tune() -> None:
    """Set up this process for speed, as the commands do: keep freed memory, and let idle OpenBLAS threads sleep

    Call it once, before other threads compute. It changes settings of the C library and of OpenBLAS for the whole
    process, so `import numpy_gpt` doesn't call it. It does nothing if the C library isn't glibc and NumPy doesn't use
    OpenBLAS. Calling it again has no effect.

    Example:
        >>> import numpy_gpt
        >>> numpy_gpt.fast.tune()
    """
    memory.keep_freed()
    openblas.shorten_idle_time()
