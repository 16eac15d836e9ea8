"""Choose the number of OpenBLAS's threads for a server."""

import os

from ...fast.openblas import openblas
from ...params import Model

SETTING = "OPENBLAS_NUM_THREADS"
SMALL = 16_000_000  # parameters: a step takes about 12 ms on one thread


def limit_threads(m: Model) -> None:
    """Limit OpenBLAS to one thread in this process if the model is small and OPENBLAS_NUM_THREADS isn't set

    Two threads share a matmul, and each waits for the other. If another program or the server's own connections take a
    core, the wait is a time slice of the system, up to 70 ms. For a large model this is rare compared with the time of
    a step, and two threads are 1.5 times as fast. A step of the storyteller takes 3 ms on two idle cores with two
    threads, and 4 ms with one. While other programs run, 50 streams get 57 to 1,105 tokens/s with two threads, and 429
    to 1,162 with one: `parity bench --serve` with and without OPENBLAS_NUM_THREADS.
    """
    blas = openblas()
    if blas and SETTING not in os.environ and m.config.num_parameters() <= SMALL:
        blas.set_num_threads(1)
