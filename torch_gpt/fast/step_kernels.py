"""Compute a decoding step by hand-written Triton kernels: five for each block.

A step has one new token per sequence, so it reads every weight once and does little arithmetic. Its time is that of
the reads, plus about 2 us for each kernel. So layernorm, biases, gelu and the residual sums are parts of the kernels
that read the weights, and one kernel stores keys and values and attends.

R sequences   C width   I, O in and out   H heads   D = C/H   N context   V vocabulary
"""

import math

import torch
import triton
import triton.language as tl

SQRT_2_OVER_PI = tl.constexpr(math.sqrt(2 / math.pi))
TILE = 16  # the fewest rows of tl.dot


@triton.jit
def embedding_kernel(
    tokens, positions, wte, wpe, x, C, wte_row, wte_column, wpe_row, wpe_column, WIDTH: tl.constexpr, SUM: tl.constexpr
):
    """x = wte[token] + wpe[position]             for sequence r"""
    r = tl.program_id(0)
    c = tl.arange(0, WIDTH)
    token = tl.maximum(tl.load(tokens + r), 0)  # -1: its logits weren't finite, and the host is about to raise an error
    position = tl.load(positions + r)
    of_token = tl.load(wte + token * wte_row + c * wte_column, c < C)
    of_position = tl.load(wpe + position * wpe_row + c * wpe_column, c < C)
    tl.store(x + r * C + c, of_token.to(SUM) + of_position.to(SUM), c < C)


@triton.jit
def gelu(x):
    """y = x/2 (1 + tanh u) = x / (1 + exp(-2u))"""
    u = SQRT_2_OVER_PI * (x + 0.044715 * x * x * x)
    return x / (1 + tl.exp(-2 * u))


@triton.jit
def reciprocal_deviation(variance):
    """1 / sqrt(variance + eps), or NaN if the variance overflows"""
    rstd = 1 / tl.sqrt(variance + 1e-5)
    return tl.where(rstd == 0, float("nan"), rstd)


@triton.jit
def row_linear_kernel(
    x, g, s, w, b, residual, y,
    O, w_row, w_column,
    I: tl.constexpr, WIDTH: tl.constexpr, GELU: tl.constexpr, SUM: tl.constexpr,
    BLOCK_I: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    """y = gelu(layernorm(x) w + b) + residual    for row r and BLOCK_O columns; g, s, b and residual may be None"""
    o = tl.program_id(0) * BLOCK_O + tl.arange(0, BLOCK_O)
    r = tl.program_id(1)
    x += r * I
    if g is not None:
        whole = tl.arange(0, WIDTH)
        row = tl.load(x + whole, whole < I, 0).to(SUM)
        mean = tl.sum(row) / I
        centred = tl.where(whole < I, row - mean, 0)
        rstd = reciprocal_deviation(tl.sum(centred * centred) / I)
    products = tl.zeros((BLOCK_I, BLOCK_O), SUM)
    for start in tl.static_range(0, I, BLOCK_I):
        i = start + tl.arange(0, BLOCK_I)
        tile = tl.load(
            w + i[:, None] * w_row + o[None, :] * w_column, (i < I)[:, None] & (o < O)[None, :], 0
        )  # (BLOCK_I,BLOCK_O)
        n = tl.load(x + i, i < I, 0).to(SUM)  # (BLOCK_I,)
        if g is not None:
            n = (n - mean) * rstd * tl.load(g + i, i < I, 0).to(SUM) + tl.load(s + i, i < I, 0).to(SUM)
        products += n[:, None] * tile.to(SUM)
    total = tl.sum(products, 0)  # (BLOCK_O,)
    if b is not None:
        total += tl.load(b + o, o < O, 0).to(SUM)
    if GELU:
        total = gelu(total)
    if residual is not None:
        total += tl.load(residual + r * O + o, o < O, 0).to(SUM)
    tl.store(y + r * O + o, total, o < O)


@triton.jit
def rows_linear_kernel(
    x, g, s, w, b, residual, y,
    R, O, w_row, w_column,
    I: tl.constexpr, GELU: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    """Compute row_linear_kernel's y for BLOCK_R rows by matmuls of tiles, with sums in float32"""
    o = tl.program_id(0) * BLOCK_O + tl.arange(0, BLOCK_O)
    r = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
    x += r[:, None] * I
    inside = (r < R)[:, None]
    if g is not None:
        total = tl.zeros((BLOCK_R,), tl.float32)
        for start in range(0, I, BLOCK_I):
            i = start + tl.arange(0, BLOCK_I)
            total += tl.sum(tl.load(x + i, inside & (i < I), 0).to(tl.float32), 1)
        mean = (total / I)[:, None]  # (BLOCK_R,1)
        total = tl.zeros((BLOCK_R,), tl.float32)
        for start in range(0, I, BLOCK_I):
            i = start + tl.arange(0, BLOCK_I)
            centred = tl.where(i < I, tl.load(x + i, inside & (i < I), 0).to(tl.float32) - mean, 0)
            total += tl.sum(centred * centred, 1)
        rstd = reciprocal_deviation(total / I)[:, None]  # (BLOCK_R,1)
    sums = tl.zeros((BLOCK_R, BLOCK_O), tl.float32)
    for start in range(0, I, BLOCK_I):
        i = start + tl.arange(0, BLOCK_I)
        tile = tl.load(
            w + i[:, None] * w_row + o[None, :] * w_column, (i < I)[:, None] & (o < O)[None, :], 0
        )  # (BLOCK_I,BLOCK_O)
        n = tl.load(x + i, inside & (i < I), 0)  # (BLOCK_R,BLOCK_I)
        if g is not None:
            gain, shift = tl.load(g + i, i < I, 0).to(tl.float32), tl.load(s + i, i < I, 0).to(tl.float32)
            n = (n.to(tl.float32) - mean) * rstd * gain + shift
        sums = tl.dot(n.to(tile.dtype), tile, sums, input_precision="ieee")
    if b is not None:
        sums += tl.load(b + o, o < O, 0).to(tl.float32)
    if GELU:
        sums = gelu(sums)
    y_offset = r[:, None] * O + o
    inside &= o < O
    if residual is not None:
        sums += tl.load(residual + y_offset, inside, 0).to(tl.float32)
    tl.store(y + y_offset, sums, inside)


@triton.jit
def attend_kernel(
    qkv, k, v, positions, ctx, N,
    C: tl.constexpr, D: tl.constexpr, SCALE: tl.constexpr,
    WIDTH: tl.constexpr, BLOCK_N: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """Store the key and value of sequence r and head h at its position, and attend to all positions up to it

    The largest score, the sum of exp(score - largest) and the weighted values are updated block by block.
    """
    r = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1)
    d = tl.arange(0, WIDTH)
    position = tl.load(positions + r)
    new = qkv + r * 3 * C + h * D + d
    q = tl.load(new, d < D, 0).to(SUM) * SCALE  # (D,)
    new_k = tl.load(new + C, d < D, 0)
    new_v = tl.load(new + 2 * C, d < D, 0)
    rows = (r * (C // D) + h) * N * D
    tl.store(k + rows + position * D + d, new_k, d < D)
    tl.store(v + rows + position * D + d, new_v, d < D)
    largest = tl.sum(q * new_k.to(SUM))
    total = tl.sum(tl.where(d == 0, 1.0, 0.0).to(SUM))  # 1, in the dtype SUM
    values = new_v.to(SUM)  # (D,)
    for start in range(0, position, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        past = rows + n[:, None] * D + d
        inside = (n < position)[:, None] & (d < D)
        scores = tl.sum(q * tl.load(k + past, inside, 0).to(SUM), 1)  # (BLOCK_N,)
        scores = tl.where(n < position, scores, -float("inf"))
        larger = tl.maximum(largest, tl.max(scores))
        weights = tl.exp(scores - larger)  # (BLOCK_N,)
        correction = tl.exp(largest - larger)
        total = total * correction + tl.sum(weights)
        values = values * correction + tl.sum(weights[:, None] * tl.load(v + past, inside, 0).to(SUM), 0)
        largest = larger
    tl.store(ctx + r * C + h * D + d, values / total, d < D)


def embedding(tokens, positions, wte, wpe):
    """Return x (R,C) of tokens (R,) at positions (R,)"""
    R, C = len(tokens), wte.shape[1]
    x = wte.new_empty(R, C)
    width = triton.next_power_of_2(C)
    embedding_kernel[R,](tokens, positions, wte, wpe, x, C, *wte.stride(), *wpe.stride(), width, sums(x.dtype))
    return x


def linear(x, w, b=None, norm=(None, None), residual=None, gelu=False, out=None):
    """Return gelu(layernorm(x) w + b) + residual (R,O) for x (R,I) and w (I,O), whose strides are free

    norm: the gain and shift of layernorm. Without norm, b, residual or gelu, that part is left out. The result is
    written to out, if it is given.
    """
    (R, I), O = x.shape, w.shape[1]
    y = x.new_empty(R, O) if out is None else out
    if R > 1 and x.dtype != torch.float64:
        rows = min(64, max(TILE, triton.next_power_of_2(R)))
        columns = 64 if O > 8192 else 16
        grid = triton.cdiv(O, columns), triton.cdiv(R, rows)
        rows_linear_kernel[grid](
            x, *norm, w, b, residual, y, R, O, *w.stride(), I, gelu, rows, 128, columns, num_warps=4, num_stages=4
        )  # fmt: skip
    else:
        grid = triton.cdiv(O, 16), R
        rows_at_once = min(256, triton.next_power_of_2(I))
        row_linear_kernel[grid](
            x, *norm, w, b, residual, y, O, *w.stride(),
            I, triton.next_power_of_2(I), gelu, sums(x.dtype), rows_at_once, 16, num_warps=4,
        )  # fmt: skip
    return y


def attend(qkv, k, v, positions):
    """Store the new keys and values of qkv (R,3C) in k, v (R,H,N,D) at positions (R,), and return ctx (R,C)"""
    R, H, N, D = k.shape
    ctx = qkv.new_empty(R, H * D)
    attend_kernel[R, H](
        qkv, k, v, positions, ctx, N,
        H * D, D, 1 / math.sqrt(D), triton.next_power_of_2(D), 64, sums(qkv.dtype), num_warps=4,
    )  # fmt: skip
    return ctx


def sums(dtype):
    """Return the dtype in which the kernels add numbers of a dtype"""
    return tl.float64 if dtype == torch.float64 else tl.float32


def next_logits(p, kv, positions, tokens, logits):
    """Write the logits (R,V) after one new token per sequence; positions, tokens (R,)"""
    x = embedding(tokens, positions, p.wte, p.wpe)  # (R,C)
    for p_i, kv_i in zip(p.h, kv, strict=True):
        qkv = linear(x, *p_i.attn.c_attn, norm=p_i.ln_1)  # (R,3C)
        ctx = attend(qkv, kv_i.k, kv_i.v, positions)  # (R,C)
        mid = linear(ctx, *p_i.attn.c_proj, residual=x)  # (R,C)
        act = linear(mid, *p_i.mlp.c_fc, norm=p_i.ln_2, gelu=True)  # (R,4C)
        x = linear(act, *p_i.mlp.c_proj, residual=mid)  # (R,C)
    w = p.wte if p.head is None else p.head.w
    linear(x, w.mT, norm=p.ln_f, out=logits)  # (R,V)
