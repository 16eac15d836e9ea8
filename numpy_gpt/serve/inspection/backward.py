"""Compute the gradient of a token's log-probability at every tensor of a forward."""

import numpy as np

from ...checks import check_finite
from .numbers import encode


def answer_backward(request):
    """Return the norm of each tensor's gradient at each token, and gradient times input of each token

    The tokens after the position don't affect the prediction there, so they are left out of the run.
    """
    position, target = request.position(), request.token_id("target")
    target = default_target(request, position) if target is None else target
    ids = request.ids[: position + 1]
    x = request.tensors["emb"][: position + 1]  # of a forward that has checked its output
    logprob, gradients = request.functions.run_backward(request.m, ids, target, request.n_vocab)
    lengths = np.stack([norms(g) for g in gradients.values()])
    check_finite("the gradient", lengths, request.run.m.params)
    return {
        "target": request.token(target),
        "logprob": logprob,
        "tensors": list(gradients),
        "norms": encode(lengths, np.float32),
        "times_input": times_input(gradients["emb"], x),
    }


def default_target(request, position):
    """Return the token that follows in the prompt, or the best one if none follows"""
    following = request.ids[position + 1 : position + 2]
    return following[0] if following and following[0] < request.n_vocab else int(request.logits(position).argmax())


def norms(g):
    """Return the norm at each token: (T,...) or (H,T,D) -> (T,)"""
    per_token = g.swapaxes(0, 1) if g.ndim == 3 else g
    return np.sqrt(np.square(per_token.reshape(len(per_token), -1), dtype=np.float64).sum(-1))


def times_input(g, x):
    """Return Σ g x of each token, the first-order change of the log-probability if the token's x were 0, negated"""
    return (g.astype(np.float64) * x).sum(-1).tolist()
