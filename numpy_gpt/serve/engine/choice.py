"""Choose the next token from logits after logit_bias and penalties, as OpenAI defines them."""

from collections import Counter

import numpy as np

from ...generate.sampling import sample
from .sequence import Sequence


def choose(logits: np.ndarray, sequence: Sequence, drawn: Counter[int], step: int) -> int:
    """Draw a token: logits (V,), the number of times that each id was drawn before, the step -> a token id"""
    _, temperature, top_k, top_p, seed, number = sequence.options
    return sample(adjusted(logits, sequence, drawn), temperature, top_k, top_p, seed, number, step)


def adjusted(logits: np.ndarray, sequence: Sequence, drawn: Counter[int]) -> np.ndarray:
    """z_j + bias_j - count_j frequency_penalty - (count_j > 0) presence_penalty"""
    penalised = drawn if sequence.presence_penalty or sequence.frequency_penalty else {}
    if not sequence.logit_bias and not penalised:
        return logits
    z = logits.astype(np.float64)
    for token, bias in sequence.logit_bias.items():
        z[token] += bias
    for token, count in penalised.items():
        z[token] -= count * sequence.frequency_penalty + sequence.presence_penalty
    return z
