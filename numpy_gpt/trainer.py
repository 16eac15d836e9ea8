"""A model that is trained: what a step does to it."""

import math

from . import adamw, decode
from .model import forward, loss_and_grads
from .noise import Noise
from .ops import cross_entropy
from .params import tree_map


class Trainer:
    leader = True  # of several processes the one that writes

    def __init__(self, m, moments, settings):
        self.m, self.moments, self.settings = m, moments, settings

    def step(self, t, lr, batches):
        """AdamW's step t = 1, 2, ... on some batches, each the number of its first sequence, tokens, targets -> loss"""
        s, m = self.settings, self.m
        loss, grads = 0.0, None
        for first, tokens, targets in batches:
            noise = Noise(s.seed, t, first) if m.config.dropout else None
            part, dpart = loss_and_grads(m, tokens, targets, noise, s.checkpointing)
            loss += float(part) / len(batches)
            grads = dpart if grads is None else tree_map(add, grads, dpart)
        if len(batches) > 1:
            tree_map(lambda g: scale(g, 1 / len(batches)), grads)
        adamw.clip(grads, s.clip or math.inf)
        adamw.step(m.params, grads, self.moments, t, lr, s.beta1, s.beta2, s.eps, s.weight_decay)
        return loss

    def loss(self, tokens, targets):
        """The mean over all tokens, without dropout"""
        loss, _ = cross_entropy(forward(self.m, tokens), targets)
        return float(loss)

    def sample(self, ids, **settings):
        return decode.complete(self.m, ids, **settings)

    def state(self):
        """As NumPy has it"""
        return self.m, self.moments

    def agree(self, stop):
        """Whether any of the processes wants to stop"""
        return stop


def add(a, b):
    a += b
    return a


def scale(g, factor):
    g *= factor
