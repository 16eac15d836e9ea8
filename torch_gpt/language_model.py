"""The entry to the maths: forward and loss_and_grads, which check what goes in and what comes out."""

import math

import numpy as np
import torch

from numpy_gpt.checks import check_batch, check_finite, check_model, check_noise, check_tokens, not_finite
from numpy_gpt.errors import GPTError
from numpy_gpt.params import named, tree_map

from . import model
from .noise import Noise
from .ops import cross_entropy

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


@torch.no_grad()
def forward(m, tokens):
    """tokens (B,T) ints -> logits (B,T,V)"""
    check(m)
    tokens = check_tokens(on_cpu(tokens, "tokens"), m.config)
    logits = model.gpt2(on_device(tokens, m), m.params, m.config)
    check_finite("the output", logits, m.params, torch.isfinite)
    return logits


@torch.enable_grad()
def loss_and_grads(m, tokens, targets, noise=None, checkpointing=False):
    """tokens, targets (B,T) ints -> the mean cross-entropy, and its gradients as a tree like m.params"""
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
    check_model(m, DTYPES, torch.Tensor)
    device = m.params.wte.device
    if device.type == "meta":
        raise GPTError("the parameters are on meta, where there are no numbers: put them on cpu or cuda.")
    for name, a in named(m.params):
        if a.device != device:
            raise GPTError(f"parameter {name} is on {a.device} and wte on {device}: put all on one device.")
    check_scores(m)


@torch.no_grad()
def check_scores(m):
    """Raise GPTError if scores may overflow: for a query whose scores are all -inf, PyTorch's attention returns 0

    With x = n g + b from ln_1, |q| and |k| are at most |x| |w| + |b| and |x| at most sqrt(C) max |g| + |b|. A score is
    at most |q| |k|. A matrix is taken as one vector, and a nan is left to check_finite.
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
    """Raise GPTError if a gradient has an inf or a nan; a GPU is asked once for all of them

    A norm is finite only if all numbers are, and faster than isfinite. It can overflow where they don't.
    """
    leaves = list(named(grads))
    norms = torch.stack([torch.linalg.vector_norm(g) for _, g in leaves]).tolist()
    for (name, g), norm in zip(leaves, norms, strict=True):
        if not math.isfinite(norm) and not g.isfinite().all():
            raise not_finite(f"the gradient of {name}", params, torch.isfinite)


def on_cpu(tokens, what):
    try:
        return tokens.detach().cpu().numpy() if isinstance(tokens, torch.Tensor) else tokens
    except (TypeError, RuntimeError) as e:  # of a dtype that NumPy lacks, or on meta
        raise GPTError(f"{what} can't be made a NumPy array ({e}): give token ids as whole numbers.") from None


def on_device(tokens, m):
    return torch.from_numpy(np.array(tokens, np.int64)).to(m.params.wte.device)
