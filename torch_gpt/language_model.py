"""Provide the public entry to the maths: forward and loss_and_grads, which check their input and results."""

import math
from typing import Any

import numpy as np
import torch

from numpy_gpt.checks import check_batch, check_finite, check_model, check_noise, check_tokens, not_finite
from numpy_gpt.errors import GPTError
from numpy_gpt.params import GPT2, Model, named, tree_map

from . import model
from .noise import Noise
from .ops import cross_entropy

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


@torch.no_grad()
def forward(m: Model, tokens: Any) -> torch.Tensor:
    """Return the logits of the token after each position, without dropout

    Arguments:
        m: the model, as init and load return it.
        tokens: (B,T) whole numbers below n_vocab, a tensor, an array or nested lists. T is at most n_ctx.

    Returns logits (B,T,V) in the dtype and on the device of the parameters. logits[b, t] predict the token after
    tokens[b, : t + 1].

    Raises GPTError if an argument is invalid, or if the output isn't finite.

    Example:
        >>> import torch_gpt
        >>> m = torch_gpt.load("storyteller")
        >>> ids = m.tokenizer.encode("Once upon a")
        >>> logits = torch_gpt.forward(m, [ids])
        >>> m.tokenizer.decode([int(logits[0, -1].argmax())])
        ' time'
    """
    check(m)
    tokens = check_tokens(on_cpu(tokens, "tokens"), m.config)
    logits = model.gpt2(on_device(tokens, m), m.params, m.config)
    check_finite("the output", logits, m.params, torch.isfinite)
    return logits


@torch.enable_grad()
def loss_and_grads(
    m: Model, tokens: Any, targets: Any, noise: Noise | None = None, checkpointing: bool = False
) -> tuple[torch.Tensor, GPT2]:
    """Return the mean cross-entropy of targets after tokens, and its gradients

    Arguments:
        m: the model, as init and load return it.
        tokens: (B,T) whole numbers below n_vocab, a tensor, an array or nested lists. T is at most n_ctx.
        targets: (B,T), the token that follows each position.
        noise: Noise(seed, step) for dropout at the rate m.config.dropout; None for no dropout.
        checkpointing: if True, each block saves only its input and is recomputed in the backward. This takes less
            memory and more time.

    Returns the loss, a scalar in the dtype of the parameters, and the gradients, a tree like m.params.

    Raises GPTError if an argument is invalid, or if the loss or a gradient isn't finite.

    Example:
        >>> import torch_gpt
        >>> m = torch_gpt.load("storyteller")
        >>> ids = m.tokenizer.encode("Once upon a time, there was a little girl.")
        >>> loss, grads = torch_gpt.loss_and_grads(m, [ids[:-1]], [ids[1:]])
        >>> bool(0 < loss < 3)
        True
        >>> grads.wte.shape == m.params.wte.shape
        True
    """
    check(m)
    tokens, targets = check_batch(on_cpu(tokens, "tokens"), on_cpu(targets, "targets"), m.config)
    check_noise(noise, Noise)
    params = tree_map(lambda a: a.detach().requires_grad_(), m.params)
    logits = model.gpt2(on_device(tokens, m), params, m.config, noise, checkpointing)
    check_finite("the output", logits, m.params, torch.isfinite)
    loss = cross_entropy(logits, on_device(targets, m))
    check_finite("the loss", loss, m.params, torch.isfinite)
    loss.backward()
    grads = tree_map(lambda a: a.grad, params)
    check_gradients(grads, m.params)
    return loss.detach(), grads


def check(m):
    """Raise GPTError unless m is a model whose parameters fit its config and are tensors on one device"""
    check_model(m, DTYPES, torch.Tensor)
    device = m.params.wte.device
    if device.type == "meta":
        raise GPTError("the parameters are on the device meta, which stores no numbers: put them on cpu or cuda.")
    for name, a in named(m.params):
        if a.device != device:
            raise GPTError(f"parameter {name} is on {a.device} and wte on {device}: put all on one device.")
    check_scores(m)


@torch.no_grad()
def check_scores(m):
    """Raise GPTError if attention scores could overflow, because PyTorch returns 0 for a query with all scores -inf

    A score is at most |q| |k|. With x = n g + b from ln_1, |q| and |k| are at most |x| |w| + |b|, and |x| is at most
    sqrt(C) max |g| + |b|. |w| is the norm of the matrix as one vector. check_finite finds a NaN.
    """
    norm, C = torch.linalg.vector_norm, m.config.n_embd
    longest = []
    for p in m.params.h:
        x = math.sqrt(C) * norm(p.ln_1.g, math.inf) + norm(p.ln_1.b)
        w, b = p.attn.c_attn
        longest.append(x * norm(w) + (0 if b is None else norm(b)))
    most = math.sqrt(torch.finfo(m.params.wte.dtype).max) / 2
    if any(length > most for length in torch.stack(longest).tolist()):
        raise not_finite("the output", m.params, torch.isfinite)


@torch.no_grad()
def check_gradients(grads, params):
    """Raise GPTError if a gradient has an inf or a NaN; all norms are copied from the GPU at once

    A norm is faster than isfinite. A finite norm proves that all numbers are finite, but it can overflow if they are.
    """
    leaves = list(named(grads))
    norms = torch.stack([torch.linalg.vector_norm(g) for _, g in leaves]).tolist()
    for (name, g), norm in zip(leaves, norms, strict=True):
        if not math.isfinite(norm) and not g.isfinite().all():
            raise not_finite(f"the gradient of {name}", params, torch.isfinite)


def on_cpu(tokens, what):
    """Return a tensor of tokens as a NumPy array, and anything else as it is"""
    try:
        return tokens.detach().cpu().numpy() if isinstance(tokens, torch.Tensor) else tokens
    except (TypeError, RuntimeError) as e:  # a dtype that NumPy lacks, or the device meta
        raise GPTError(f"{what} can't be made a NumPy array ({e}): give token ids as whole numbers.") from None


def on_device(tokens, m):
    """Return an array of tokens as an int64 tensor on the model's device"""
    return torch.from_numpy(np.array(tokens, np.int64)).to(m.params.wte.device)
