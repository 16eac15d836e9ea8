"""How well a model tells a text: the loss over all of it, and what that is for a byte."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..text.tokenizer import Tokenizer


def measure(loss: Callable[[Any, Any], float], batches: Iterable[tuple[Any, Any]], nbytes: np.ndarray) -> dict:
    """loss(tokens, targets) is a batch's mean; a token stands for nbytes[token]"""
    nats, count, size = 0.0, 0, 0
    for x, y in batches:
        nats += loss(x, y) * y.size
        count += y.size
        size += int(nbytes[y].sum())
    mean, bits = nats / count, nats / math.log(2) / size if size else None
    return {"loss": mean, "perplexity": math.exp(min(mean, 700.0)), "bits_per_byte": bits, "tokens": count}


def lengths(tokenizer: Tokenizer, n_vocab: int) -> np.ndarray:
    """The bytes of each token; <|endoftext|> has none, and what a vocabulary is padded with neither"""
    found = np.zeros(n_vocab, int)
    for i in range(tokenizer.n_vocab):
        found[i] = 0 if i == tokenizer.eot else len(tokenizer.token(i))
    return found


def told(perplexity: float, bits_per_byte: float | None) -> str:
    bits = "" if bits_per_byte is None else f"  bits/byte {short(bits_per_byte, 3)}"
    return f"perplexity {short(perplexity, 2)}{bits}"


def short(x: float, places: int) -> str:
    """Format a figure; from a million on, as in a run that diverges, with an exponent"""
    return f"{x:.{places}f}" if x < 1e6 else f"{x:.3g}"
