"""Choose tokens from logits: the best ones, or ones drawn after temperature, top-k and top-p, in this order."""

import torch
import torch.nn.functional as F

from ..noise import keys, uniform


def sample(logits, temperature, top_k, top_p, seed, numbers, step):
    """Draw a token of each sample: logits (B,V), B sample numbers, the step -> B token ids; a tie goes to the lower id

    argmax(z + g) with Gumbel noise g = -log(-log u) is a draw from softmax(z).
    """
    draw, *cuts = method(temperature, top_k, top_p, logits.shape[-1])
    return draw(logits, *cuts, keys(seed, numbers, logits.device), step).tolist()


def method(temperature, top_k, top_p, V):
    """Return greedy, from_all or from_best, then temperature, k and top_p

    The three functions also accept tensors of one number for these: no shape and no branch depends on them.
    """
    k = min(top_k, V) or V
    if temperature == 0:
        return greedy, temperature, k, top_p
    return from_all if top_p == 1 and k == V else from_best, temperature, k, top_p


def greedy(logits, temperature, k, top_p, keys, step):
    return logits.argmax(-1)


def from_all(logits, temperature, k, top_p, keys, step):
    z = scaled(logits, temperature)
    return (z + gumbel(z, keys, step)).argmax(-1)


def from_best(logits, temperature, k, top_p, keys, step):
    z = scaled(logits, temperature)
    kept = keep_mask(z, k, top_p)
    return (z + gumbel(z, keys, step)).masked_fill(~kept, -torch.inf).argmax(-1)


def scaled(logits, temperature):
    z = logits.double()
    return (z - z.amax(-1, keepdim=True)) / temperature


def gumbel(z, keys, step):
    return -torch.log(-torch.log(uniform(keys, step, z.shape[-1])))


def keep_mask(z, k, top_p):
    """Return a mask (B,V) of the ids that are kept: of the k best, the fewest that hold top_p of their probability"""
    rank = torch.arange(z.shape[-1], device=z.device)
    z, ids = z.sort(dim=-1, descending=True, stable=True)  # stable: a tie goes to the lower id
    mass = z.exp().masked_fill(rank >= k, 0).cumsum(-1)
    better = F.pad(mass[:, :-1], (1, 0))
    kept = (rank < k) & ((better < top_p * mass[:, -1:]) | (rank == 0) | (top_p == 1))
    return torch.zeros_like(kept).scatter(-1, ids, kept)
