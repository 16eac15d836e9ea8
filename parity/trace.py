"""One training step of each side, all that it computes by name: values, their gradients, the parameters' gradients."""

from contextlib import nullcontext

import numpy as np
from torch.nn.attention import SDPBackend, sdpa_kernel

import numpy_gpt
import torch_gpt
from numpy_gpt import named
from numpy_gpt.params import Head, tree_map
from numpy_gpt.record import record
from torch_gpt import to_numpy

from .compare import compare


def compare_step(m, tokens, targets, device="cpu", noise=(), fused=False):
    """m in float32; noise: the seed and step of dropout -> a Row for every tensor of a training step

    PyTorch runs its plain attention, unless fused. The CPU's fused kernel has Σ p dp from Σ y dy. That rounding moves
    all scores of a query alike, and shows in the bias gradients of q and k, which are sums that cancel.
    """
    m64 = m._replace(params=tree_map(lambda a: a.astype(np.float64), m.params))
    with nullcontext() if fused else sdpa_kernel(SDPBackend.MATH):
        return compare(
            numpy_trace(m, tokens, targets, noise),
            torch_trace(torch_gpt.from_numpy(m, device), tokens, targets, noise),
            numpy_trace(m64, tokens, targets, noise),
            torch_trace(torch_gpt.from_numpy(m64, device), tokens, targets, noise),
        )


def numpy_trace(m, tokens, targets, noise=()):
    noise = numpy_gpt.Noise(*noise) if noise else None
    with record(numpy_gpt.model) as seen:
        _, grads = numpy_gpt.loss_and_grads(m, tokens, targets, noise)
    _, untied = numpy_gpt.loss_and_grads(untie(m), tokens, targets, noise)
    return seen | parameters(grads, untied)


def torch_trace(m, tokens, targets, noise=()):
    noise = torch_gpt.Noise(*noise) if noise else None
    with record(torch_gpt.model, watch=lambda tensor: tensor.retain_grad()) as seen:
        _, grads = torch_gpt.loss_and_grads(m, tokens, targets, noise)
    _, untied = torch_gpt.loss_and_grads(untie(m), tokens, targets, noise)
    values = {name: to_numpy(tensor) for name, tensor in seen.items()}
    gradients = {f"grad.act.{name}": to_numpy(tensor.grad) for name, tensor in seen.items()}
    return values | gradients | parameters(to_numpy(grads), to_numpy(untied))


def untie(m):
    """The same model with a head of its own, so that the two parts of wte's gradient come apart"""
    return m._replace(params=m.params._replace(head=m.params.head or Head(m.params.wte)))


def parameters(grads, untied):
    """A bias of c_attn falls into its three thirds, since the key's is judged otherwise"""
    by_name: dict[str, np.ndarray] = {}
    for name, g in named(grads):
        if name.endswith("c_attn.b"):
            by_name |= {f"grad.param.{name}.{part}": third for part, third in zip("qkv", np.split(g, 3), strict=True)}
        else:
            by_name[f"grad.param.{name}"] = g
    if grads.head is None:
        by_name |= {"grad.param.wte.embed": untied.wte, "grad.param.wte.head": untied.head.w}
    return by_name
