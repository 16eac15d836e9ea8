"""Draw tokens by hand-written Triton kernels, without a sort; the tokens are those of generate/sampling.py.

Top-k and top-p keep the first ids in the order of their logits, in which a tie goes to the lower id. cut_kernel finds
the last kept id by bisection over the bits of its logit. draw_kernel adds Gumbel noise to the
kept logits and finds the best id in each chunk of the vocabulary. best_kernel finds the best of the chunks.

R sequences   V vocabulary   J chunks of it
"""

import torch
import triton
import triton.language as tl

CHUNK = 1024  # ids of a program of draw_kernel
STAGES = tl.constexpr(4)  # blocks of a row that are read ahead
HIGHEST = tl.constexpr(2**31 - 1)
COLDEST = tl.constexpr(1e-30)  # at lower temperatures only the best ids have a probability above 0, as at this one


@triton.jit
def place(x, ZEROS: tl.constexpr):
    """Return an int32 for each float32, in the same order; ZEROS is the number of low bits that are always 0"""
    bits = tl.where(x == 0, 0.0, x).to(tl.int32, bitcast=True)  # -0 equals 0
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits) >> ZEROS


@triton.jit
def count(row, V, first, last, ZEROS: tl.constexpr, BLOCK: tl.constexpr):
    """Return the number of ids at the places first to last"""
    sums = tl.zeros((BLOCK,), tl.float32)
    for start in tl.range(0, V, BLOCK, num_stages=STAGES):
        i = start + tl.arange(0, BLOCK)
        at = place(tl.load(row + i, i < V, 0).to(tl.float32), ZEROS)
        sums += tl.where((i < V) & (at >= first) & (at <= last), 1.0, 0.0)
    return tl.sum(sums)


@triton.jit
def mass(row, V, first, last, best, rate, ZEROS: tl.constexpr, BLOCK: tl.constexpr):
    """Return the probability of the ids at the places first to last, relative to that of the best id

    rate is 1 / temperature.
    """
    sums = tl.zeros((BLOCK,), tl.float32)
    for start in tl.range(0, V, BLOCK, num_stages=STAGES):
        i = start + tl.arange(0, BLOCK)
        x = tl.load(row + i, i < V, 0).to(tl.float32)
        at = place(x, ZEROS)
        sums += tl.where((i < V) & (at >= first) & (at <= last), tl.exp((x - best) * rate), 0.0)
    return tl.sum(sums)


@triton.jit
def place_that_holds(
    target, row, V, best, rate, COUNT: tl.constexpr,
    BITS: tl.constexpr, ZEROS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Return the highest place such that the ids that are there or higher hold the target: a count, or else a mass

    A pass over the row finds two bits, as it compares the ids with three places.
    """
    unit = tl.full((), 1, tl.int32)
    found = -(unit << (BITS - 1))  # the lowest place
    for pair in range(BITS // 2):
        step = unit << (BITS - 2 - 2 * pair)
        sums_1 = tl.zeros((BLOCK,), tl.float32)
        sums_2 = tl.zeros((BLOCK,), tl.float32)
        sums_3 = tl.zeros((BLOCK,), tl.float32)
        for start in tl.range(0, V, BLOCK, num_stages=STAGES):
            i = start + tl.arange(0, BLOCK)
            x = tl.load(row + i, i < V, 0).to(tl.float32)
            at = tl.where(i < V, place(x, ZEROS), found)
            weight = tl.where(i < V, 1.0 if COUNT else tl.exp((x - best) * rate), 0.0)
            sums_1 += tl.where(at >= found + step, weight, 0.0)
            sums_2 += tl.where(at >= found + 2 * step, weight, 0.0)
            sums_3 += tl.where(at >= found + 3 * step, weight, 0.0)
        steps = (tl.sum(sums_1) >= target).to(tl.int32)
        steps += (tl.sum(sums_2) >= target).to(tl.int32) + (tl.sum(sums_3) >= target).to(tl.int32)
        found += steps * step
    return found


@triton.jit
def nth_id(n, row, V, at, ZEROS: tl.constexpr, BLOCK: tl.constexpr):
    """Return the n-th id, from 1 on, of those at a place"""
    found = -1
    before = 0
    for start in tl.range(0, V, BLOCK, num_stages=STAGES):
        i = start + tl.arange(0, BLOCK)
        here = (place(tl.load(row + i, i < V, 0).to(tl.float32), ZEROS) == at) & (i < V)
        number = before + tl.cumsum(here.to(tl.int32), 0)
        found = tl.maximum(found, tl.max(tl.where(here & (number == n), i, -1)))
        before += tl.sum(here.to(tl.int32))
    return found


@triton.jit
def cut_kernel(
    logits, stride, cuts, best, last_place, last_id, V,
    CUT: tl.constexpr, BITS: tl.constexpr, ZEROS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Find the largest logit of sequence r, and with CUT the place and the id of the last id that top-k and top-p keep

    cuts: temperature, k and top_p. k is at most V.
    """
    r = tl.program_id(0)
    row = logits + r.to(tl.int64) * stride
    largest = tl.full((BLOCK,), -float("inf"), tl.float32)
    for start in tl.range(0, V, BLOCK, num_stages=STAGES):
        i = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.load(row + i, i < V, -float("inf")).to(tl.float32))
    z = tl.max(largest)
    tl.store(best + r, z)
    if CUT:
        rate = (1 / tl.maximum(tl.load(cuts), COLDEST)).to(tl.float32)
        k, top_p = tl.load(cuts + 1), tl.load(cuts + 2)
        at = -(tl.full((), 1, tl.int32) << (BITS - 1))  # the lowest place
        needed = k  # ids at this place
        if k < V:
            at = place_that_holds(k, row, V, z, rate, True, BITS, ZEROS, BLOCK)
            needed = k - count(row, V, at + 1, HIGHEST, ZEROS, BLOCK)
        if top_p < 1:
            whole = mass(row, V, at + 1, HIGHEST, z, rate, ZEROS, BLOCK).to(tl.float64)
            if k < V:
                whole += needed * mass(row, V, at, at, z, rate, ZEROS, BLOCK) / count(row, V, at, at, ZEROS, BLOCK)
            target = tl.maximum(top_p * whole, COLDEST)  # the best id is kept even if top_p is 0
            at = place_that_holds(target, row, V, z, rate, False, BITS, ZEROS, BLOCK)
            above = mass(row, V, at + 1, HIGHEST, z, rate, ZEROS, BLOCK)
            one = mass(row, V, at, at, z, rate, ZEROS, BLOCK) / count(row, V, at, at, ZEROS, BLOCK)
            needed = tl.maximum(tl.ceil((target - above) / one), 1)
        tl.store(last_place + r, at)
        tl.store(last_id + r, nth_id(needed.to(tl.int32), row, V, at, ZEROS, BLOCK))


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
    last_place, last_id = torch.empty(2, R, dtype=torch.int32, device=device)
    values = torch.empty(R, J, dtype=torch.float64, device=device)
    ids = torch.empty(R, J, dtype=torch.int64, device=device)
    if draw:
        block = min(8192, triton.next_power_of_2(V))
        cut_kernel[R,](
            logits, logits.stride(0), cuts, best, last_place, last_id, V,
            cut, bits, 32 - bits, block, num_warps=32,
        )  # fmt: skip
    draw_kernel[R, J](
        logits, logits.stride(0), cuts, keys, number, best, last_place, last_id, values, ids, V,
        draw, cut, 32 - bits, CHUNK, num_warps=4,
    )  # fmt: skip
    best_kernel[R,](values, ids, tokens, J, triton.next_power_of_2(J))
