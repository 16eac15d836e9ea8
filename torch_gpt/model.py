"""GPT-2 from its operations: attn, mlp, block, gpt2. The backward is autograd's.

In block x is the residual stream, a the attention branch, m the MLP branch; elsewhere x comes in and y goes out.
"""

import math
from functools import partial

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from numpy_gpt.checks import check_batch, check_finite, check_kv, check_model, check_noise, check_tokens, not_finite
from numpy_gpt.errors import GPTError
from numpy_gpt.generate.kv import one_row
from numpy_gpt.params import named, tree_map

from .noise import Noise
from .ops import attention, cross_entropy, dropout, embedding, gelu, layernorm, linear, unembedding

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def split_heads(x, H):                                                   # (B,T,C) -> (B,H,T,D)
    B, T, C = x.shape
    return x.reshape(B, T, H, C // H).swapaxes(1, 2)


def merge_heads(x):                                                      # (B,H,T,D) -> (B,T,C)
    B, H, T, D = x.shape
    return x.swapaxes(1, 2).reshape(B, T, H * D)


def split_qkv(qkv, H):                                                   # (B,T,3C) -> three of (B,H,T,D)
    qkv = split_heads(qkv, 3 * H)
    return qkv[:, :H], qkv[:, H : 2 * H], qkv[:, 2 * H :]


def attn(x, p, config, kv=None, noise=None):
    """Every position asks (q), offers itself (k) and has something to say (v)"""
    H = config.n_head
    qkv = linear(x, *p.c_attn)                                           # (B,T,3C)
    if kv is None:
        q, k, v = split_qkv(qkv, H)                                      # (B,H,T,D)
        y = attention(q, k, v, config.dropout, noise)                    # (B,H,T,D)
        y = merge_heads(y)                                               # (B,T,C)
    else:
        y = attend_to_past(qkv, H, kv)
    y = linear(y, *p.c_proj)                                             # (B,T,C)
    y = dropout(y, config.dropout, noise and noise.at(1))
    return y


def attend_to_past(qkv, H, kv):
    """qkv (1,R,3C), the new positions of every group in one row; kv: of each its KV and its rows -> y (1,R,C)"""
    ys = []
    for past, rows in kv:
        q, k, v = split_qkv(qkv[:, rows].reshape(len(past.k), -1, qkv.shape[-1]), H)     # (B,H,T,D)
        k, v = past.append(k, v)                                         # (B,H,S,D)
        y = attention(q, k, v, mask=past.mask)                           # (B,H,T,D)
        ys.append(merge_heads(y).reshape(1, -1, qkv.shape[-1] // 3))
    return torch.cat(ys, 1)


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


def checkpointed_block(x, p, config, kv=None, noise=None, run=None):
    """A block that saves its input alone and runs again in the backward"""
    return checkpoint(run or block, x, p, config, kv, noise, use_reentrant=False)


def gpt2(tokens, p, config, noise=None, checkpointing=False, run=None):
    """tokens (B,T) ints -> logits (B,T,V); what is sharded has something to run in place of block"""
    run = partial(checkpointed_block, run=run) if checkpointing else run or block
    x = embedding(tokens, p.wte, p.wpe)                                  # (B,T,C)
    x = dropout(x, config.dropout, noise)
    for i, p_i in enumerate(p.h):
        x = run(x, p_i, config, None, noise and noise.at(1 + 3 * i))
    x = layernorm(x, *p.ln_f)
    tied = p.head is None
    logits = unembedding(x, p.wte if tied else p.head.w)                 # (B,T,V)
    return logits


@torch.no_grad()
def gpt2_next(groups, p, config, kv):
    """groups of new tokens, each (B,T) ints and with its own kv -> logits (ΣB,V) after the last token of each sequence

    All of them stand in one row, R = Σ B T, and share the products with the weights.
    """
    check_kv(kv, groups, p)
    tokens, positions, rows, last = one_row(groups, [past[0].length for past in kv])
    tokens, positions = (torch.from_numpy(a).to(p.wte.device) for a in (tokens, positions))
    x = embedding(tokens, p.wte, p.wpe, positions)                       # (1,R,C)
    for p_i, *kv_i in zip(p.h, *kv, strict=True):
        x = block(x, p_i, config, list(zip(kv_i, rows, strict=True)))
    x = layernorm(x[:, last], *p.ln_f)                                   # (1,ΣB,C)
    logits = unembedding(x, p.wte if p.head is None else p.head.w)       # (1,ΣB,V)
    return logits[0]


@torch.no_grad()
def forward(m, tokens):
    """tokens (B,T) ints -> logits (B,T,V)"""
    check(m)
    tokens = check_tokens(on_cpu(tokens, "tokens"), m.config)
    logits = gpt2(on_device(tokens, m), m.params, m.config)
    check_finite("the output", logits, m.params, torch.isfinite)
    return logits


@torch.enable_grad()
def loss_and_grads(m, tokens, targets, noise=None, checkpointing=False):
    """tokens, targets (B,T) ints -> the mean cross-entropy, and its gradients as a tree like m.params"""
    check(m)
    tokens, targets = check_batch(on_cpu(tokens, "tokens"), on_cpu(targets, "targets"), m.config)
    check_noise(noise, Noise)
    params = tree_map(lambda a: a.detach().requires_grad_(), m.params)
    logits = gpt2(on_device(tokens, m), params, m.config, noise, checkpointing)
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
