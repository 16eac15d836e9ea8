"""Choose a token from logits: the best one, or one drawn after temperature, top-k and top-p, in this order."""

import numpy as np

from ..noise import uniform

ROUNDING = 1e-9  # more than the rounding error of a sum of probabilities


def sample(logits, temperature, top_k, top_p, seed, number, step):
    """Draw a token: logits (V,), the number of the sample and of the step -> a token id; a tie goes to the lower id

    argmax(z + g) with Gumbel noise g = -log(-log u) is a draw from softmax(z). It needs no sum over the vocabulary, so
    two implementations whose z agree up to rounding almost never draw different tokens.
    """
    if temperature == 0:
        return int(logits.argmax())
    z = logits.astype(np.float64)
    with np.errstate(over="ignore"):  # a tiny temperature: all but the best become -inf
        z = (z - z.max()) / temperature
    ids = survivors(z, top_k, top_p)
    gumbel = -np.log(-np.log(uniform(seed, number, step, ids)))
    return int(ids[(z[ids] + gumbel).argmax()])


def survivors(z, top_k, top_p):
    """Return the ids that top-k and top-p keep: z (V,) float64 -> ids

    Sort all ids by z, the best first; a tie goes to the lower id. Keep the first top_k (0: all). Of these, keep the
    fewest that hold top_p of their probability.
    """
    if 0 < top_k < len(z):
        ids = best(z, top_k)
        return ids[: nucleus_size(z[ids], top_p)]
    n = nucleus_size(z, top_p)
    return best(z, n) if n < len(z) else np.arange(n)


def nucleus_size(z, top_p):
    """Return the least n for which the n best hold top_p of the probability, at least 1

    All probabilities below (1 - top_p) / V hold less than 1 - top_p together, so the nucleus is among the others. Only
    these are sorted, since a full sort of a large vocabulary takes milliseconds.
    """
    if top_p == 1:
        return len(z)
    p = np.exp(z)  # up to a common factor
    total = p.sum()
    likely = z[p >= (1 - top_p - ROUNDING) / len(z) * total]
    mass = np.exp(-np.sort(-likely)).cumsum()  # best first; np.exp of a reversed view rounds differently
    return min(int(np.searchsorted(mass, top_p * total)) + 1, len(z))


def best(z, k):
    """Return the k best ids, the best first; a tie goes to the lower id"""
    ids = np.flatnonzero(z >= np.partition(z, -k)[-k])  # these include all that tie with the k-th
    return ids[np.argsort(-z[ids], kind="stable")][:k]


def likeliest(logits, k):
    """Return the k best ids, and the log of the probability of every id: logits (V,) -> (k,), (V,)"""
    z = logits.astype(np.float64)
    z -= z.max()
    return best(z, min(k, len(z))), z - np.log(np.exp(z).sum())
