"""Measure how close the choice of a token was: two packages may differ only if rounding could decide."""

import numpy as np

from numpy_gpt.noise import uniform


def margin(z, token, cuts, seed, sample, step):
    """Return the least d for which moving the logits by d makes `token` the drawn one

    z: (V,) logits; cuts: temperature, top_k and top_p. The logit of `token` goes up by d, and that of the drawn token
    goes down by d. All others stay, go up by d, or go down by d. The result is an upper bound: moving each logit by an
    amount of its own could need a smaller d.
    """
    stream = seed, sample, step
    drawn = choice(z, cuts, *stream)
    if token == drawn:
        return 0.0
    high = next(d for d in 2.0 ** np.arange(-40, 11) if drawn_within(d, z, token, drawn, cuts, stream))
    low = high / 2
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if drawn_within(middle, z, token, drawn, cuts, stream) else (middle, high)
    return high


def drawn_within(d, z, token, drawn, cuts, stream):
    """Return whether one of the three moves by d makes `token` the drawn one"""
    for others in (0, d, -d):
        moved = z + others
        moved[token], moved[drawn] = z[token] + d, z[drawn] - d
        if choice(moved, cuts, *stream) == token:
            return True
    return False


def choice(z, cuts, seed, sample, step):
    """Return the token that is drawn, by the definition of temperature, top-k, top-p and Gumbel noise"""
    temperature, top_k, top_p = cuts
    if temperature == 0:
        return int(z.argmax())
    ids = np.argsort(-z, kind="stable")[: top_k or None]
    p = np.exp((z[ids] - z.max()) / temperature)
    better = (p.cumsum() - p) / p.sum()  # the probability of all better tokens
    ids = ids[(better < top_p) | (top_p == 1) | (ids == ids[0])]
    return int(ids[(z[ids] / temperature - np.log(-np.log(uniform(seed, sample, step, ids)))).argmax()])
