"""From logits to tokens: the best one, or one drawn after temperature, top-k and top-p, in that order."""

import torch
import torch.nn.functional as F

from .noise import uniform


def sample(logits, temperature, top_k, top_p, seeds, step):
    """
    logits (B,V), a seed for each -> B token ids; of equals the lower one

    argmax(z + g) with Gumbel noise g = -log(-log u) is a draw from softmax z.
    """
    if temperature == 0:
        return logits.argmax(-1).tolist()
    z = logits.double()
    z = (z - z.amax(-1, keepdim=True)) / temperature
    gumbel = -torch.log(-torch.log(uniform(seeds, step, z.shape[-1], z.device)))
    z = z.masked_fill(~survives(z, top_k, top_p), -torch.inf)
    return (z + gumbel).argmax(-1).tolist()


def survives(z, top_k, top_p):
    """(B,V) bools: of the top_k best (0: of all), the fewest that hold top_p of their probability"""
    V = z.shape[-1]
    k = min(top_k, V) or V
    if top_p == 1 and k == V:
        return torch.ones_like(z, dtype=torch.bool)
    z, ids = z.sort(dim=-1, descending=True, stable=True)  # of equals the lower id comes first
    mass = z[:, :k].exp().cumsum(-1)
    kept = F.pad(mass[:, :-1], (1, 0)) < top_p * mass[:, -1:] if top_p < 1 else torch.ones_like(mass, dtype=torch.bool)
    kept[:, 0] = True
    return torch.zeros_like(z, dtype=torch.bool).scatter(-1, ids[:, :k], kept)
