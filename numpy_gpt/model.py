"""Build GPT-2 from its operations: attn, mlp, block, gpt2. Each backward reverses the lines of its forward.

x comes in and y goes out. In a block, x and mid are the residual stream, a is the attention branch, m the MLP branch.
"""

import numpy as np

from .errors import GPTError
from .fast.attention import attention, attention_backward
from .ops import (
    dropout, dropout_backward, embedding, embedding_backward, gelu, gelu_backward, layernorm, layernorm_backward,
    linear, linear_backward, unembedding, unembedding_backward,
)
from .params import GPT2, MLP, Attn, Block, Head, LayerNorm, Linear


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
    """Attend from each position to itself and to the positions before it

    When decoding, kv holds the keys and values of the positions before x, and kv.attend adds those of x.
    """
    qkv, s_c_attn = linear(x, *p.c_attn)                                 # (B,T,3C)
    if kv is None:
        q, k, v = split_qkv(qkv, config.n_head)                          # (B,H,T,D)
        heads, s_attention = attention(q, k, v, config.dropout, noise)   # (B,H,T,D)
        ctx = merge_heads(heads)                                         # (B,T,C)
    else:
        ctx, s_attention = kv.attend(qkv), None                          # (B,T,C)  decoding saves nothing
    out, s_c_proj = linear(ctx, *p.c_proj)                               # (B,T,C)
    y, s_dropout = dropout(out, config.dropout, noise and noise.at(1))   # (B,T,C)
    return y, (s_c_attn, s_attention, s_c_proj, s_dropout, config.n_head)


def attn_backward(dy, saved):
    """Return dx and the gradients of p; split_heads and merge_heads are each other's backward"""
    s_c_attn, s_attention, s_c_proj, s_dropout, H = saved
    (dout,) = dropout_backward(dy, s_dropout)                            # (B,T,C)
    dctx, *d_c_proj = linear_backward(dout, s_c_proj)                    # (B,T,C)
    dq, dk, dv = attention_backward(split_heads(dctx, H), s_attention)   # (B,H,T,D)
    dqkv = merge_heads(np.concatenate([dq, dk, dv], 1))                  # (B,T,3C)
    dx, *d_c_attn = linear_backward(dqkv, s_c_attn)                      # (B,T,C)
    return dx, Attn(Linear(*d_c_attn), Linear(*d_c_proj))


def mlp(x, p, config, noise=None):
    """Widen to 4 C, apply GELU and narrow to C, each position separately"""
    fc, s_c_fc = linear(x, *p.c_fc)                                      # (B,T,4C)
    act, s_gelu = gelu(fc)                                               # (B,T,4C)
    out, s_c_proj = linear(act, *p.c_proj)                               # (B,T,C)
    y, s_dropout = dropout(out, config.dropout, noise and noise.at(2))   # (B,T,C)
    return y, (s_c_fc, s_gelu, s_c_proj, s_dropout)


def mlp_backward(dy, saved):
    """Return dx and the gradients of p"""
    s_c_fc, s_gelu, s_c_proj, s_dropout = saved
    (dout,) = dropout_backward(dy, s_dropout)                            # (B,T,C)
    dact, *d_c_proj = linear_backward(dout, s_c_proj)                    # (B,T,4C)
    (dfc,) = gelu_backward(dact, s_gelu)                                 # (B,T,4C)
    dx, *d_c_fc = linear_backward(dfc, s_c_fc)                           # (B,T,C)
    return dx, MLP(Linear(*d_c_fc), Linear(*d_c_proj))


def block(x, p, config, kv=None, noise=None):
    """mid = x + attn(ln_1 x)                     y = mid + mlp(ln_2 mid)"""
    n_1, s_ln_1 = layernorm(x, *p.ln_1)                                  # (B,T,C)
    a, s_attn = attn(n_1, p.attn, config, kv, noise)                     # (B,T,C)
    mid = x + a                                                          # (B,T,C)
    n_2, s_ln_2 = layernorm(mid, *p.ln_2)                                # (B,T,C)
    m, s_mlp = mlp(n_2, p.mlp, config, noise)                            # (B,T,C)
    y = mid + m                                                          # (B,T,C)
    return y, (s_ln_1, s_attn, s_ln_2, s_mlp)


def block_backward(dy, saved):
    """Return dx and the gradients of p; x and mid each enter a branch and a sum, whose gradients are added"""
    s_ln_1, s_attn, s_ln_2, s_mlp = saved
    dn_2, d_mlp = mlp_backward(dy, s_mlp)                                # (B,T,C)
    dmid, *d_ln_2 = layernorm_backward(dn_2, s_ln_2)                     # (B,T,C)
    dmid += dy
    dn_1, d_attn = attn_backward(dmid, s_attn)                           # (B,T,C)
    dx, *d_ln_1 = layernorm_backward(dn_1, s_ln_1)                       # (B,T,C)
    dx += dmid
    return dx, Block(LayerNorm(*d_ln_1), d_attn, LayerNorm(*d_ln_2), d_mlp)


def recomputed_block(x, p, config, kv=None, noise=None):
    """Run block and save only its input, for a fraction of the memory"""
    y, _ = block(x, p, config, kv, noise)
    return y, (x, p, config, noise)


def recomputed_block_backward(dy, saved):
    """Recompute the values that block saves, then run its backward"""
    x, p, config, noise = saved
    return block_backward(dy, block(x, p, config, None, noise)[1])


def gpt2(tokens, p, config, noise=None, checkpointing=False, save=True):
    """Return the logits (B,T,V) of tokens (B,T)

    If checkpointing is True, each block saves only its input, and its backward recomputes the rest. If save is False,
    blocks save nothing.
    """
    run = recomputed_block if checkpointing else block
    emb, s_embedding = embedding(tokens, p.wte, p.wpe)                   # (B,T,C)
    x, s_dropout = dropout(emb, config.dropout, noise)                   # (B,T,C)
    s_h = []
    for i, p_i in enumerate(p.h):
        x, s_i = run(x, p_i, config, None, noise and noise.at(1 + 3 * i))
        s_h.append(s_i if save else None)
        del s_i                                                          # or it would keep a block's values alive
    n, s_ln_f = layernorm(x, *p.ln_f)                                    # (B,T,C)
    tied = p.head is None
    logits, s_head = unembedding(n, p.wte if tied else p.head.w)         # (B,T,V)
    return logits, (s_embedding, s_dropout, s_h, s_ln_f, s_head, tied, checkpointing)


def gpt2_backward(dlogits, saved):
    """Return the gradients of p, a tree of the same types

    A tied wte is also the head's w, so the embedding's gradient is added to dw. To free memory, the values of a block
    are removed from saved after its backward. So gpt2_backward can run only once for each forward.
    """
    s_embedding, s_dropout, s_h, s_ln_f, s_head, tied, checkpointing = saved
    if not s_h:
        raise GPTError("gpt2_backward has already freed the values that gpt2 saved: run gpt2 again.")
    dn, dw = unembedding_backward(dlogits, s_head)                       # (B,T,C), (V,C)
    dx, *d_ln_f = layernorm_backward(dn, s_ln_f)                         # (B,T,C)
    d_h: list[Block] = []
    while s_h:
        dx, d_i = (recomputed_block_backward if checkpointing else block_backward)(dx, s_h.pop())
        d_h.insert(0, d_i)
    (demb,) = dropout_backward(dx, s_dropout)                            # (B,T,C)
    dwte, dwpe = embedding_backward(demb, s_embedding, out=dw if tied else None)
    return GPT2(dwte, dwpe, d_h, LayerNorm(*d_ln_f), None if tied else Head(dw))
