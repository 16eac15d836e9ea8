"""Compute the loss of a classifier; autograd computes its gradients."""

from ..classifier import classifier
from ..model import block
from ..ops import cross_entropy, dropout, embedding
from .step import Objective


def logits(p, config, first, tokens, last, noise=None):
    """Return the logits (B,K) of texts

    tokens (B,T) are padded on the right, last (B,) are the positions of the last tokens. The parameters before block
    number `first` are frozen, and compute without dropout.
    """
    emb = embedding(tokens, p.wte, p.wpe)  # (B,T,C)
    x = dropout(emb, config.dropout, noise if first is None else None)  # (B,T,C)
    start = first or 0
    for p_i in p.h[:start]:
        x = block(x, p_i, config)  # (B,T,C)
    return classifier(x, last, p.h[start:], p.ln_f, p.head, config, noise and noise.at(1 + 3 * start))


def mean_loss(p, config, first, batch, noise=None):
    """Return the mean cross-entropy of the classes"""
    tokens, last, classes = batch
    z = logits(p, config, first, tokens, last, noise)  # (B,K)
    return cross_entropy(z[:, None], classes[:, None])


def predict(p, config, batch):
    """Return the logits (B,K) of a batch, in which further arrays are ignored"""
    tokens, last, *_ = batch
    return logits(p, config, len(p.h), tokens, last)


def number_of_texts(batch):
    return len(batch[0])


OBJECTIVE = Objective(mean_loss, predict, number_of_texts)
