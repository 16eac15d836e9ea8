"""Compute the prediction after each layer: the residual stream there, through ln_f and the head."""

import numpy as np

from ... import ops
from ...errors import GPTError
from ...generate.sampling import best
from ..parameters import shown
from .numbers import log_softmax
from .request import check_whole

MOST_POSITIONS = 32
COUNT = 5  # tokens of a prediction


def answer_lens(request):
    """Return the predictions and the norms of the residual stream after each layer, at some positions"""
    positions = read_positions(request)
    return {
        "layers": ["embedding", *map(str, range(request.m.config.n_layer))],
        "positions": [describe(request, position) for position in positions],
    }


def read_positions(request):
    """Return the field positions, a list of at least one index of a token"""
    positions = request.body.get("positions")
    if not isinstance(positions, list) or not 1 <= len(positions) <= MOST_POSITIONS:
        raise GPTError(f"positions is {shown(positions)}: it must be a list of 1 to {MOST_POSITIONS} positions.")
    return [check_whole(t, f"positions[{i}]", 0, len(request.ids) - 1) for i, t in enumerate(positions)]


def describe(request, position):
    """Return the predictions after each layer at one position, and the layer from which the best token is final"""
    x = residual_stream(request.tensors, request.m.config.n_layer, position)  # (L + 1, C)
    logprobs = log_softmax(project(x, request.run.m.params)[:, : request.n_vocab])  # (L + 1, V)
    first = logprobs.argmax(-1)
    changed = np.flatnonzero(first != first[-1])
    return {
        "position": position,
        "best": [top_tokens(request, row) for row in logprobs],
        "of_final": np.exp(logprobs[:, first[-1]]).tolist(),
        "settled": int(changed[-1] + 1) if len(changed) else 0,
        "norms": np.linalg.norm(x.astype(np.float64), axis=-1).tolist(),
    }


def residual_stream(tensors, n_layer, position):
    """Return the residual stream (L + 1, C) at a position: after the embedding and after each block"""
    names = ["emb", *(f"h.{i}.resid_out" for i in range(n_layer))]
    return np.stack([tensors[name][position] for name in names])


def project(x, p):
    """Return the logits (...,V) of x (...,C): ln_f, then the head"""
    n, _ = ops.layernorm(x, *p.ln_f)
    return ops.unembedding(n, p.wte if p.head is None else p.head.w)[0]


def top_tokens(request, logprobs):
    """Return the best tokens with their probabilities, the best first"""
    ids = best(logprobs, min(COUNT, len(logprobs)))
    return [{"token": request.token(i), "probability": float(np.exp(logprobs[i]))} for i in ids]
