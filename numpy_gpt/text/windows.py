"""Cut a row of tokens into windows: the targets of a window are the same window shifted by one token."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..noise import below


class Split(NamedTuple):
    """Hold the tokens to train on, and the tokens to validate with"""

    train: np.ndarray
    val: np.ndarray


def split(tokens: np.ndarray) -> Split:
    """Split off the last tenth of the tokens for validation"""
    at = int(0.9 * len(tokens))
    return Split(tokens[:at], tokens[at:])


def windows(tokens: np.ndarray, context: int, stride: int | None = None) -> np.ndarray:
    """Return views (n, context + 1) that begin every `stride` tokens (default: context); [:, 1:] are the targets"""
    return np.lib.stride_tricks.sliding_window_view(tokens, context + 1)[:: stride or context]


def random_batch(
    tokens: np.ndarray, context: int, seed: int, step: int, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens and targets (B,T) of random windows, which depend only on seed, step and number in the step"""
    starts = below(len(tokens) - context, seed, step, numbers)
    return pair(windows(tokens, context, stride=1)[starts])


def batches(tokens: np.ndarray, context: int, B: int, limit: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield tokens and targets (B,T), in which each token is a target once

    If there are more than `limit` batches, yield that many, of windows that are evenly spread; 0 is no limit.
    """
    whole = windows(tokens, context) if len(tokens) > context else np.empty((0, context + 1), tokens.dtype)
    n = len(whole)
    chosen = np.arange(limit * B) * n // (limit * B) if 0 < limit * B < n else np.arange(n)
    for i in range(0, len(chosen), B):
        yield pair(whole[chosen[i : i + B]])
    if len(chosen) == n and n * context + 1 < len(tokens):  # the rest is shorter than a window
        yield pair(tokens[None, n * context :])


def pair(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens and the targets of windows"""
    rows = rows.astype(np.int64)
    return rows[:, :-1], rows[:, 1:]
