"""Set options of the C library's memory allocator."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # from glibc's malloc.h


def keep_freed() -> None:
    """Make glibc keep freed memory for the next allocation, in the whole process

    By default glibc returns large blocks to the system when they are freed. Each new array then causes a page fault for
    every page. Another C library is left unchanged.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError):  # another C library; Windows
        return
    if not mallopt(M_MMAP_THRESHOLD, 1 << 30) and not mallopt(M_MMAP_THRESHOLD, 1 << 25):  # the most in older versions
        return  # setting only M_TRIM_THRESHOLD would fix the mmap threshold at its initial 128 KB
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_ARENA_MAX, 1)  # the arenas of other threads keep no block above 64 MB
