"""The entry to the maths: forward and loss_and_grads, which check what goes in and what comes out."""

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


def forward(m, tokens):
    """tokens (B,T) ints -> logits (B,T,V)"""
    check_model(m)
    tokens = check_tokens(tokens, m.config)
    with no_overflow("the output", m.params):
        logits, _ = model.gpt2(tokens, m.params, m.config, save=False)
    check_finite("the output", logits, m.params)
    return logits


def loss_and_grads(m, tokens, targets, noise=None, checkpointing=False):
    """tokens, targets (B,T) ints -> the mean cross-entropy, and its gradients as a tree like m.params"""
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
