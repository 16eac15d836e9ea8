"""Provide the public entry to the maths: forward and loss_and_grads, which check their input and results."""

from typing import Any

import numpy as np

from . import model
from .checks import (
    check_batch,
    check_finite,
    check_gradients,
    check_model,
    check_noise,
    check_tokens,
    no_overflow,
)
from .fast.turns import one_at_a_time
from .noise import Noise
from .ops import cross_entropy, cross_entropy_backward
from .params import GPT2, Model


def forward(m: Model, tokens: Any) -> np.ndarray:
    """Return the logits of the token after each position, without dropout

    Arguments:
        m: the model, as init and load return it.
        tokens: (B,T) whole numbers below n_vocab, an array or nested lists. T is at most n_ctx.

    Returns logits (B,T,V) in the dtype of the parameters. logits[b, t] predict the token after tokens[b, : t + 1].

    Raises GPTError if an argument is invalid, or if the output isn't finite.

    Example:
        >>> import numpy_gpt
        >>> m = numpy_gpt.load("storyteller")
        >>> ids = m.tokenizer.encode("Once upon a")
        >>> logits = numpy_gpt.forward(m, [ids])
        >>> m.tokenizer.decode([int(logits[0, -1].argmax())])
        ' time'
    """
    check_model(m)
    tokens = check_tokens(tokens, m.config)
    with one_at_a_time(), no_overflow("the output", m.params):
        logits, _ = model.gpt2(tokens, m.params, m.config, save=False)
    check_finite("the output", logits, m.params)
    return logits


def loss_and_grads(
    m: Model, tokens: Any, targets: Any, noise: Noise | None = None, checkpointing: bool = False
) -> tuple[np.floating, GPT2]:
    """Return the mean cross-entropy of targets after tokens, and its gradients

    Arguments:
        m: the model, as init and load return it.
        tokens: (B,T) whole numbers below n_vocab, an array or nested lists. T is at most n_ctx.
        targets: (B,T), the token that follows each position.
        noise: Noise(seed, step) for dropout at the rate m.config.dropout; None for no dropout.
        checkpointing: if True, each block saves only its input and is recomputed in the backward. This takes less
            memory and more time, and the results are the same bits.

    Returns the loss, a scalar in the dtype of the parameters, and the gradients, a tree like m.params.

    Raises GPTError if an argument is invalid, or if the loss or a gradient isn't finite.

    Example:
        >>> import numpy_gpt
        >>> m = numpy_gpt.load("storyteller")
        >>> ids = m.tokenizer.encode("Once upon a time, there was a little girl.")
        >>> loss, grads = numpy_gpt.loss_and_grads(m, [ids[:-1]], [ids[1:]])
        >>> bool(0 < loss < 3)
        True
        >>> grads.wte.shape == m.params.wte.shape
        True
    """
    check_model(m)
    tokens, targets = check_batch(tokens, targets, m.config)
    check_noise(noise, Noise)
    with one_at_a_time(), no_overflow("the output", m.params):
        logits, s_gpt2 = model.gpt2(tokens, m.params, m.config, noise, checkpointing)
    check_finite("the output", logits, m.params)
    with no_overflow("the loss", m.params):
        loss, s_cross_entropy = cross_entropy(logits, targets)
    check_finite("the loss", loss, m.params)
    with one_at_a_time(), no_overflow("the gradient", m.params):
        (dlogits,) = cross_entropy_backward(1.0, s_cross_entropy)
        del logits, s_cross_entropy  # each as large as dlogits
        grads = model.gpt2_backward(dlogits, s_gpt2)
    check_gradients(grads, m.params)
    return loss, grads
