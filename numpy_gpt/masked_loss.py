"""Compute the loss on a part of the targets: on the answers of a conversation, and not on the questions."""

import numpy as np

from .ops import cross_entropy, cross_entropy_backward


def masked_cross_entropy(z, targets, mask):
    """loss = mean of cross-entropy where mask    z (B,T,V)   targets, mask (B,T)   ->   a scalar

    At least one element of mask must be True.
    """
    loss, s_cross_entropy = cross_entropy(z[mask][None], targets[mask][None])
    return loss, (s_cross_entropy, mask, z.shape)


def masked_cross_entropy_backward(dloss, saved):
    """dz = dloss (p - onehot(target)) / n where mask, and 0 elsewhere     n = the number of positions in mask"""
    s_cross_entropy, mask, shape = saved
    (dz_mask,) = cross_entropy_backward(dloss, s_cross_entropy)          # (1,n,V)
    dz = np.zeros(shape, dz_mask.dtype)                                  # (B,T,V)
    dz[mask] = dz_mask[0]
    return (dz,)
