"""Build GPT-2 from its operations: attn, mlp, block, gpt2. Autograd computes the backward.

x comes in and y goes out. In a block, x and mid are the residual stream, a is the attention branch, m the MLP branch.
"""

from functools import partial

from torch.utils.checkpoint import checkpoint

from .ops import attention, dropout, embedding, gelu, layernorm, linear, unembedding


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
    qkv = linear(x, *p.c_attn)                                           # (B,T,3C)
    if kv is None:
        q, k, v = split_qkv(qkv, config.n_head)                          # (B,H,T,D)
        heads = attention(q, k, v, config.dropout, noise)                # (B,H,T,D)
        ctx = merge_heads(heads)                                         # (B,T,C)
    else:
        ctx = kv.attend(qkv)                                             # (B,T,C)
    out = linear(ctx, *p.c_proj)                                         # (B,T,C)
    y = dropout(out, config.dropout, noise and noise.at(1))              # (B,T,C)
    return y


def mlp(x, p, config, noise=None):
    """Widen to 4 C, apply GELU and narrow to C, each position separately"""
    fc = linear(x, *p.c_fc)                                              # (B,T,4C)
    act = gelu(fc)                                                       # (B,T,4C)
    out = linear(act, *p.c_proj)                                         # (B,T,C)
    y = dropout(out, config.dropout, noise and noise.at(2))              # (B,T,C)
    return y


def block(x, p, config, kv=None, noise=None):
    """mid = x + attn(ln_1 x)                     y = mid + mlp(ln_2 mid)"""
    n_1 = layernorm(x, *p.ln_1)                                          # (B,T,C)
    a = attn(n_1, p.attn, config, kv, noise)                             # (B,T,C)
    mid = x + a                                                          # (B,T,C)
    n_2 = layernorm(mid, *p.ln_2)                                        # (B,T,C)
    m = mlp(n_2, p.mlp, config, noise)                                   # (B,T,C)
    y = mid + m                                                          # (B,T,C)
    return y


def recomputed_block(x, p, config, kv=None, noise=None, run=None):
    """Run block and save only its input, for a fraction of the memory; the backward recomputes the rest"""
    run = partial(run or block, config=config, kv=kv, noise=noise)       # checkpoint takes apart every tuple it gets
    return checkpoint(run, x, p, use_reentrant=False)


def gpt2(tokens, p, config, noise=None, checkpointing=False, run=None, head=None):
    """Return the logits (B,T,V) of tokens (B,T)

    If checkpointing is True, each block saves only its input, and its backward recomputes the rest. Training passes run
    and head to replace block and unembedding.
    """
    run = partial(recomputed_block, run=run) if checkpointing else run or block
    emb = embedding(tokens, p.wte, p.wpe)                                # (B,T,C)
    x = dropout(emb, config.dropout, noise)                              # (B,T,C)
    for i, p_i in enumerate(p.h):
        x = run(x, p_i, config, None, noise and noise.at(1 + 3 * i))
    n = layernorm(x, *p.ln_f)                                            # (B,T,C)
    tied = p.head is None
    logits = (head or unembedding)(n, p.wte if tied else p.head.w)       # (B,T,V)
    return logits
