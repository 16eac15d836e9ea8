"""Bundle the computations that the engine needs from a framework."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ...checks import check_finite, check_model, no_overflow
from ...fast.turns import one_at_a_time
from ...generate import next_logits
from ...generate.kv import new_kv
from ...generate.step import gpt2_all
from ...params import Model
from .rows import MOST, min_rows


class Functions(NamedTuple):
    """Bundle a framework's functions; all logits are NumPy arrays, and an error is raised if they aren't finite"""

    new_kv: Callable[[int], list[Any]]  # N -> a kv for one sequence of up to N tokens
    read: Callable[[list[int], list[Any]], np.ndarray]  # the next tokens of a sequence, its kv -> logits (V,)
    read_all: Callable[[list[int], list[Any]], np.ndarray]  # the same -> the logits after each token (T,V)
    step: Callable[[list[int], list[list[Any]]], np.ndarray]  # a token of each sequence, their kvs -> logits (B,V)


def functions(m: Model) -> Functions:
    """Return NumPy's functions for the model m"""
    check_model(m)
    return Functions(
        new_kv=partial(new_kv, m.config, m.params.wte.dtype, 1),
        read=partial(read, m),
        read_all=partial(read_all, m),
        step=partial(step_in_parts, m, min_rows(m.params)),
    )


def read(m, tokens, kv):
    """Return the logits (V,) after the next tokens of a sequence"""
    return next_logits(m, [np.array([tokens])], [kv])[0]


def read_all(m, tokens, kv):
    """Return the logits (T,V) after each of the next tokens of a sequence"""
    with one_at_a_time(), no_overflow("the output", m.params):
        logits = gpt2_all(np.array([tokens]), m.params, m.config, kv)
    check_finite("the output", logits, m.params)
    return logits


def step_in_parts(m, rows, tokens, kvs):
    """Return the logits (B,V) after a new token of each sequence, from matmuls of `rows` to MOST rows"""
    parts = [slice(start, start + MOST) for start in range(0, len(tokens), MOST)]
    return np.concatenate([padded_step(m, rows, tokens[part], kvs[part]) for part in parts])


def padded_step(m, rows, tokens, kvs):
    """Return the logits (B,V) after a new token of each sequence; sequences of one token fill missing rows"""
    groups = [np.array([[token]]) for token in tokens]
    missing = rows - len(groups)
    if missing > 0:
        groups.append(np.zeros((missing, 1), int))
        kvs = [*kvs, new_kv(m.config, m.params.wte.dtype, missing, 1)]
    return next_logits(m, groups, kvs)[: len(tokens)]
