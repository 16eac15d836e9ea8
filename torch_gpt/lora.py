"""Train a product of two narrow matrices instead of a matrix: low-rank adaptation, LoRA (Hu et al., 2021).

The model runs with w + scale a b in place of w, and only a and b are trained. Autograd computes the backward. Keeping
the sum merges the adapter into plain weights.

I, O in and out   R rank
"""

import torch

import numpy_gpt.lora
from numpy_gpt.lora import TARGETS
from numpy_gpt.params import MLP, Attn, Block, Linear, tree_map

from .params import check_target, tensor


def lora(w, a, b, scale):
    """y = w + scale a b                          w, y (I,O)   a (I,R)   b (R,O)"""
    return torch.addmm(w, a, b, alpha=scale)


def adapt_linear(p, adapter, scale):
    """Return the Linear p with w + scale a b as its w; return p itself if adapter is None"""
    if adapter is None:
        return p
    w = lora(p.w, adapter.a, adapter.b, scale)                           # (I,O)
    return Linear(w, p.b)


def adapt_block(p, adapters, scale):
    """Return the Block p with its adapted matrices; adapters is a Block too"""
    c_attn = adapt_linear(p.attn.c_attn, adapters.attn.c_attn, scale)
    attn_proj = adapt_linear(p.attn.c_proj, adapters.attn.c_proj, scale)
    c_fc = adapt_linear(p.mlp.c_fc, adapters.mlp.c_fc, scale)
    mlp_proj = adapt_linear(p.mlp.c_proj, adapters.mlp.c_proj, scale)
    y = Block(p.ln_1, Attn(c_attn, attn_proj), p.ln_2, MLP(c_fc, mlp_proj))
    return y


def adapt(h, adapters, scale):
    """Return the blocks h with their adapted matrices

    adapters is a list of Block like h, with an Adapter or None for each Linear, and None for each LayerNorm.
    """
    return [adapt_block(p_i, adapters_i, scale) for p_i, adapters_i in zip(h, adapters, strict=True)]


def new_adapters(config, rank, targets=TARGETS, first=0, seed=0, device="cpu", dtype=torch.float32):
    """Return the adapters that numpy_gpt.lora.new_adapters draws, as tensors"""
    device = check_target(device, dtype)
    adapters = numpy_gpt.lora.new_adapters(config, rank, targets, first, seed)
    return tree_map(lambda a: tensor(a).to(device, dtype), adapters)
