"""Bundle the computations that the engine needs from a framework."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..checks import check_finite, check_model, no_overflow
from ..generate import next_logits
from ..generate.kv import new_kv
from ..generate.step import gpt2_all
from ..params import Model


class Functions(NamedTuple):
    """Bundle a framework's functions; all raise GPTError if the logits aren't finite"""

    new_kv: Callable[[int, int], list[Any]]  # B, N -> a kv for B sequences of up to N tokens
    next_logits: Callable[[list[np.ndarray], list[list[Any]]], np.ndarray]  # groups (B,T), their kvs -> (ΣB,V)
    all_logits: Callable[[np.ndarray, list[Any]], np.ndarray]  # tokens (1,T), their kv -> the logits of each (T,V)


def functions(m: Model) -> Functions:
    """Return NumPy's functions for the model m"""
    check_model(m)
    return Functions(partial(new_kv, m.config, m.params.wte.dtype), partial(next_logits, m), partial(all_logits, m))


def all_logits(m, tokens, kv):
    """Return gpt2_all's logits; raise GPTError if they aren't finite"""
    with no_overflow("the output", m.params):
        logits = gpt2_all(tokens, m.params, m.config, kv)
    check_finite("the output", logits, m.params)
    return logits
