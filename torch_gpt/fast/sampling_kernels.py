"""Draw tokens by hand-written Triton kernels, without a sort; the tokens are those of generate/sampling.py.

Top-k and top-p keep the first ids in the order of their logits, in which a tie goes to the lower id. The logit of the
last kept id is found four bits at a time: search_kernel adds up the ids at or above each of 16 candidates, as a count
for top-k and as a probability for top-p, and the next search continues from the highest candidate that has enough.
tally_kernel adds up the ids at that logit, of which as many are kept as are needed. draw_kernel adds Gumbel noise to
the kept logits and finds the best id of each chunk, and best_kernel the best of all chunks.

R sequences   V vocabulary   J chunks of it, one for each program   D digits of 4 bits in a logit
"""

import torch
import triton
import triton.language as tl

CHUNK = 1024  # ids of a program
PART = 128  # ids that search_kernel compares at once
COLDEST = tl.constexpr(1e-30)  # at lower temperatures only the best ids have a probability above 0, as at this one


@triton.jit
def place(x, DIGITS: tl.constexpr):
    """Return an int32 for each float32, in the same order; DIGITS cuts off the bits that are always 0 in bfloat16"""
    bits = tl.where(x == 0, 0.0, x).to(tl.int32, bitcast=True)  # -0 equals 0
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits) >> (32 - 4 * DIGITS)


@triton.jit
def chunk_of(logits, stride, V, CHUNK: tl.constexpr):
    """Return the ids of this program's chunk, and their logits as float32, 0 beyond the vocabulary"""
    r, j = tl.program_id(0), tl.program_id(1)
    i = j * CHUNK + tl.arange(0, CHUNK)
    return i, tl.load(logits + r.to(tl.int64) * stride + i, i < V, 0).to(tl.float32)


@triton.jit
def max_kernel(logits, stride, maxima, V, CHUNK: tl.constexpr):
    """Store the largest logit of each chunk in maxima (R,J)"""
    i, x = chunk_of(logits, stride, V, CHUNK)
    chunk = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(maxima + chunk, tl.max(tl.where(i < V, x, -float("inf"))))


@triton.jit
def best_logit(maxima, WIDTH: tl.constexpr):
    """Return the largest logit of this program's sequence"""
    J, j = tl.num_programs(1), tl.arange(0, WIDTH)
    return tl.max(tl.load(maxima + tl.program_id(0) * J + j, j < J, -float("inf")))


@triton.jit
def inverse_temperature(cuts):
    """Return 1 / temperature as float32"""
    return (1 / tl.maximum(tl.load(cuts), COLDEST)).to(tl.float32)


@triton.jit
def found_place(sums, target, DONE: tl.constexpr, DIGITS: tl.constexpr, WIDTH: tl.constexpr):
    """Return the highest place for which the ids there and above reach the target, as far as DONE digits are known

    sums (D,R,J,16): search_kernel's
    """
    r, R, J = tl.program_id(0), tl.num_programs(0), tl.num_programs(1)
    j, candidate = tl.arange(0, WIDTH)[:, None], tl.arange(0, 16)
    unit = tl.full((), 1, tl.int32)
    found = -(unit << (4 * DIGITS - 1))  # the lowest place
    for digit in tl.static_range(DONE):
        parts = tl.load(sums + ((digit * R + r) * J + j) * 16 + candidate, j < J, 0)  # (J,16)
        reached = (tl.sum(parts, 0) >= target) & (candidate > 0)
        found += tl.sum(reached.to(tl.int32)) << (4 * (DIGITS - 1 - digit))
    return found


@triton.jit
def total(tally, part, WIDTH: tl.constexpr):
    """Return the sum over all chunks of one part of tally (R,J,4)"""
    J, j = tl.num_programs(1), tl.arange(0, WIDTH)
    return tl.sum(tl.load(tally + (tl.program_id(0) * J + j) * 4 + part, j < J, 0)).to(tl.float64)


@triton.jit
def mass_target(cuts, sums, tally_k, WIDTH: tl.constexpr):
    """Return the probability that top-p has to reach: of all ids, or of those that top-k keeps if tally_k is given"""
    if tally_k is None:
        J, j = tl.num_programs(1), tl.arange(0, WIDTH)
        whole = tl.sum(tl.load(sums + (tl.program_id(0) * J + j) * 16, j < J, 0)).to(tl.float64)
    else:
        needed = tl.load(cuts + 1) - total(tally_k, 2, WIDTH)
        whole = total(tally_k, 3, WIDTH) + needed * total(tally_k, 1, WIDTH) / total(tally_k, 0, WIDTH)
    return tl.maximum(tl.load(cuts + 2) * whole, COLDEST)  # the best id is kept even if top_p is 0


@triton.jit
def search_kernel(
    logits, stride, cuts, maxima, sums, tally_k, V,
    TOP_K: tl.constexpr, DONE: tl.constexpr, DIGITS: tl.constexpr, WIDTH: tl.constexpr,
    CHUNK: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """Add up the ids of each chunk at or above 16 candidates for the next digit, into sums[DONE] (R,J,16)

    PART ids are compared at once: with a whole chunk, a program would need too many registers.
    """
    r, R, j, J = tl.program_id(0), tl.num_programs(0), tl.program_id(1), tl.num_programs(1)
    if TOP_K:
        target = tl.load(cuts + 1)
    else:
        target = mass_target(cuts, sums, tally_k, WIDTH) if DONE or tally_k is not None else 0.0
    candidate = tl.arange(0, 16)
    lowest = found_place(sums, target, DONE, DIGITS, WIDTH) + (candidate << (4 * (DIGITS - 1 - DONE)))
    best, rate = best_logit(maxima, WIDTH), inverse_temperature(cuts)
    amounts = tl.zeros((PART, 16), tl.float32)
    for start in range(0, CHUNK, PART):
        i = j * CHUNK + start + tl.arange(0, PART)
        x = tl.load(logits + r.to(tl.int64) * stride + i, i < V, 0).to(tl.float32)
        amount = tl.where(i < V, 1.0 if TOP_K else tl.exp((x - best) * rate), 0.0)
        above = place(x, DIGITS)[:, None] >= lowest[None, :]  # (PART,16)
        amounts += tl.where(above, amount[:, None], 0.0)
    tl.store(sums + ((DONE * R + r) * J + j) * 16 + candidate, tl.sum(amounts, 0))


@triton.jit
def tally_kernel(
    logits, stride, cuts, maxima, sums, tally_k, tally, V,
    TOP_K: tl.constexpr, DIGITS: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Store the number and the probability of the ids at the found place, and of those above it, in tally (R,J,4)"""
    i, x = chunk_of(logits, stride, V, CHUNK)
    target = tl.load(cuts + 1) if TOP_K else mass_target(cuts, sums, tally_k, WIDTH)
    found = found_place(sums, target, DIGITS, DIGITS, WIDTH)
    p = tl.exp((x - best_logit(maxima, WIDTH)) * inverse_temperature(cuts))  # relative to the best id
    here = (place(x, DIGITS) == found) & (i < V)
    above = (place(x, DIGITS) > found) & (i < V)
    part = tally + (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)) * 4
    tl.store(part, tl.sum(here.to(tl.float32)))
    tl.store(part + 1, tl.sum(tl.where(here, p, 0.0)))
    tl.store(part + 2, tl.sum(above.to(tl.float32)))
    tl.store(part + 3, tl.sum(tl.where(above, p, 0.0)))


@triton.jit
def kept_ids(
    i, x, V, cuts, sums, tally_k, tally,
    TOP_K: tl.constexpr, DIGITS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Return which ids of this program's chunk are kept: those above the found place, and the first ones there"""
    r, j, J = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    if TOP_K:
        target = tl.load(cuts + 1)
        needed = target - total(tally, 2, WIDTH)
    else:
        target = mass_target(cuts, sums, tally_k, WIDTH)
        one = total(tally, 1, WIDTH) / total(tally, 0, WIDTH)
        needed = tl.maximum(tl.ceil((target - total(tally, 3, WIDTH)) / one), 1)
    chunk = tl.arange(0, WIDTH)
    before = tl.sum(tl.load(tally + (r * J + chunk) * 4, chunk < j, 0))  # ids there in earlier chunks
    found = found_place(sums, target, DIGITS, DIGITS, WIDTH)
    here = (place(x, DIGITS) == found) & (i < V)
    rank = before + tl.cumsum(here.to(tl.int32), 0)
    return (place(x, DIGITS) > found) | (here & (rank <= needed))


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
    logits, stride, cuts, keys, number, maxima, sums, tally_k, tally, values, ids, V,
    DRAW: tl.constexpr, TOP_K: tl.constexpr, DIGITS: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Find the best id of each chunk, with Gumbel noise if DRAW; -1 if a logit isn't finite

    keys: the lower and the upper word of the seed, and the sample's number. number: that of the step. If tally is None,
    all ids are kept.
    """
    r, j = tl.program_id(0), tl.program_id(1)
    i, x = chunk_of(logits, stride, V, CHUNK)
    z = x.to(tl.float64)
    if DRAW:
        z = (z - best_logit(maxima, WIDTH)) / tl.load(cuts)
        seed = tl.load(keys + 3 * r + 1) << 32 | tl.load(keys + 3 * r)
        block = (j * (CHUNK // 4) + tl.arange(0, CHUNK // 4)).to(tl.uint32)
        step, sample = tl.load(number).to(tl.uint32), tl.load(keys + 3 * r + 2).to(tl.uint32)
        z += gumbel(seed, block, step, sample, CHUNK)
    if tally is not None:
        z = tl.where(kept_ids(i, x, V, cuts, sums, tally_k, tally, TOP_K, DIGITS, WIDTH), z, -float("inf"))
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


def sample(logits, draw, top_k, top_p, cuts, keys, number, tokens):
    """Draw a token of each sequence from logits (R,V), which may be rows of a wider array, into tokens (R,)

    draw: whether to add Gumbel noise; else the best id is taken. top_k, top_p: whether they apply. cuts: a float64
    tensor of temperature, k and top_p. keys, number: int64 tensors, as in noise.uniform. A token is -1 if the
    sequence's logits aren't finite.
    """
    (R, V), device = logits.shape, logits.device
    J = triton.cdiv(V, CHUNK)
    D = 4 if logits.dtype == torch.bfloat16 else 8
    width = triton.next_power_of_2(J)
    row = logits, logits.stride(0)
    maxima, values = (torch.empty(R, J, dtype=dtype, device=device) for dtype in (torch.float32, torch.float64))
    ids = torch.empty(R, J, dtype=torch.int64, device=device)
    sums = tally_k = tally = None
    if draw:
        max_kernel[R, J](*row, maxima, V, CHUNK)
    for by_count in [True] * top_k + [False] * top_p:
        tally_k, tally = tally, torch.empty(R, J, 4, dtype=torch.float32, device=device)
        sums = torch.empty(D, R, J, 16, dtype=torch.float32, device=device)
        for done in range(D):
            search_kernel[R, J](*row, cuts, maxima, sums, tally_k, V, by_count, done, D, width, CHUNK, PART)
        tally_kernel[R, J](*row, cuts, maxima, sums, tally_k, tally, V, by_count, D, width, CHUNK)
    draw_kernel[R, J](
        *row, cuts, keys, number, maxima, sums, tally_k, tally, values, ids, V, draw, not top_p, D, width, CHUNK
    )
    best_kernel[R,](values, ids, tokens, J, width)
