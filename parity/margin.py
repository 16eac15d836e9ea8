"""How close a choice of tokens was: two sides may differ only where their rounding could have turned it."""

import numpy as np

from numpy_gpt.noise import uniform


def margin(z, token, cuts, seed, sample, step):
    """The least d for which one of three moves of the logits by d brings token forth

    It goes up by d, what was drawn in its stead goes down by d, and the others stay, or all go up, or all down. Moving
    each by itself may do with less: this is an upper bound.
    """
    stream = seed, sample, step
    drawn = choice(z, cuts, *stream)
    if token == drawn:
        return 0.0
    high = next(d for d in 2.0 ** np.arange(-40, 11) if comes_within(d, z, token, drawn, cuts, stream))
    low = high / 2
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if comes_within(middle, z, token, drawn, cuts, stream) else (middle, high)
    return high


def comes_within(d, z, token, drawn, cuts, stream):
    for others in (0, d, -d):
        moved = z + others
        moved[token], moved[drawn] = z[token] + d, z[drawn] - d
        if choice(moved, cuts, *stream) == token:
            return True
    return False


def choice(z, cuts, seed, sample, step):
    """The token that is drawn, straight from the definition"""
    temperature, top_k, top_p = cuts
    if temperature == 0:
        return int(z.argmax())
    ids = np.argsort(-z, kind="stable")[: top_k or None]
    p = np.exp((z[ids] - z.max()) / temperature)
    better = (p.cumsum() - p) / p.sum()  # the probability of all before it
    ids = ids[(better < top_p) | (top_p == 1) | (ids == ids[0])]
    return int(ids[(z[ids] / temperature - np.log(-np.log(uniform(seed, sample, step, ids)))).argmax()])
