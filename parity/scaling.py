"""What a longer window costs: attention alone should grow with its square, and all else in a line."""

import time
from functools import partial

import numpy as np

from numpy_gpt import loss_and_grads, model
from numpy_gpt.params import Model

from .inputs import random_batch
from .workloads import SETTLE

LENGTHS = (128, 256, 384, 512, 768, 1024)


def scaling(m: Model, rounds: int) -> dict:
    """Of a forward and backward of one window: seconds by its length, and those of them that attention takes"""
    best = {T: min(clocked(m, T) for _ in range(rounds)) for T in LENGTHS}  # the least disturbed
    attention, rest = ([seconds[i] for seconds in best.values()] for i in (1, 2))
    return {"lengths": LENGTHS, "attention": attention, "rest": rest} | {
        "attention_per_pair": fitted(attention)[2],
        "rest_per_token": fitted(rest)[1],
        "rest_per_pair": fitted(rest)[2],
    }


def clocked(m: Model, T: int) -> tuple[float, float, float]:
    """-> seconds in all, in attention, in the rest"""
    batch, inside = random_batch(m.config, 1, T), [0.0]
    names = ("attention", "attention_backward")
    originals = {name: getattr(model, name) for name in names}
    time.sleep(SETTLE)
    try:
        for name, f in originals.items():
            setattr(model, name, partial(clock, f, inside))
        started = time.perf_counter()
        loss_and_grads(m, *batch)
        whole = time.perf_counter() - started
    finally:
        for name, f in originals.items():
            setattr(model, name, f)
    return whole, inside[0], whole - inside[0]


def clock(f, inside, *args):
    started = time.perf_counter()
    returned = f(*args)
    inside[0] += time.perf_counter() - started
    return returned


def fitted(seconds: list[float]) -> list[float]:
    """c, b and a of c + b T + a T², by least squares of what each is off as a part of it"""
    T, s = np.array(LENGTHS), np.array(seconds)
    return np.linalg.lstsq(np.stack([1 / s, T / s, T**2 / s], 1), np.ones(len(T)), rcond=None)[0].tolist()


def sentence(found: dict) -> str:
    square, token, more = (1e6 * found[name] for name in ("attention_per_pair", "rest_per_token", "rest_per_pair"))
    longest = found["lengths"][-1]
    return (
        f"Forward and backward of 1 x T up to {longest}: attention takes {square:.2f} T² µs (at {longest} all of it is "
        f"{found['attention'][-1] * 1e3:.0f} ms), the rest {token:.0f} T µs and {more:.2f} T²."
    )
