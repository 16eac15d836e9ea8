"""Compute the loss of a classifier and its gradients."""

import numpy as np

from ..classifier import classifier, classifier_backward
from ..model import block
from ..ops import cross_entropy, cross_entropy_backward, dropout, dropout_backward, embedding, embedding_backward
from ..params import GPT2
from .step import Objective


def logits(p, config, first, tokens, last, noise=None):
    """Return the logits (B,K) of texts, and the values that the backward reads

    tokens (B,T) are padded on the right, last (B,) are the positions of the last tokens. The parameters before block
    number `first` are frozen: they compute without dropout and save nothing.
    """
    emb, s_embedding = embedding(tokens, p.wte, p.wpe)  # (B,T,C)
    x, s_dropout = dropout(emb, config.dropout, noise if first is None else None)
    start = first or 0
    for p_i in p.h[:start]:
        x, _ = block(x, p_i, config)  # (B,T,C)
    z, s_classifier = classifier(x, last, p.h[start:], p.ln_f, p.head, config, noise and noise.at(1 + 3 * start))
    return z, (s_embedding, s_dropout, s_classifier)


def loss_and_grads(p, config, first, batch, noise=None):
    """Return the mean cross-entropy of the classes, and the gradients; those of frozen blocks are None"""
    tokens, last, classes = batch
    z, (s_embedding, s_dropout, s_classifier) = logits(p, config, first, tokens, last, noise)
    loss, s_cross_entropy = cross_entropy(z[:, None], classes[:, None])
    (dz,) = cross_entropy_backward(1.0, s_cross_entropy)  # (B,1,K)
    dx, d_h, d_ln_f, d_head = classifier_backward(dz[:, 0], s_classifier)
    if first is not None:
        return loss, GPT2(None, None, [None] * first + d_h, d_ln_f, d_head)
    (demb,) = dropout_backward(dx, s_dropout)  # (B,T,C)
    dwte, dwpe = embedding_backward(demb, s_embedding)  # (V,C), (N,C)
    return loss, GPT2(dwte, dwpe, d_h, d_ln_f, d_head)


def predict(p, config, batch):
    """Return the logits (B,K) of a batch, in which further arrays are ignored"""
    tokens, last, *_ = batch
    return logits(p, config, len(p.h), tokens, last)[0]


def number_of_texts(batch):
    return len(batch[0])


OBJECTIVE = Objective(loss_and_grads, predict, number_of_texts, np.concatenate)
