"""How close a choice between two tokens was: two sides may differ only where their rounding could have turned it."""

import numpy as np

from numpy_gpt.noise import uniform


def margin(z, a, b, temperature, top_k, top_p, seed, step):
    """
    How far the logits z must be moved at the least for b to be drawn and not a

    Either b overtakes a, with their noise, or one of them crosses the cut of top-k or that of top-p.
    """
    if temperature == 0:
        return abs(z[a] - z[b])
    gumbel = -np.log(-np.log(uniform(seed, step, np.arange(len(z)))))
    order = np.argsort(-z, kind="stable")
    k = min(top_k, len(z)) or len(z)
    p = np.exp((z[order[:k]] - z.max()) / temperature)
    before = (np.cumsum(p) - p) / p.sum()  # the probability of all that are better
    ways = [abs(z[a] - z[b] + temperature * (gumbel[a] - gumbel[b]))]
    for rank in (int(np.flatnonzero(order == token)[0]) for token in (a, b)):
        if k < len(z):
            ways.append(z[order[rank]] - z[order[k]] if rank < k else z[order[k - 1]] - z[order[rank]])
        if 0 < top_p < 1 and rank < k:
            # a sum M of probabilities moves by at most 2 M (1 - M) / T when every logit moves by 1
            ways.append(abs(before[rank] - top_p) * temperature / (2 * top_p * (1 - top_p)))
    return min(ways)
