"""Draw tokens by hand-written Triton kernels, without a sort; the tokens are those of generate/sampling.py.

Top-k and top-p keep the first ids in the order of their logits, in which a tie goes to the lower id. cut_kernel finds
the last kept id by bisection: the bits of its logit first, then those of the id. draw_kernel adds Gumbel noise to the
kept logits and finds the best id in each chunk of the vocabulary. best_kernel finds the best of the chunks.

R sequences   V vocabulary   J chunks of it
"""

import torch
import triton
import triton.language as tl

CHUNK = 1024  # ids of a program of draw_kernel
COLDEST = tl.constexpr(1e-30)  # at lower temperatures only the best ids have a probability above 0, as at this one


@triton.jit
def place(x, ZEROS: tl.constexpr):
    """Return an int64 for each float32, in the same order; ZEROS is the number of low bits that are always 0"""
    bits = tl.where(x == 0, 0.0, x).to(tl.int32, bitcast=True)  # -0 equals 0
    return (tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits) >> ZEROS).to(tl.int64)


@triton.jit
def amount(
    row, V, first, last, highest_id, best, t,
    COUNT: tl.constexpr, ZEROS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Return the number of ids up to highest_id whose place is first to last, or their probability

    The probability is relative to that of the best id, at temperature t.
    """
    sums = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, V, BLOCK):
        i = start + tl.arange(0, BLOCK)
        x = tl.load(row + i, i < V, 0).to(tl.float32)
        at = place(x, ZEROS)
        inside = (i < V) & (i <= highest_id) & (at >= first) & (at <= last)
        sums += tl.where(inside, 1.0 if COUNT else tl.exp((x - best) / t), 0.0)
    return tl.sum(sums)


@triton.jit
def place_that_holds(
    target, row, V, best, t,
    COUNT: tl.constexpr, BITS: tl.constexpr, ZEROS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Return the highest place for which the ids there and at higher places amount to the target"""
    top = tl.full((), 1, tl.int64) << (BITS - 1)
    found = -top
    for bit in range(BITS):
        higher = found + (top >> bit)
        held = amount(row, V, higher, top, V, best, t, COUNT, ZEROS, BLOCK)
        found = tl.where(held >= target, higher, found)
    return found


@triton.jit
def id_that_holds(
    target, row, V, at, best, t,
    ID_BITS: tl.constexpr, ZEROS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Return the lowest id such that `target` ids up to it are at a place"""
    below = -1
    for bit in range(ID_BITS):
        higher = below + (1 << (ID_BITS - 1 - bit))
        below = tl.where(amount(row, V, at, at, higher, best, t, True, ZEROS, BLOCK) < target, higher, below)
    return below + 1


@triton.jit
def cut_kernel(
    logits, stride, cuts, best, last_place, last_id, V,
    CUT: tl.constexpr, BITS: tl.constexpr, ZEROS: tl.constexpr, ID_BITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Find the largest logit of sequence r, and with CUT the place and the id of the last id that top-k and top-p keep

    cuts: temperature, k and top_p. k is at most V.
    """
    r = tl.program_id(0)
    row = logits + r.to(tl.int64) * stride
    largest = tl.full((BLOCK,), -float("inf"), tl.float32)
    for start in range(0, V, BLOCK):
        i = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.load(row + i, i < V, -float("inf")).to(tl.float32))
    z = tl.max(largest)
    tl.store(best + r, z)
    if CUT:
        t = tl.maximum(tl.load(cuts), COLDEST).to(tl.float32)
        k = tl.load(cuts + 1)
        top_p = tl.load(cuts + 2)
        end = tl.full((), 1, tl.int64) << BITS  # above all places
        at = place_that_holds(k, row, V, z, t, True, BITS, ZEROS, BLOCK)
        needed = k - amount(row, V, at + 1, end, V, z, t, True, ZEROS, BLOCK)  # of the ids at this place
        if top_p < 1:
            above = amount(row, V, at + 1, end, V, z, t, False, ZEROS, BLOCK)
            number = amount(row, V, at, at, V, z, t, True, ZEROS, BLOCK)
            one = amount(row, V, at, at, V, z, t, False, ZEROS, BLOCK) / number
            target = tl.maximum(top_p * (above + needed * one), COLDEST)  # the best id is kept even if top_p is 0
            at = place_that_holds(target, row, V, z, t, False, BITS, ZEROS, BLOCK)
            above = amount(row, V, at + 1, end, V, z, t, False, ZEROS, BLOCK)
            number = amount(row, V, at, at, V, z, t, True, ZEROS, BLOCK)
            one = amount(row, V, at, at, V, z, t, False, ZEROS, BLOCK) / number
            needed = tl.maximum(tl.ceil((target - above) / one), 1)
        tl.store(last_place + r, at)
        tl.store(last_id + r, id_that_holds(needed, row, V, at, z, t, ID_BITS, ZEROS, BLOCK))


@triton.jit
def gumbel(seed, block, step, sample, CHUNK: tl.constexpr):
    """Return g = -log(-log u) for CHUNK ids, float64: numpy_gpt.noise.uniform gives the same u"""
    zero = tl.zeros_like(block)
    a, b, c, d = tl.philox(seed, block, zero + step, zero + sample, zero)  # words of four ids each
    words = tl.join(tl.join(a, c), tl.join(b, d)).reshape(CHUNK)
    u = (words.to(tl.float64) + 0.5) * 2.0**-32
    return -tl.log(-tl.log(u))


@triton.jit
def draw_kernel(
    logits, stride, cuts, keys, number, best, last_place, last_id, values, ids, V,
    DRAW: tl.constexpr, CUT: tl.constexpr, ZEROS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Find the best id of chunk j for sequence r, with Gumbel noise if DRAW; -1 if a logit isn't finite

    keys: the lower and the upper word of the seed, and the sample's number. number: that of the step.
    """
    r, j = tl.program_id(0), tl.program_id(1)
    i = j * CHUNK + tl.arange(0, CHUNK)
    x = tl.load(logits + r.to(tl.int64) * stride + i, i < V, 0).to(tl.float32)
    z = x.to(tl.float64)
    if DRAW:
        z = (z - tl.load(best + r)) / tl.load(cuts)
        seed = tl.load(keys + 3 * r + 1) << 32 | tl.load(keys + 3 * r)
        block = (j * (CHUNK // 4) + tl.arange(0, CHUNK // 4)).to(tl.uint32)
        step, sample = tl.load(number).to(tl.uint32), tl.load(keys + 3 * r + 2).to(tl.uint32)
        z += gumbel(seed, block, step, sample, CHUNK)
    if CUT:
        at, last = place(x, ZEROS), tl.load(last_place + r)
        kept = (at > last) | ((at == last) & (i <= tl.load(last_id + r)))
        z = tl.where(kept, z, -float("inf"))
    value, index = tl.max(tl.where(i < V, z, -float("inf")), 0, return_indices=True)  # a tie goes to the lower id
    wrong = tl.max((x - x != 0).to(tl.int32), 0) > 0
    chunk = r * tl.num_programs(1) + j
    tl.store(values + chunk, tl.where(wrong, float("inf"), value))
    tl.store(ids + chunk, tl.where(wrong, -1, j * CHUNK + index))


@triton.jit
def best_kernel(values, ids, tokens, J, WIDTH: tl.constexpr):
    """Store the best id of the J chunks of sequence r in tokens"""
    r = tl.program_id(0)
    j = tl.arange(0, WIDTH)
    _, index = tl.max(tl.load(values + r * J + j, j < J, -float("inf")), 0, return_indices=True)
    tl.store(tokens + r, tl.load(ids + r * J + index))


def sample(logits, draw, cut, cuts, keys, number, tokens):
    """Draw a token of each sequence from logits (R,V), which may be rows of a wider array, into tokens (R,)

    draw: whether to add Gumbel noise; else the best id is taken. cut: whether top-k and top-p apply. cuts: a float64
    tensor of temperature, k and top_p. keys, number: int64 tensors, as in noise.uniform. A token is -1 if the
    sequence's logits aren't finite.
    """
    (R, V), device = logits.shape, logits.device
    J = triton.cdiv(V, CHUNK)
    bits = 16 if logits.dtype == torch.bfloat16 else 32
    best = torch.empty(R, dtype=torch.float64, device=device)
    last_place, last_id = torch.empty(2, R, dtype=torch.int64, device=device)
    values = torch.empty(R, J, dtype=torch.float64, device=device)
    ids = torch.empty(R, J, dtype=torch.int64, device=device)
    if draw:
        block = min(8192, triton.next_power_of_2(V))
        cut_kernel[R,](
            logits, logits.stride(0), cuts, best, last_place, last_id, V,
            cut, bits, 32 - bits, V.bit_length(), block, num_warps=16,
        )  # fmt: skip
    draw_kernel[R, J](
        logits, logits.stride(0), cuts, keys, number, best, last_place, last_id, values, ids, V,
        draw, cut, 32 - bits, CHUNK, num_warps=4,
    )  # fmt: skip
    best_kernel[R,](values, ids, tokens, J, triton.next_power_of_2(J))
