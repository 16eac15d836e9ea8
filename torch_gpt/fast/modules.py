"""Wrap the tree of parameters in modules, as DDP, FSDP2 and torch.compile need them."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from numpy_gpt.params import GPT2, named, tree_map

from ..model import block, gpt2
from ..ops import cross_entropy
from .head import chunked_loss, loss_and_grads


class Leaves(nn.Module):
    """Hold the leaves of a tree as a module's parameters, which share the tensors' memory"""

    def __init__(self, tree):
        super().__init__()
        names = [name.replace(".", "_") for name, _ in named(tree)]
        for name, (_, leaf) in zip(names, named(tree), strict=True):
            self.register_parameter(name, nn.Parameter(leaf))
        remaining = iter(names)
        self.names = tree_map(lambda _: next(remaining), tree)

    def tree(self):
        """Return the tree of the current parameters: FSDP2 replaces them when it gathers or frees a layer"""
        return tree_map(lambda name: getattr(self, name), self.names)


class Layer(Leaves):
    """Hold a block's parameters, which FSDP2 gathers when the module is called"""

    def forward(self, x, config, noise, block):
        return block(x, self.tree(), config, None, noise)


def run_layer(block, x, layer, config, kv, noise):
    """Call a block through its module, so that FSDP2 gathers and casts the parameters first"""
    return layer(x, config, noise, block)


def run_in_bfloat16(x, p, config, kv, noise):
    """Run a block on its input and its parameters in bfloat16"""
    return block(x.bfloat16(), in_bfloat16(p), config, kv, noise)


def in_bfloat16(tree):
    """Return a tree of tensors in bfloat16; a tensor that has this dtype isn't copied"""
    return tree_map(torch.Tensor.bfloat16, tree)


def loss(targets, *arguments):
    """Return the mean cross-entropy of targets (B,T); arguments are those of gpt2"""
    return cross_entropy(gpt2(*arguments), targets)


def features(tokens, p, config, noise, checkpointing, run):
    """Return the head's input (B,T,C) in bfloat16"""
    p = GPT2(p.wte, p.wpe, p.h, in_bfloat16(p.ln_f), p.head)
    return gpt2(tokens, p, config, noise, checkpointing, run or run_in_bfloat16, head=lambda n, w: n)


class Functions(NamedTuple):
    """Hold the functions of a step, compiled or not"""

    block: Callable
    loss: Callable
    features: Callable
    loss_and_grads: Callable


EAGER = Functions(block, loss, features, loss_and_grads)


def compiled_functions(device):
    """Return the functions compiled for fixed shapes; on CUDA, a hand-written kernel computes the loss"""
    functions = Functions(*(torch.compile(f, dynamic=False) for f in EAGER))
    if torch.device(device).type != "cuda":
        return functions
    from . import loss_kernel  # Triton isn't installed everywhere

    return functions._replace(loss_and_grads=loss_kernel.loss_and_grads)


class GPT(nn.Module):
    """Compute the mean loss of tokens and targets (B,T)

    If dtype is bfloat16, the residual stream and the matmuls are in bfloat16. The parameters, their gradients and the
    embedding stay in float32, except that FSDP2 casts the parameters that it gathers. compile_for is the device for
    which the functions of a step are compiled, or None.
    """

    def __init__(self, m, checkpointing=False, sharded=False, compile_for=None, dtype=torch.float32):
        super().__init__()
        self.config, self.checkpointing, self.sharded, self.dtype = m.config, checkpointing, sharded, dtype
        self.layers = nn.ModuleList(Layer(p) for p in m.params.h)
        self.rest = Leaves(m.params._replace(h=[]))
        self.functions = compiled_functions(compile_for) if compile_for else EAGER
        if sharded:  # between the layers, FSDP2 gathers parameters
            self.functions = self.functions._replace(loss=loss, features=features)

    def tree(self):
        layers: list[Any] = [*self.layers]
        return self.rest.tree()._replace(h=[layer.tree() for layer in layers])

    def forward(self, tokens, targets, noise=None, eager=False):
        f = EAGER if eager else self.functions
        p, run = self.tree(), None
        if self.sharded:
            p, run = p._replace(h=list(self.layers)), partial(run_layer, f.block)
        if self.dtype != torch.bfloat16:
            return f.loss(targets, tokens, p, self.config, noise, self.checkpointing, run)
        w = p.wte if p.head is None else p.head.w
        n = f.features(tokens, p, self.config, noise, self.checkpointing, run)
        return chunked_loss(n, w, targets, self.config.n_vocab, f.loss_and_grads)


def shard(gpt, device, dtype):
    """Apply FSDP2: every process keeps a share of the weights, and gathers one layer at a time"""
    mesh = init_device_mesh(torch.device(device).type, (dist.get_world_size(),))
    mixed = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    policy = mixed if dtype == torch.bfloat16 else MixedPrecisionPolicy()
    for layer in gpt.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(gpt, mesh=mesh, mp_policy=policy)
