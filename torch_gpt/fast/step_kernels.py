"""Compute a decoding step by hand-written Triton kernels: for one sequence, five for each block.

A step has one new token per sequence, so it reads every weight once and does little arithmetic. Its time is that of
the reads, plus about 2 µs for each kernel. So layernorm, biases, gelu and the residual sums are parts of the kernels
that read the weights, and one kernel stores keys and values and attends.

R sequences   C width   I, O in and out   H heads   D = C/H   N context   V vocabulary
"""

import math

import torch
import triton
import triton.language as tl

SQRT_2_OVER_PI = tl.constexpr(math.sqrt(2 / math.pi))
FEWEST = 16  # rows of tl.dot
BLOCK_N = 128  # positions that attend_kernel reads at once
PROGRAMS = 256  # that a GPU runs at once: for fewer, attend_kernel splits the positions into spans


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
def layernorm(x, i, g, s, I: tl.constexpr):
    """y = (x - mean x) / sqrt(var x + eps) g + s       for x (WIDTH,), of which the first I numbers count"""
    mean = tl.sum(x) / I
    centred = tl.where(i < I, x - mean, 0)
    rstd = reciprocal_deviation(tl.sum(centred * centred) / I)
    return centred * rstd * tl.load(g + i, i < I, 0).to(x.dtype) + tl.load(s + i, i < I, 0).to(x.dtype)


@triton.jit
def layernorm_kernel(x, g, s, y, I: tl.constexpr, WIDTH: tl.constexpr, SUM: tl.constexpr):
    """y = layernorm(x)                           for row r"""
    r = tl.program_id(0)
    i = tl.arange(0, WIDTH)
    row = tl.load(x + r * I + i, i < I, 0).to(SUM)
    tl.store(y + r * I + i, layernorm(row, i, g, s, I), i < I)


@triton.jit
def row_linear_kernel(
    x, g, s, w, b, residual, y,
    O, w_row, w_column,
    I: tl.constexpr, GELU: tl.constexpr, SUM: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    """y = gelu(layernorm(x) w + b) + residual    for row r and BLOCK_O columns; g, s, b and residual may be None

    With layernorm, BLOCK_I is at least I. Then all weights are on their way while the mean and the variance are
    computed.
    """
    o = tl.program_id(0) * BLOCK_O + tl.arange(0, BLOCK_O)
    r = tl.program_id(1)
    products = tl.zeros((BLOCK_I, BLOCK_O), SUM)
    for start in tl.static_range(0, I, BLOCK_I):
        i = start + tl.arange(0, BLOCK_I)
        inside = (i < I)[:, None] & (o < O)[None, :]
        tile = tl.load(w + i[:, None] * w_row + o[None, :] * w_column, inside, 0)  # (BLOCK_I,BLOCK_O)
        n = tl.load(x + r * I + i, i < I, 0).to(SUM)  # (BLOCK_I,)
        if g is not None:
            n = layernorm(n, i, g, s, I)
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
    x, w, b, residual, y,
    R, O, w_row, w_column,
    I: tl.constexpr, GELU: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    """y = gelu(x w + b) + residual               for BLOCK_R rows and BLOCK_O columns, with sums in float32"""
    o = tl.program_id(0) * BLOCK_O + tl.arange(0, BLOCK_O)
    r = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
    sums = tl.zeros((BLOCK_R, BLOCK_O), tl.float32)
    for start in range(0, I, BLOCK_I):
        i = start + tl.arange(0, BLOCK_I)
        inside = (i < I)[:, None] & (o < O)[None, :]
        tile = tl.load(w + i[:, None] * w_row + o[None, :] * w_column, inside, 0)  # (BLOCK_I,BLOCK_O)
        rows = tl.load(x + r[:, None] * I + i, (r < R)[:, None] & (i < I), 0)  # (BLOCK_R,BLOCK_I)
        sums = tl.dot(rows, tile, sums, input_precision="ieee")
    if b is not None:
        sums += tl.load(b + o, o < O, 0).to(tl.float32)
    if GELU:
        sums = gelu(sums)
    offset = r[:, None] * O + o
    inside = (r < R)[:, None] & (o < O)
    if residual is not None:
        sums += tl.load(residual + offset, inside, 0).to(tl.float32)
    tl.store(y + offset, sums, inside)


@triton.jit
def attend_kernel(
    qkv, k, v, positions, ctx, values, largest, total, N,
    C: tl.constexpr, D: tl.constexpr, SCALE: tl.constexpr, SPAN: tl.constexpr,
    WIDTH: tl.constexpr, BLOCK_N: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """Store the key and value of sequence r and head h at its position, and attend to positions j SPAN to (j + 1) SPAN

    The largest score, the sum of exp(score - largest) and the weighted values are updated block by block. If there is
    only one span, values / total goes to ctx. Else combine_kernel reads all three of each span. Span 0 also attends to
    the new position.
    """
    r, h, j = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    d = tl.arange(0, WIDTH)
    position = tl.load(positions + r)
    new = qkv + r * 3 * C + h * D + d
    q = tl.load(new, d < D, 0).to(SUM) * SCALE  # (D,)
    head = r * (C // D) + h
    k += head * N * D
    v += head * N * D
    if j == 0:
        new_k, new_v = tl.load(new + C, d < D, 0), tl.load(new + 2 * C, d < D, 0)
        tl.store(k + position * D + d, new_k, d < D)
        tl.store(v + position * D + d, new_v, d < D)
        m = tl.sum(q * new_k.to(SUM))
        l = tl.sum(tl.where(d == 0, 1, 0).to(SUM))  # 1 in the dtype SUM
        y = new_v.to(SUM)  # (D,)
    else:
        m = tl.sum(q) * 0 - float("inf")
        l = tl.sum(q) * 0
        y = q * 0
    for start in range(j * SPAN, tl.minimum((j + 1) * SPAN, position), BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        past = n[:, None] * D + d
        inside = (n < position)[:, None] & (d < D)
        scores = tl.sum(q * tl.load(k + past, inside, 0).to(SUM), 1)  # (BLOCK_N,)
        scores = tl.where(n < position, scores, -float("inf"))
        larger = tl.maximum(m, tl.max(scores))
        weights = tl.exp(scores - larger)  # (BLOCK_N,)
        correction = tl.exp(m - larger)
        l = l * correction + tl.sum(weights)
        y = y * correction + tl.sum(weights[:, None] * tl.load(v + past, inside, 0).to(SUM), 0)
        m = larger
    if tl.num_programs(2) == 1:
        tl.store(ctx + r * C + h * D + d, y / l, d < D)
    else:
        part = head * tl.num_programs(2) + j
        tl.store(values + part * D + d, y, d < D)
        tl.store(largest + part, m)
        tl.store(total + part, l)


@triton.jit
def combine_kernel(
    ctx, values, largest, total, J, C: tl.constexpr, D: tl.constexpr, SPANS: tl.constexpr, WIDTH: tl.constexpr
):
    """Combine what the J spans of attend_kernel found for sequence r and head h"""
    r, h = tl.program_id(0), tl.program_id(1)
    head = r * (C // D) + h
    d, j = tl.arange(0, WIDTH), tl.arange(0, SPANS)
    m = tl.load(largest + head * J + j, j < J, -float("inf"))  # (J,)
    weights = tl.exp(m - tl.max(m))
    l = tl.sum(weights * tl.load(total + head * J + j, j < J, 0))
    y = tl.load(values + (head * J + j[:, None]) * D + d, (j < J)[:, None] & (d < D), 0)  # (J,D)
    tl.store(ctx + r * C + h * D + d, tl.sum(weights[:, None] * y, 0) / l, d < D)


def embedding(tokens, positions, wte, wpe):
    """Return x (R,C) of tokens (R,) at positions (R,)"""
    R, C = len(tokens), wte.shape[1]
    x = wte.new_empty(R, C)
    width = triton.next_power_of_2(C)
    embedding_kernel[R,](tokens, positions, wte, wpe, x, C, *wte.stride(), *wpe.stride(), width, sums(x.dtype))
    return x


def linear(x, w, b=None, *, norm=None, residual=None, gelu=False, out=None):
    """Return gelu(layernorm(x) w + b) + residual (R,O) for x (R,I) and w (I,O), whose strides are free

    norm: the gain and shift of layernorm. Without norm, b, residual or gelu, that part is left out. The result is
    written to out, if it is given.
    """
    (R, I), O = x.shape, w.shape[1]
    y = x.new_empty(R, O) if out is None else out
    width = triton.next_power_of_2(I)
    columns = 32 if 2048 <= O <= 8192 else 16  # the fastest tiles for the 124M on an H200, as are those below
    if R == 1 or x.dtype == torch.float64:
        row_linear_kernel[triton.cdiv(O, columns), R](
            x, *norm or (None, None), w, b, residual, y, O, *w.stride(),
            I, gelu, sums(x.dtype), width if norm else min(1024, width), columns, num_warps=8,
        )  # fmt: skip
        return y
    if norm:
        n = torch.empty_like(x)
        layernorm_kernel[R,](x, *norm, n, I, width, sums(x.dtype))
        x = n
    rows = min(64, max(FEWEST, triton.next_power_of_2(R)))
    columns, block = (64, 64) if O > 8192 else (columns, 128)
    rows_linear_kernel[triton.cdiv(O, columns), triton.cdiv(R, rows)](
        x, w, b, residual, y, R, O, *w.stride(), I, gelu, rows, block, columns, num_warps=4, num_stages=4
    )  # fmt: skip
    return y


def attend(qkv, k, v, positions):
    """Store the new keys and values of qkv (R,3C) in k, v (R,H,N,D) at positions (R,), and return ctx (R,C)"""
    R, H, N, D = k.shape
    J = min(triton.cdiv(N, 2 * BLOCK_N), max(1, PROGRAMS // (R * H)))  # spans
    span = triton.cdiv(triton.cdiv(N, J), BLOCK_N) * BLOCK_N
    ctx = qkv.new_empty(R, H * D)
    dtype = torch.promote_types(qkv.dtype, torch.float32)
    values = qkv.new_empty(R, H, J, D, dtype=dtype)
    largest, total = qkv.new_empty(2, R, H, J, dtype=dtype)
    width = triton.next_power_of_2(D)
    attend_kernel[R, H, J](
        qkv, k, v, positions, ctx, values, largest, total, N,
        H * D, D, 1 / math.sqrt(D), span, width, BLOCK_N, sums(qkv.dtype), num_warps=8,
    )  # fmt: skip
    if J > 1:
        combine_kernel[R, H](ctx, values, largest, total, J, H * D, D, triton.next_power_of_2(J), width)
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
