"""Windows of a row of tokens: a window is read, and the same window one token further on is what follows."""

from typing import NamedTuple

import numpy as np

from ..noise import below


class Split(NamedTuple):
    """One row of tokens to train on, one to see how well it went"""

    train: np.ndarray
    val: np.ndarray


def split(tokens: np.ndarray) -> Split:
    """The last tenth is for validation"""
    at = int(0.9 * len(tokens))
    return Split(tokens[:at], tokens[at:])


def windows(tokens: np.ndarray, context: int, stride: int | None = None) -> np.ndarray:
    """(n, context + 1) views, `stride` apart or else one after the other: [:, :-1] is read, [:, 1:] is what follows"""
    return np.lib.stride_tricks.sliding_window_view(tokens, context + 1)[:: stride or context]


def random_batch(tokens: np.ndarray, context: int, seed: int, step: int, numbers: np.ndarray):
    """Windows from anywhere -> tokens, targets (B,T): the sequences with these numbers of a step, whoever asks"""
    starts = below(len(tokens) - context, seed, step, numbers)
    return pair(windows(tokens, context, stride=1)[starts])


def batches(tokens: np.ndarray, context: int, B: int, most: int = 0):
    """tokens, targets (B,T): each token follows once; or, where there are more than `most`, so many, evenly spread"""
    whole = windows(tokens, context) if len(tokens) > context else np.empty((0, context + 1), tokens.dtype)
    n = len(whole)
    chosen = np.arange(most * B) * n // (most * B) if 0 < most * B < n else np.arange(n)
    for i in range(0, len(chosen), B):
        yield pair(whole[chosen[i : i + B]])
    if len(chosen) == n and n * context + 1 < len(tokens):  # what is left is shorter
        yield pair(tokens[None, n * context :])


def pair(rows: np.ndarray):
    rows = rows.astype(np.int64)
    return rows[:, :-1], rows[:, 1:]
