"""Compute the loss at some positions only, by PyTorch's own kernel. Autograd computes the backward.

B batch   T queries   V vocabulary
"""

import torch.nn.functional as F

IGNORED = -100                                                           # a target that the kernel leaves out


def masked_cross_entropy(z, targets, mask):
    """loss = mean( log Σ exp z - z[target] ) where mask               z (B,T,V)   targets, mask (B,T)   ->   a scalar

    mask is a tensor of bool. At least one element must be True, because the mean of no number is undefined.
    """
    targets = targets.masked_fill(~mask, IGNORED)                        # (B,T)
    return F.cross_entropy(z.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
