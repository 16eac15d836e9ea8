"""From logits to a token: the best one, or one drawn after temperature, top-k and top-p, in that order."""

import numpy as np

from ..noise import uniform


def sample(logits, temperature, top_k, top_p, seed, number, step):
    """
    Draw a token of the sample with this number: logits (V,) -> a token id; of equals the lower one

    argmax(z + g) with Gumbel noise g = -log(-log u) is a draw from softmax z. It needs no sum over the vocabulary, so
    that two who agree on z to rounding almost never draw different tokens.
    """
    if temperature == 0:
        return int(logits.argmax())
    z = logits.astype(np.float64)
    with np.errstate(over="ignore"):  # of a tiny temperature only the best is left
        z = (z - z.max()) / temperature
    ids = survivors(z, top_k, top_p)
    gumbel = -np.log(-np.log(uniform(seed, number, step, ids)))
    return int(ids[(z[ids] + gumbel).argmax()])


def survivors(z, top_k, top_p):
    """The ids that are left: of the top_k best (0: of all), the fewest that hold top_p of their probability"""
    k = min(top_k, len(z)) or len(z)
    if top_p == 1:
        return np.arange(k) if k == len(z) else best(z, k)
    total = np.exp(z if k == len(z) else z[best(z, k)]).sum()
    for n in (64, 1024, k):  # to sort them all would take longer than the rest of a small model's step
        ids = best(z, min(n, k))
        mass = np.exp(z[ids]).cumsum()
        if mass[-1] >= top_p * total:
            break
    return ids[: np.searchsorted(mass, top_p * total) + 1]


def best(z, k):
    """The k best ids in order; of equals the lower one comes first"""
    ids = np.flatnonzero(z >= np.partition(z, -k)[-k])  # with all that equal the last
    return ids[np.argsort(-z[ids], kind="stable")][:k]


def likeliest(logits, k):
    """logits (V,) -> the k best ids, and the log of the probability of every id"""
    z = logits.astype(np.float64)
    z -= z.max()
    return best(z, min(k, len(z))), z - np.log(np.exp(z).sum())
