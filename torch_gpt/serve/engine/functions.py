"""Bundle PyTorch's computations for the engine of numpy_gpt.serve.

Rounding can depend on the number of sequences that are decoded together.
"""

from functools import partial

import numpy as np
import torch

from numpy_gpt.checks import check_finite
from numpy_gpt.params import Model
from numpy_gpt.serve.engine.functions import Functions

from ...generate import next_logits, to_array
from ...generate.kv import new_kv
from ...generate.step import gpt2_all
from ...language_model import check
from ...params import explained_memory_errors

REMEDY = "run fewer sequences at once, or use bfloat16 weights."


def functions(m: Model) -> Functions:
    """Return PyTorch's functions for the model m, without compiled steps"""
    check(m)
    wte = m.params.wte
    return Functions(
        new_kv=partial(new_kv, m.config, wte.dtype, wte.device, 1),
        read=partial(read, m),
        read_all=partial(read_all, m),
        step=partial(step, m),
    )


def read(m, tokens, kv):
    """Return the logits (V,) after the next tokens of a sequence"""
    with explained_memory_errors(REMEDY):
        return to_array(next_logits(m, [np.array([tokens])], [kv])[0])


def read_all(m, tokens, kv):
    """Return the logits (T,V) after each of the next tokens of a sequence"""
    with explained_memory_errors(REMEDY):
        logits = gpt2_all(np.array([tokens]), m.params, m.config, kv)
        check_finite("the output", logits, m.params, torch.isfinite)
        return to_array(logits)


def step(m, tokens, kvs):
    """Return the logits (B,V) after a new token of each sequence"""
    with explained_memory_errors(REMEDY):
        return to_array(next_logits(m, [np.array([[token]]) for token in tokens], kvs))
