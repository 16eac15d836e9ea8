"""Score tokens by the log-probabilities of the model's logits."""

import numpy as np

from ...generate.sampling import likeliest
from .sequence import Score


def score(logits: np.ndarray, token: int, k: int) -> Score:
    """Return the log-probability of the token, and those of the k best ids: logits (V,)"""
    best, logprobs = likeliest(logits, max(k, 1))
    return Score(float(logprobs[token]), [(i, float(logprobs[i])) for i in best[:k].tolist()])
