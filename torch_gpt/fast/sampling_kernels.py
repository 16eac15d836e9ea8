"""Draw tokens by hand-written Triton kernels, without a sort; the tokens are those of generate/sampling.py.

Top-k and top-p keep the first ids in the order of their logits, in which a tie goes to the lower id. The logit of the
last kept id is found four bits at a time: search_kernel adds up the ids at or above each of 16 candidates, as a count
for top-k and as a probability for top-p, and the next search continues from the highest candidate that has enough.
Programs add to the same sums, so these are integers: in float32 they would depend on the order. tally_kernel adds up
the ids at that logit, of which as many are kept as are needed. draw_kernel adds Gumbel noise to
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
def found_place(sums, target, DONE: tl.constexpr, DIGITS: tl.constexpr):
    """Return the highest place for which the ids there and above reach the target, as far as DONE digits are known

    sums (D,R,16): search_kernel's
    """
    r, R, candidate = tl.program_id(0), tl.num_programs(0), tl.arange(0, 16)
    unit = tl.full((), 1, tl.int32)
    found = -(unit << (4 * DIGITS - 1))  # the lowest place
    for digit in tl.static_range(DONE):
        reached = tl.load(sums + (digit * R + r) * 16 + candidate).to(tl.float64) >= target
        found += tl.sum((reached & (candidate > 0)).to(tl.int32)) << (4 * (DIGITS - 1 - digit))
    return found


@triton.jit
def target_sum(cuts, sums, tally_k, TOP_K: tl.constexpr):
    """Return the sum that the kept ids have to reach, in the units of sums: a count for top-k, or a probability

    The probability is top_p of that of all ids, or of those that top-k keeps if tally_k is given.
    """
    if TOP_K:
        return tl.load(cuts + 1)
    if tally_k is None:
        whole = tl.load(sums + tl.program_id(0) * 16).to(tl.float64)  # all ids are at the lowest place or above
    else:
        here, p_here, above, p_above = tallied(tally_k)
        whole = p_above + (tl.load(cuts + 1) - above) * p_here / here
    return tl.maximum(tl.load(cuts + 2) * whole, 1)  # the best id is kept even if top_p is 0


@triton.jit
def tallied(tally):
    """Return tally_kernel's four sums of this program's sequence as float64"""
    row = tally + tl.program_id(0) * 4
    here, p_here = tl.load(row).to(tl.float64), tl.load(row + 1).to(tl.float64)
    return here, p_here, tl.load(row + 2).to(tl.float64), tl.load(row + 3).to(tl.float64)


@triton.jit
def search_kernel(
    logits, stride, cuts, maxima, sums, tally_k, V,
    TOP_K: tl.constexpr, DONE: tl.constexpr, DIGITS: tl.constexpr, WIDTH: tl.constexpr,
    CHUNK: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """Add this chunk's ids at or above each of 16 candidates for the next digit to sums[DONE] (R,16)

    PART ids are compared at once: with a whole chunk, a program would need too many registers.
    """
    r, R, j = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    candidate = tl.arange(0, 16)
    lowest = candidate << (4 * (DIGITS - 1 - DONE))
    if DONE:
        lowest += found_place(sums, target_sum(cuts, sums, tally_k, TOP_K), DONE, DIGITS)
    else:
        lowest += found_place(sums, 0.0, 0, DIGITS)
    best, rate = best_logit(maxima, WIDTH), inverse_temperature(cuts)
    amounts = tl.zeros((16, PART), tl.float32)
    for start in range(0, CHUNK, PART):
        i = j * CHUNK + start + tl.arange(0, PART)
        x = tl.load(logits + r.to(tl.int64) * stride + i, i < V, 0).to(tl.float32)
        amount = tl.where(i < V, 1.0 if TOP_K else tl.exp((x - best) * rate), 0.0)
        above = place(x, DIGITS)[None, :] >= lowest[:, None]  # (16,PART)
        amounts += tl.where(above, amount[None, :], 0.0)
    tl.atomic_add(sums + (DONE * R + r) * 16 + candidate, whole_units(tl.sum(amounts, 1), TOP_K))


@triton.jit
def whole_units(amount, COUNT: tl.constexpr):
    """Return a count, or a probability in units of 2^-44, as int64: sums of integers don't depend on their order"""
    return (amount if COUNT else amount * 2.0**44).to(tl.int64)


@triton.jit
def tally_kernel(
    logits, stride, cuts, maxima, sums, tally_k, tally, ties, V,
    TOP_K: tl.constexpr, DIGITS: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Add the number and the probability of the ids at the found place, and of those above it, to tally (R,4)

    ties (R,J): the number of ids at the found place in each chunk
    """
    i, x = chunk_of(logits, stride, V, CHUNK)
    found = found_place(sums, target_sum(cuts, sums, tally_k, TOP_K), DIGITS, DIGITS)
    p = tl.exp((x - best_logit(maxima, WIDTH)) * inverse_temperature(cuts))  # relative to the best id
    here = (place(x, DIGITS) == found) & (i < V)
    above = (place(x, DIGITS) > found) & (i < V)
    n_here, row = tl.sum(here.to(tl.int32)), tally + tl.program_id(0) * 4
    tl.store(ties + tl.program_id(0) * tl.num_programs(1) + tl.program_id(1), n_here)
    tl.atomic_add(row, n_here.to(tl.int64))
    tl.atomic_add(row + 1, whole_units(tl.sum(tl.where(here, p, 0.0)), False))
    tl.atomic_add(row + 2, tl.sum(above.to(tl.int32)).to(tl.int64))
    tl.atomic_add(row + 3, whole_units(tl.sum(tl.where(above, p, 0.0)), False))


@triton.jit
def kept_ids(
    i, x, V, cuts, sums, tally_k, tally, ties,
    TOP_K: tl.constexpr, DIGITS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Return which ids of this program's chunk are kept: those above the found place, and the first ones there"""
    target = target_sum(cuts, sums, tally_k, TOP_K)
    here, p_here, above, p_above = tallied(tally)
    needed = target - above if TOP_K else tl.maximum(tl.ceil((target - p_above) / (p_here / here)), 1)
    chunk, j = tl.arange(0, WIDTH), tl.program_id(1)
    before = tl.sum(tl.load(ties + tl.program_id(0) * tl.num_programs(1) + chunk, chunk < j, 0))  # in earlier chunks
    found = found_place(sums, target, DIGITS, DIGITS)
    at_place = (place(x, DIGITS) == found) & (i < V)
    rank = before + tl.cumsum(at_place.to(tl.int32), 0)
    return (place(x, DIGITS) > found) | (at_place & (rank <= needed))


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
    logits, stride, cuts, keys, number, maxima, sums, tally_k, tally, ties, values, ids, V,
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
        z = tl.where(kept_ids(i, x, V, cuts, sums, tally_k, tally, ties, TOP_K, DIGITS, WIDTH), z, -float("inf"))
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
    sums = tally_k = tally = ties = None
    if draw:
        max_kernel[R, J](*row, maxima, V, CHUNK)
    for by_count in [True] * top_k + [False] * top_p:
        tally_k, tally = tally, torch.zeros(R, 4, dtype=torch.int64, device=device)
        sums = torch.zeros(D, R, 16, dtype=torch.int64, device=device)
        ties = torch.empty(R, J, dtype=torch.int32, device=device)
        for done in range(D):
            search_kernel[R, J](*row, cuts, maxima, sums, tally_k, V, by_count, done, D, width, CHUNK, PART)
        tally_kernel[R, J](*row, cuts, maxima, sums, tally_k, tally, ties, V, by_count, D, width, CHUNK)
    draw_kernel[R, J](
        *row, cuts, keys, number, maxima, sums, tally_k, tally, ties, values, ids, V, draw, not top_p, D, width, CHUNK
    )
    best_kernel[R,](values, ids, tokens, J, width)
