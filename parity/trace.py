"""Run one training step of each side and name every tensor: values, their gradients, gradients of parameters."""

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

DRAWS = 16  # for a tiny model; if tensors have many thousands of numbers, one draw is enough
MOST_DRAWS = 1024


def compare_steps(config, B, T, seed=0, device="cpu", draws=None, fused=False):
    """Run training steps of random weights on random tokens, with dropout, and return a Row for every tensor

    PyTorch runs its plain attention, unless fused is true. The CPU's fused kernel computes Σ p dp as Σ y dy. Its
    rounding shifts the gradients of all scores of a query by the same number. That shows in the bias gradients of q and
    k, which are sums of terms that nearly cancel.
    """
    with nullcontext() if fused else sdpa_kernel(SDPBackend.MATH):
        return compare(four_traces(config, B, T, s, device) for s in seeds(seed, draws or enough_draws(config, T)))


def seeds(seed, draws):
    """Return the seeds of a report's draws; reports with different seeds share no draw"""
    return range(seed << 32, (seed << 32) + draws)


def enough_draws(config, T):
    """Return a number of draws with which fewer than 1 comparison in 1,000 fails by chance

    It was measured at widths of 4 to 48. An error depends more on the draw if dropout leaves few channels, or if a
    query sees few keys.
    """
    channels = config.n_embd * (1 - config.dropout)
    times = max(1, 16 / channels) * max(1, 4 / max(1, T - 1)) ** 2
    return min(MOST_DRAWS, math.ceil(DRAWS * times))


def four_traces(config, B, T, seed, device):
    """Return (numpy32, torch32, numpy64, torch64): one training step, each a {name: array}"""
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
    """Run a training step of numpy_gpt and return {name: array}; noise is the seed and step of dropout"""
    noise = numpy_gpt.Noise(*noise)
    with record(numpy_gpt.model) as tensors:
        _, grads = numpy_gpt.loss_and_grads(m, tokens, targets, noise)
    untied = numpy_gpt.loss_and_grads(untie(m), tokens, targets, noise)[1] if m.config.tied else None
    return tensors | parameter_gradients(grads, untied)


def torch_trace(m, tokens, targets, noise=(0, 0)):
    """Run a training step of torch_gpt and return {name: array}"""
    noise = torch_gpt.Noise(*noise)
    with record(torch_gpt.model, watch=lambda tensor: tensor.retain_grad()) as tensors:
        _, grads = torch_gpt.loss_and_grads(m, tokens, targets, noise)
    untied = torch_gpt.loss_and_grads(untie(m), tokens, targets, noise)[1] if m.config.tied else None
    values = {name: to_numpy(tensor) for name, tensor in tensors.items()}
    gradients = {f"grad.act.{name}": to_numpy(tensor.grad) for name, tensor in tensors.items()}
    return values | gradients | parameter_gradients(to_numpy(grads), to_numpy(untied))


def untie(m):
    """Return the same model with an untied head, which separates the two parts of wte's gradient"""
    return m._replace(config=replace(m.config, tied=False), params=m.params._replace(head=Head(m.params.wte)))


def parameter_gradients(grads, untied):
    """Name the gradients; c_attn.b is split into q, k and v, because scale in compare.py treats k separately"""
    by_name: dict[str, np.ndarray] = {}
    for name, g in named(grads):
        if name.endswith("c_attn.b"):
            by_name |= {f"grad.param.{name}.{part}": third for part, third in zip("qkv", np.split(g, 3), strict=True)}
        else:
            by_name[f"grad.param.{name}"] = g
    if untied:
        by_name |= {"grad.param.wte.embed": untied.wte, "grad.param.wte.head": untied.head.w}
    return by_name
