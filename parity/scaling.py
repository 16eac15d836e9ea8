"""Measure the cost of a longer window: attention should grow with the square of its length, the rest linearly."""

from functools import partial
from time import perf_counter, sleep
from typing import Any, NamedTuple

import numpy as np

from numpy_gpt import loss_and_grads, model
from numpy_gpt.params import Model

from .inputs import random_batch
from .workloads import PAUSE

LENGTHS = (128, 256, 384, 512, 768, 1024)


class Seconds(NamedTuple):
    total: float
    attention: float

    @property
    def rest(self) -> float:
        return self.total - self.attention


def scaling(m: Model, rounds: int) -> dict[str, Any]:
    """Measure forward and backward of one window of each length, and fit a parabola to attention and to the rest"""
    fastest = [min(time_window(m, T) for _ in range(rounds)) for T in LENGTHS]  # the least disturbed round
    attention = [seconds.attention for seconds in fastest]
    rest = [seconds.rest for seconds in fastest]
    return {
        "lengths": LENGTHS,
        "attention": attention,
        "rest": rest,
        "attention_per_pair": fit(attention)[2],
        "rest_per_token": fit(rest)[1],
        "rest_per_pair": fit(rest)[2],
    }


def time_window(m: Model, T: int) -> Seconds:
    """Time one forward and backward of T tokens, with a clock around both functions of attention"""
    batch, in_attention = random_batch(m.config, 1, T), [0.0]
    names = ("attention", "attention_backward")
    originals = {name: getattr(model, name) for name in names}
    sleep(PAUSE)
    try:
        for name, f in originals.items():
            setattr(model, name, partial(timed, f, in_attention))
        started = perf_counter()
        loss_and_grads(m, *batch)
        total = perf_counter() - started
    finally:
        for name, f in originals.items():
            setattr(model, name, f)
    return Seconds(total, in_attention[0])


def timed(f, seconds, *args):
    """Call f and add its time to seconds[0]"""
    started = perf_counter()
    returned = f(*args)
    seconds[0] += perf_counter() - started
    return returned


def fit(seconds: list[float]) -> list[float]:
    """Return c, b and a of c + b T + a T², by least squares of the relative errors"""
    T, s = np.array(LENGTHS), np.array(seconds)
    return np.linalg.lstsq(np.stack([1 / s, T / s, T**2 / s], 1), np.ones(len(T)), rcond=None)[0].tolist()


def sentence(found: dict[str, Any]) -> str:
    """Return the fitted costs in words, for the last lines of the table"""
    square, token, more = (1e6 * found[name] for name in ("attention_per_pair", "rest_per_token", "rest_per_pair"))
    longest = found["lengths"][-1]
    return (
        f"Forward and backward of T tokens, T up to {longest}: attention takes {square:.2f} T² µs "
        f"({found['attention'][-1] * 1e3:.0f} ms at T = {longest}), everything else {token:.0f} T + {more:.2f} T² µs."
    )
