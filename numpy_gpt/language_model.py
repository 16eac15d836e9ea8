"""The public entry to the maths: forward and loss_and_grads, which check their input and their results."""

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
from .noise import Noise
from .ops import cross_entropy, cross_entropy_backward
from .params import GPT2, Model


def forward(m: Model, tokens: Any) -> np.ndarray:
    """Return the logits (B,T,V) of tokens (B,T), a batch of sequences of token ids, without dropout

    tokens is an array or nested lists of whole numbers below n_vocab; T is at most n_ctx. The logits have the dtype of
    the parameters. logits[b, t] are those of the token after tokens[b, : t + 1]. Invalid tokens or parameters and
    results that aren't finite raise GPTError.

    >>> import numpy_gpt
    >>> m = numpy_gpt.load("storyteller")
    >>> ids = m.tokenizer.encode("Once upon a")
    >>> logits = numpy_gpt.forward(m, [ids])
    >>> logits.shape == (1, len(ids), m.config.n_vocab)
    True
    >>> m.tokenizer.decode([int(logits[0, -1].argmax())])
    ' time'
    """
    check_model(m)
    tokens = check_tokens(tokens, m.config)
    with no_overflow("the output", m.params):
        logits, _ = model.gpt2(tokens, m.params, m.config, save=False)
    check_finite("the output", logits, m.params)
    return logits


def loss_and_grads(
    m: Model, tokens: Any, targets: Any, noise: Noise | None = None, checkpointing: bool = False
) -> tuple[np.floating, GPT2]:
    """Return the mean cross-entropy of targets (B,T) after tokens (B,T), and its gradients, a tree like m.params

    targets[b, t] is the token that follows tokens[b, : t + 1]. Dropout at the rate of m.config acts only if noise is
    given. With checkpointing, each block saves only its input and is recomputed in the backward, which takes less
    memory and more time, and gives the same bits. Invalid arguments and results that aren't finite raise GPTError.

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
    with no_overflow("the output", m.params):
        logits, s_gpt2 = model.gpt2(tokens, m.params, m.config, noise, checkpointing)
    check_finite("the output", logits, m.params)
    with no_overflow("the loss", m.params):
        loss, s_cross_entropy = cross_entropy(logits, targets)
    check_finite("the loss", loss, m.params)
    with no_overflow("the gradient", m.params):
        (dlogits,) = cross_entropy_backward(1.0, s_cross_entropy)
        del logits, s_cross_entropy  # each as large as dlogits
        grads = model.gpt2_backward(dlogits, s_gpt2)
    check_gradients(grads, m.params)
    return loss, grads
