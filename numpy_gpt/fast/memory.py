"""Memory that is freed and soon asked for again is kept."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h


def keep_freed() -> None:
    """In the whole process: glibc gives large blocks back at once, and the next op pays for every page anew"""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError):  # another C library; Windows
        return
    if not mallopt(M_MMAP_THRESHOLD, 1 << 30) and not mallopt(M_MMAP_THRESHOLD, 1 << 25):  # what older ones admit
        return  # alone the next one would keep it where it began, at 128 KB
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_ARENA_MAX, 1)  # other threads have arenas of their own, which keep no block above 64 MB
