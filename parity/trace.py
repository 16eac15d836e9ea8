"""One training step of each side, all that it computes by name: values, their gradients, the parameters' gradients."""

import math
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
from torch.nn.attention import SDPBackend, sdpa_kernel

import numpy_gpt
import torch_gpt
from numpy_gpt import named
from numpy_gpt.params import Head, tree_map
from numpy_gpt.record import record
from torch_gpt import to_numpy

from .compare import compare
from .inputs import random_batch, random_model

DRAWS = 16  # of a tiny model; of one whose tensors have many thousands of numbers, one draw is enough
MOST_DRAWS = 1024


def compare_steps(config, B, T, seed=0, device="cpu", draws=None, fused=False):
    """Training steps of random weights on random tokens, dropout included -> a Row for every tensor

    PyTorch runs its plain attention, unless fused. The CPU's fused kernel computes Σ p dp as Σ y dy. That rounding
    moves all scores of a query alike, and shows in the bias gradients of q and k, which are sums that cancel.
    """
    with nullcontext() if fused else sdpa_kernel(SDPBackend.MATH):
        return compare(four_traces(config, B, T, s, device) for s in seeds(seed, draws or enough_draws(config, T)))


def seeds(seed, draws):
    """The seeds of a report's draws: no two reports share one"""
    return range(seed << 32, (seed << 32) + draws)


def enough_draws(config, T):
    """As many draws as keep luck from failing one comparison in 1,000; measured at widths of 4 to 48

    The fewer channels dropout leaves and the fewer keys a query sees, the more an error depends on the draw.
    """
    channels = config.n_embd * (1 - config.dropout)
    times = max(1, 16 / channels) * max(1, 4 / max(1, T - 1)) ** 2
    return min(MOST_DRAWS, math.ceil(DRAWS * times))


def four_traces(config, B, T, seed, device):
    """NumPy and PyTorch in float32, NumPy and PyTorch in float64"""
    m = random_model(config, seed)
    m64 = m._replace(params=tree_map(lambda a: a.astype(np.float64), m.params))
    tokens, targets = random_batch(config, B, T, seed)
    return (
        numpy_trace(m, tokens, targets, noise=(seed, 0)),
        torch_trace(torch_gpt.from_numpy(m, device), tokens, targets, noise=(seed, 0)),
        numpy_trace(m64, tokens, targets, noise=(seed, 0)),
        torch_trace(torch_gpt.from_numpy(m64, device), tokens, targets, noise=(seed, 0)),
    )


def numpy_trace(m, tokens, targets, noise=(0, 0)):
    """noise: the seed and step of dropout"""
    noise = numpy_gpt.Noise(*noise)
    with record(numpy_gpt.model) as tensors:
        _, grads = numpy_gpt.loss_and_grads(m, tokens, targets, noise)
    untied = numpy_gpt.loss_and_grads(untie(m), tokens, targets, noise)[1] if m.config.tied else None
    return tensors | parameters(grads, untied)


def torch_trace(m, tokens, targets, noise=(0, 0)):
    noise = torch_gpt.Noise(*noise)
    with record(torch_gpt.model, watch=lambda tensor: tensor.retain_grad()) as tensors:
        _, grads = torch_gpt.loss_and_grads(m, tokens, targets, noise)
    untied = torch_gpt.loss_and_grads(untie(m), tokens, targets, noise)[1] if m.config.tied else None
    values = {name: to_numpy(tensor) for name, tensor in tensors.items()}
    gradients = {f"grad.act.{name}": to_numpy(tensor.grad) for name, tensor in tensors.items()}
    return values | gradients | parameters(to_numpy(grads), to_numpy(untied))


def untie(m):
    """The same model with a head of its own, so that the two parts of wte's gradient come apart"""
    return m._replace(config=replace(m.config, tied=False), params=m.params._replace(head=Head(m.params.wte)))


def parameters(grads, untied):
    """The bias of c_attn in its three parts, since compare.py measures the key's by the query's"""
    by_name: dict[str, np.ndarray] = {}
    for name, g in named(grads):
        if name.endswith("c_attn.b"):
            by_name |= {f"grad.param.{name}.{part}": third for part, third in zip("qkv", np.split(g, 3), strict=True)}
        else:
            by_name[f"grad.param.{name}"] = g
    if untied:
        by_name |= {"grad.param.wte.embed": untied.wte, "grad.param.wte.head": untied.head.w}
    return by_name
