"""Compute the surprisal of each token of a prompt."""

import math

from .numbers import log_softmax


def answer_tokens(request):
    """Return the tokens of the prompt with their surprisals, and the shape of the model"""
    config = request.m.config
    return {
        "tokens": [request.token(i) for i in request.ids],
        "surprisal": [surprisal(request, t) for t in range(len(request.ids))],
        "layers": config.n_layer,
        "heads": config.n_head,
        "width": config.n_embd,
        "context": config.n_ctx,
    }


def surprisal(request, t):
    """Return -log2 p of token t after the tokens before it, or None if the model gives it no probability"""
    i = request.ids[t]
    if t == 0 or i >= request.n_vocab:
        return None
    return float(-log_softmax(request.logits(t - 1))[i]) / math.log(2)
