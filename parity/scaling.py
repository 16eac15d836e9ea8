"""What a longer window costs: seconds = a T + b T², where attention alone should have the square."""

import time
from collections.abc import Callable

import numpy as np

from numpy_gpt import loss_and_grads
from numpy_gpt.model import attention_in_tiles, attention_in_tiles_backward
from numpy_gpt.params import Model

from .inputs import random_batch

LENGTHS = (128, 256, 512, 1024)
SETTLE = 0.05


def scaling(m: Model, rounds: int) -> dict:
    """Of a forward and backward of one window, and of its attentions by themselves"""
    whole, alone = ({T: best(make(m, T), rounds) for T in LENGTHS} for make in (step, attentions))
    return {
        "seconds": {str(T): seconds for T, seconds in whole.items()},
        "seconds_of_attention": {str(T): seconds for T, seconds in alone.items()},
        **dict(zip(("a_per_token", "b_per_pair"), fitted(whole), strict=True)),
        "b_of_attention": fitted(alone)[1],
    }


def step(m: Model, T: int) -> Callable[[], object]:
    batch = random_batch(m.config, 1, T)
    return lambda: loss_and_grads(m, *batch)


def attentions(m: Model, T: int) -> Callable[[], object]:
    H, D = m.config.n_head, m.config.n_embd // m.config.n_head
    q, k, v, dy = np.random.default_rng(0).standard_normal((4, 1, T, H, D), np.float32).swapaxes(2, 3)

    def run():
        for _ in range(m.config.n_layer):
            attention_in_tiles_backward(dy, attention_in_tiles(q, k, v)[1])

    return run


def best(run: Callable[[], object], rounds: int) -> float:
    seconds = []
    for _ in range(1 + rounds):
        time.sleep(SETTLE)
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def fitted(seconds: dict[int, float]) -> tuple[float, float]:
    """By least squares of what each is off, as a part of it"""
    T, s = np.array(list(seconds)), np.array(list(seconds.values()))
    (a, b), *_ = np.linalg.lstsq(np.stack([T / s, T**2 / s], 1), np.ones(len(T)), rcond=None)
    return float(a), float(b)


def sentence(found: dict) -> str:
    a, b, alone = (1e6 * found[name] for name in ("a_per_token", "b_per_pair", "b_of_attention"))
    return (
        f"A forward and backward of 1 x T, T from {LENGTHS[0]} to {LENGTHS[-1]}, takes {a:.0f} T + {b:.3f} T² µs; "
        f"its attentions alone have {alone:.3f} T²."
    )
