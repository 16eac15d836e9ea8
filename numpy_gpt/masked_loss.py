"""Compute the loss at some positions only, such as those of an answer and not those of its question.

The pair keeps the contract of ops.py.

B batch   T queries   V vocabulary   M positions where mask is True
"""

import numpy as np

from .ops import cross_entropy, cross_entropy_backward


def masked_cross_entropy(z, targets, mask):
    """loss = mean( log Σ exp z - z[target] ) where mask               z (B,T,V)   targets, mask (B,T)   ->   a scalar

    mask is an array of bool. At least one element must be True, because the mean of no number is undefined.
    """
    z_mask = z[mask][None]                                               # (1,M,V)
    loss, s_cross_entropy = cross_entropy(z_mask, targets[mask][None])   # scalar
    return loss, (s_cross_entropy, mask, z.shape)


def masked_cross_entropy_backward(dloss, saved):
    """dz = dloss (p - onehot(target)) / M where mask, else 0            p = softmax z"""
    s_cross_entropy, mask, shape = saved
    (dz_mask,) = cross_entropy_backward(dloss, s_cross_entropy)          # (1,M,V)
    dz = np.zeros(shape, dz_mask.dtype)                                  # (B,T,V)
    dz[mask] = dz_mask[0]
    return (dz,)
