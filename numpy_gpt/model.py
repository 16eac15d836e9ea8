"""GPT-2 from its operations: attn, mlp, block, gpt2. Each backward is its forward read from the bottom up.

In block x is the residual stream, a the attention branch, m the MLP branch; elsewhere x comes in and y goes out.
"""

from functools import partial

import numpy as np

from .checks import check_batch, check_finite, check_gradients, check_kv, check_model, check_noise, check_tokens, check_unused, no_overflow
from .ops import attention, attention_backward, cross_entropy, cross_entropy_backward, dropout, dropout_backward, embedding, embedding_backward, gelu, gelu_backward, layernorm, layernorm_backward, linear, linear_backward, unembedding, unembedding_backward
from .generate.kv import one_row
from .noise import Drawn, Noise
from .params import GPT2, MLP, Attn, Block, Head, LayerNorm, Linear
from .fast.threads import side_by_side

TILE = 64                                                                # queries


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
    qkv, s_c_attn = linear(x, *p.c_attn)                                 # (B,T,3C)
    if kv is None:
        q, k, v = split_qkv(qkv, H)                                      # (B,H,T,D)
        y, s_attention = attention_in_tiles(q, k, v, config.dropout, noise)
        y = merge_heads(y)                                               # (B,T,C)
    else:
        y, s_attention = attend_to_past(qkv, H, kv), None
    y, s_c_proj = linear(y, *p.c_proj)                                   # (B,T,C)
    y, s_dropout = dropout(y, config.dropout, noise and noise.at(1))
    return y, (s_c_attn, s_attention, s_c_proj, s_dropout, H)


def attend_to_past(qkv, H, kv):
    """qkv (1,R,3C), the new positions of every group in one row; kv: of each its KV and its rows -> y (1,R,C)"""
    ys = []
    for past, rows in kv:
        q, k, v = split_qkv(qkv[:, rows].reshape(len(past.k), -1, qkv.shape[-1]), H)     # (B,H,T,D)
        k, v = past.append(k, v)                                         # (B,H,S,D)
        y = np.concatenate(each_tile(lambda *qkv, noise: attention(*qkv)[0], q, k, v), 2)     # (B,H,T,D)
        ys.append(merge_heads(y).reshape(1, -1, qkv.shape[-1] // 3))
    return np.concatenate(ys, 1)


def each_tile(f, q, k, v, noise=None):
    """f of TILE queries at a time, which need no key after their last, and whose scores stay in the cache"""
    T, S = q.shape[2], k.shape[2]
    drawn = None if noise is None else noise.bytes((*q.shape[:3], S))    # one stream for all queries

    def tile(t):
        queries, keys = slice(t, t + TILE), slice(S - T + t + TILE)
        noise = None if drawn is None else Drawn(drawn[:, :, queries, keys])
        return f(q[:, :, queries], k[:, :, keys], v[:, :, keys], noise=noise)

    return side_by_side(tile, range(0, T, TILE))


def attention_in_tiles(q, k, v, rate=0.0, noise=None):
    """As attention, TILE queries at a time"""
    ys, tiles = zip(*each_tile(partial(attention, rate=rate), q, k, v, noise if rate else None), strict=True)
    return np.concatenate(ys, 2), (tiles, k, v)


def attention_in_tiles_backward(dy, saved):
    """Queries of many tiles see a key: what comes back to it from them is added"""
    tiles, k, v = saved
    d_tiles = side_by_side(
        lambda i: attention_backward(dy[:, :, i * TILE : (i + 1) * TILE], tiles[i]), range(len(tiles))
    )
    dk, dv = np.zeros_like(k), np.zeros_like(v)
    for _, dk_seen, dv_seen in d_tiles:
        dk[:, :, : dk_seen.shape[2]] += dk_seen
        dv[:, :, : dv_seen.shape[2]] += dv_seen
    return np.concatenate([dq for dq, _, _ in d_tiles], 2), dk, dv


def attn_backward(dy, saved):
    """Splitting heads and merging them only moves numbers: each is the other's backward"""
    s_c_attn, s_attention, s_c_proj, s_dropout, H = saved
    (dy,) = dropout_backward(dy, s_dropout)                              # (B,T,C)
    dy, *d_c_proj = linear_backward(dy, s_c_proj)                        # (B,T,C)
    dq, dk, dv = attention_in_tiles_backward(split_heads(dy, H), s_attention)     # (B,H,T,D)
    dqkv = merge_heads(np.concatenate([dq, dk, dv], 1))                  # (B,T,3C)
    dx, *d_c_attn = linear_backward(dqkv, s_c_attn)                      # (B,T,C)
    return dx, Attn(Linear(*d_c_attn), Linear(*d_c_proj))


def mlp(x, p, config, noise=None):
    """Four times as wide, bent, and back: what every position does by itself"""
    y, s_c_fc = linear(x, *p.c_fc)                                       # (B,T,4C)
    y, s_gelu = gelu(y)                                                  # (B,T,4C)
    y, s_c_proj = linear(y, *p.c_proj)                                   # (B,T,C)
    y, s_dropout = dropout(y, config.dropout, noise and noise.at(2))
    return y, (s_c_fc, s_gelu, s_c_proj, s_dropout)


def mlp_backward(dy, saved):
    """From the bottom up: narrow, bent, four times as wide"""
    s_c_fc, s_gelu, s_c_proj, s_dropout = saved
    (dy,) = dropout_backward(dy, s_dropout)                              # (B,T,C)
    dy, *d_c_proj = linear_backward(dy, s_c_proj)                        # (B,T,4C)
    (dy,) = gelu_backward(dy, s_gelu)                                    # (B,T,4C)
    dx, *d_c_fc = linear_backward(dy, s_c_fc)                            # (B,T,C)
    return dx, MLP(Linear(*d_c_fc), Linear(*d_c_proj))


def block(x, p, config, kv=None, noise=None):
    """x + attn(ln_1 x), then x + mlp(ln_2 x)"""
    a, s_ln_1 = layernorm(x, *p.ln_1)
    a, s_attn = attn(a, p.attn, config, kv, noise)
    x = x + a
    m, s_ln_2 = layernorm(x, *p.ln_2)
    m, s_mlp = mlp(m, p.mlp, config, noise)
    x = x + m
    return x, (s_ln_1, s_attn, s_ln_2, s_mlp)


def block_backward(dx, saved):
    """x feeds a branch and the sum, so what comes back from both is added"""
    s_ln_1, s_attn, s_ln_2, s_mlp = saved
    dm, d_mlp = mlp_backward(dx, s_mlp)
    dm, *d_ln_2 = layernorm_backward(dm, s_ln_2)
    dx = dx + dm
    da, d_attn = attn_backward(dx, s_attn)
    da, *d_ln_1 = layernorm_backward(da, s_ln_1)
    dx = dx + da
    return dx, Block(LayerNorm(*d_ln_1), d_attn, LayerNorm(*d_ln_2), d_mlp)


def checkpointed_block(x, p, config, kv=None, noise=None):
    """A block that saves its input alone ..."""
    y, _ = block(x, p, config, kv, noise)
    return y, (x, p, config, noise)


def checkpointed_block_backward(dx, saved):
    """... and runs again to have what its backward reads: one forward more, for a fraction of the memory"""
    x, p, config, noise = saved
    return block_backward(dx, block(x, p, config, None, noise)[1])


def gpt2(tokens, p, config, noise=None, checkpointing=False):
    """tokens (B,T) ints -> logits (B,T,V)"""
    run = checkpointed_block if checkpointing else block
    x, s_embedding = embedding(tokens, p.wte, p.wpe)                     # (B,T,C)
    x, s_dropout = dropout(x, config.dropout, noise)
    s_h = []
    for i, p_i in enumerate(p.h):
        x, s_i = run(x, p_i, config, None, noise and noise.at(1 + 3 * i))
        s_h.append(s_i)
    x, s_ln_f = layernorm(x, *p.ln_f)
    tied = p.head is None
    logits, s_head = unembedding(x, p.wte if tied else p.head.w)         # (B,T,V)
    return logits, (s_embedding, s_dropout, s_h, s_ln_f, s_head, tied, checkpointing)


def gpt2_backward(dlogits, saved):
    """A tied wte is the head's w as well: the embedding's gradient is added to dw

    What a block saved goes when its gradients come, for the sake of memory: saved serves once.
    """
    s_embedding, s_dropout, s_h, s_ln_f, s_head, tied, checkpointing = saved
    check_unused(s_h)
    dx, dw = unembedding_backward(dlogits, s_head)                       # (B,T,C), (V,C)
    dx, *d_ln_f = layernorm_backward(dx, s_ln_f)                         # (B,T,C)
    d_h: list[Block] = []
    while s_h:
        dx, d_i = (checkpointed_block_backward if checkpointing else block_backward)(dx, s_h.pop())
        d_h.insert(0, d_i)
    (dx,) = dropout_backward(dx, s_dropout)                              # (B,T,C)
    dwte, dwpe = embedding_backward(dx, s_embedding, out=dw if tied else None)
    return GPT2(dwte, dwpe, d_h, LayerNorm(*d_ln_f), None if tied else Head(dw))


def gpt2_next(groups, p, config, kv):
    """groups of new tokens, each (B,T) ints and with its own kv -> logits (ΣB,V) after the last token of each sequence

    All of them stand in one row, R = Σ B T, and share the products with the weights. Nothing is saved.
    """
    check_kv(kv, groups, p)
    tokens, positions, rows, last = one_row(groups, [past[0].length for past in kv])
    x, _ = embedding(tokens, p.wte, p.wpe, positions)                    # (1,R,C)
    for p_i, *kv_i in zip(p.h, *kv, strict=True):
        x = block(x, p_i, config, list(zip(kv_i, rows, strict=True)))[0]      # a name for saved would keep it
    x, _ = layernorm(x[:, last], *p.ln_f)                                # (1,ΣB,C)
    logits, _ = unembedding(x, p.wte if p.head is None else p.head.w)    # (1,ΣB,V)
    return logits[0]


def forward(m, tokens):
    """tokens (B,T) ints -> logits (B,T,V)"""
    check_model(m)
    tokens = check_tokens(tokens, m.config)
    with no_overflow("the output", m.params):
        logits, _ = gpt2(tokens, m.params, m.config, checkpointing=True)   # without a backward: keep little
    check_finite("the output", logits, m.params)
    return logits


def loss_and_grads(m, tokens, targets, noise=None, checkpointing=False):
    """tokens, targets (B,T) ints -> the mean cross-entropy, and its gradients as a tree like m.params"""
    check_model(m)
    tokens, targets = check_batch(tokens, targets, m.config)
    check_noise(noise, Noise)
    with no_overflow("the output", m.params):
        logits, s_gpt2 = gpt2(tokens, m.params, m.config, noise, checkpointing)
    check_finite("the output", logits, m.params)
    with no_overflow("the loss", m.params):
        loss, s_cross_entropy = cross_entropy(logits, targets)
    check_finite("the loss", loss, m.params)
    with no_overflow("the gradient", m.params):
        (dlogits,) = cross_entropy_backward(1.0, s_cross_entropy)
        del logits, s_cross_entropy                                      # each as large as dlogits
        grads = gpt2_backward(dlogits, s_gpt2)
    check_gradients(grads, m.params)
    return loss, grads
