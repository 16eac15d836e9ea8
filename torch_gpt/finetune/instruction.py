"""Compute the loss of a model on responses to instructions; autograd computes its gradients."""

from ..masked_loss import masked_cross_entropy
from ..model import gpt2
from .step import Objective


def mean_loss(p, config, first, batch, noise=None):
    """Return the mean cross-entropy of the targets where the mask is True; tokens, targets and mask are (B,T)"""
    tokens, targets, mask = batch
    logits = gpt2(tokens, p, config, noise)  # (B,T,V)
    return masked_cross_entropy(logits, targets, mask)


def sum_of_losses(p, config, batch):
    """Return the sum of the cross-entropy where the mask is True"""
    return mean_loss(p, config, None, batch).double() * number_of_targets(batch)


def number_of_targets(batch):
    return int(batch[2].sum())


OBJECTIVE = Objective(mean_loss, sum_of_losses, number_of_targets)
