"""GPT-2 from its operations: attn, mlp, block, gpt2. The backward is autograd's.

In block x is the residual stream, a the attention branch, m the MLP branch; elsewhere x comes in and y goes out.
"""

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from numpy_gpt.checks import check_batch, check_finite, check_kv, check_model, check_noise, check_tokens
from numpy_gpt.errors import GPTError
from numpy_gpt.params import tree_map

from .noise import Noise
from .ops import attention, cross_entropy, dropout, embedding, gelu, layernorm, linear, unembedding

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def split_heads(x, H):                                                   # (B,T,C) -> (B,H,T,D)
    B, T, C = x.shape
    return x.reshape(B, T, H, C // H).swapaxes(1, 2)


def merge_heads(x):                                                      # (B,H,T,D) -> (B,T,C)
    B, H, T, D = x.shape
    return x.swapaxes(1, 2).reshape(B, T, H * D)


def attn(x, p, config, kv=None, noise=None):
    """Every position asks (q), offers itself (k) and has something to say (v)"""
    H = config.n_head
    qkv = linear(x, *p.c_attn)                                           # (B,T,3C)
    q, k, v = (split_heads(part, H) for part in qkv.chunk(3, -1))        # (B,H,T,D)
    if kv is not None:
        k, v = kv.append(k, v)                                           # (B,H,S,D)
    y = attention(q, k, v, config.dropout, noise)                        # (B,H,T,D)
    y = linear(merge_heads(y), *p.c_proj)                                # (B,T,C)
    y = dropout(y, config.dropout, noise and noise.at(1))
    return y


def mlp(x, p, config, noise=None):
    """Four times as wide, bent, and back: what every position does by itself"""
    y = linear(x, *p.c_fc)                                               # (B,T,4C)
    y = gelu(y)                                                          # (B,T,4C)
    y = linear(y, *p.c_proj)                                             # (B,T,C)
    y = dropout(y, config.dropout, noise and noise.at(2))
    return y


def block(x, p, config, kv=None, noise=None):
    """x + attn(ln_1 x), then x + mlp(ln_2 x)"""
    a = layernorm(x, *p.ln_1)
    a = attn(a, p.attn, config, kv, noise)
    x = x + a
    m = layernorm(x, *p.ln_2)
    m = mlp(m, p.mlp, config, noise)
    x = x + m
    return x


def checkpointed_block(x, p, config, kv=None, noise=None):
    """A block that saves its input alone and runs again in the backward"""
    return checkpoint(block, x, p, config, kv, noise, use_reentrant=False)


def gpt2(tokens, p, config, kv=None, noise=None, checkpointing=False):
    """tokens (B,T) ints -> logits (B,T,V)"""
    start = check_kv(kv, tokens, p) if kv else 0
    run = checkpointed_block if checkpointing else block
    x = embedding(tokens, p.wte, p.wpe, start)                           # (B,T,C)
    x = dropout(x, config.dropout, noise)
    for i, p_i in enumerate(p.h):
        x = run(x, p_i, config, kv and kv[i], noise and noise.at(1 + 3 * i))
    x = layernorm(x, *p.ln_f)
    tied = p.head is None
    logits = unembedding(x, p.wte if tied else p.head.w)                 # (B,T,V)
    return logits


@torch.no_grad()
def forward(m, tokens):
    """tokens (B,T) ints -> logits (B,T,V)"""
    check(m)
    tokens = check_tokens(on_cpu(tokens), m.config)
    logits = gpt2(on_device(tokens, m), m.params, m.config)
    check_finite("the output", logits, m.params, torch.isfinite)
    return logits


@torch.enable_grad()
def loss_and_grads(m, tokens, targets, noise=None, checkpointing=False):
    """tokens, targets (B,T) ints -> the mean cross-entropy, and its gradients as a tree like m.params"""
    check(m)
    tokens, targets = check_batch(on_cpu(tokens), on_cpu(targets), m.config)
    check_noise(noise, Noise)
    params = tree_map(lambda a: a.detach().requires_grad_(), m.params)
    logits = gpt2(on_device(tokens, m), params, m.config, None, noise, checkpointing)
    check_finite("the output", logits, m.params, torch.isfinite)
    loss = cross_entropy(logits, on_device(targets, m))
    check_finite("the loss", loss, m.params, torch.isfinite)
    loss.backward()
    return loss.detach(), tree_map(lambda a: a.grad, params)


def check(m):
    if not isinstance(m.params.wte, torch.Tensor):
        raise GPTError("the model holds NumPy arrays: torch_gpt.from_numpy(m) makes one of tensors.")
    check_model(m, DTYPES)


def on_cpu(tokens):
    return tokens.detach().cpu().numpy() if isinstance(tokens, torch.Tensor) else tokens


def on_device(tokens, m):
    return torch.from_numpy(np.array(tokens, np.int64)).to(m.params.wte.device)
