"""Help tests of the inspection: a small model, and answers to requests about it."""

import base64
from dataclasses import replace

import numpy as np

from numpy_gpt.serve.inspection import FUNCTIONS, answer
from parity.inputs import TINY, random_model

CONFIG = replace(TINY, n_ctx=80)
M = random_model(CONFIG, dtype=np.float64)
IDS = [5, 11, 5, 60, 0, 17, 3]


def ask(view, ids=IDS, m=M, **fields):
    """Return the answer of a view, with floats of 6 digits"""
    return answer(FUNCTIONS, m, {"view": view, "prompt": ids, **fields})


def decoded(text, dtype):
    """Return the numbers of a base64 text"""
    return np.frombuffer(base64.b64decode(text), dtype)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
