"""Measure the loss on a text: per token, as perplexity, and in bits per byte."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..text.tokenizer import Tokenizer


def measure(loss: Callable[[Any, Any], float], batches: Iterable[tuple[Any, Any]], nbytes: np.ndarray) -> dict:
    """Return the measures of all batches: loss(tokens, targets) is a batch's mean, token i has nbytes[i] bytes"""
    nats, count, size = 0.0, 0, 0
    for x, y in batches:
        nats += loss(x, y) * y.size
        count += y.size
        size += int(nbytes[y].sum())
    mean, bits = nats / count, nats / math.log(2) / size if size else None
    return {"loss": mean, "perplexity": exp(mean), "bits_per_byte": bits, "tokens": count}


def exp(x: float) -> float:
    """e ** x, or e ** 700 if that would overflow"""
    return math.exp(min(x, 700.0))


def token_lengths(tokenizer: Tokenizer, n_vocab: int) -> np.ndarray:
    """Return each token's number of bytes: 0 for <|endoftext|> and for the padding of a vocabulary"""
    nbytes = np.zeros(n_vocab, int)
    for i in range(tokenizer.n_vocab):
        nbytes[i] = 0 if i == tokenizer.eot else len(tokenizer.token(i))
    return nbytes


def format_measures(perplexity: float, bits_per_byte: float | None) -> str:
    bits = "" if bits_per_byte is None else f"  bits/byte {format_number(bits_per_byte, 3)}"
    return f"perplexity {format_number(perplexity, 2)}{bits}"


def format_number(x: float, places: int) -> str:
    """Return a number with this number of decimal places, or with an exponent if it is a million or more"""
    return f"{x:.{places}f}" if x < 1e6 else f"{x:.3g}"
