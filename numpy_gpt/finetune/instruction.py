"""Compute the loss of a model on responses to instructions, and its gradients."""

import numpy as np

from ..masked_loss import masked_cross_entropy, masked_cross_entropy_backward
from ..model import gpt2, gpt2_backward
from .step import Objective


def loss_and_grads(p, config, first, batch, noise=None):
    """Return the mean cross-entropy of the targets where the mask is True, and the gradients of all parameters

    tokens, targets and mask are (B,T). The first trained block isn't used: frozen parameters have gradients too, which
    the caller drops.
    """
    tokens, targets, mask = batch
    logits, s_gpt2 = gpt2(tokens, p, config, noise)  # (B,T,V)
    loss, s_loss = masked_cross_entropy(logits, targets, mask)
    (dlogits,) = masked_cross_entropy_backward(1.0, s_loss)  # (B,T,V)
    return loss, gpt2_backward(dlogits, s_gpt2)


def sum_of_losses(p, config, batch):
    """Return the sum of the cross-entropy where the mask is True"""
    tokens, targets, mask = batch
    logits, _ = gpt2(tokens, p, config, save=False)  # (B,T,V)
    loss, _ = masked_cross_entropy(logits, targets, mask)
    return float(loss) * number_of_targets(batch)


def number_of_targets(batch):
    return int(batch[2].sum())


OBJECTIVE = Objective(loss_and_grads, sum_of_losses, number_of_targets, np.sum)
