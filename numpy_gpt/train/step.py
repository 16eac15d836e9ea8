"""A model that is trained: what a step does to it.

The sequences of a batch know nothing of each other, so threads share them, and their gradients are added.
"""

import math
from contextlib import nullcontext
from functools import partial
from itertools import pairwise

import numpy as np

from .. import adamw, generate
from ..fast.threads import shared
from ..language_model import forward, loss_and_grads
from ..noise import Noise
from ..ops import cross_entropy
from ..params import tree_map

WORTH = 10**5  # parameters for a token, above which it would cost more to add the gradients than is won


class Trainer:
    leader = True  # of several processes the one that writes

    def __init__(self, m, moments, settings):
        self.m, self.moments, self.settings = m, moments, settings
        self.threads = shared()
        tokens = settings.batch_size * settings.context
        worth = self.threads.blas and m.config.num_parameters() <= WORTH * tokens
        self.n = min(self.threads.n, settings.batch_size) if worth else 1  # threads for a batch

    def step(self, t, lr, batches):
        """AdamW's step t = 1, 2, ... on some batches, each the number of its first sequence, tokens, targets -> loss"""
        losses, total, s = [], None, self.settings
        with self.threads.instead_of_blas() if self.n > 1 else nullcontext():
            for batch in batches:
                for loss, grads in self.threads.map(partial(self.gradients, t, len(batches)), self.shares(*batch)):
                    losses.append(loss)
                    total = grads if total is None else tree_map(add, total, grads)
            adamw.clip(total, s.clip or math.inf)
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the run looks at what it saves
                adamw.step(self.m.params, total, self.moments, t, lr, s.beta1, s.beta2, s.eps, s.weight_decay)
        return sum(losses)

    def shares(self, first, tokens, targets):
        """The batch in a part for each thread, with the part of the mean that it makes up"""
        B = len(tokens)
        edges = [B * i // self.n for i in range(self.n + 1)]
        parts = [slice(*edge) for edge in pairwise(edges) if edge[0] < edge[1]]
        return [((p.stop - p.start) / B, first + p.start, tokens[p], targets[p]) for p in parts]

    def gradients(self, t, accumulated, share):
        """The share's loss and gradients, as large as they count in the mean over so many batches"""
        weight, first, tokens, targets = share
        noise = Noise(self.settings.seed, t, first) if self.m.config.dropout else None
        loss, grads = loss_and_grads(self.m, tokens, targets, noise, self.settings.checkpointing)
        weight /= accumulated
        if weight != 1:
            tree_map(partial(scale, weight), grads)
        return weight * float(loss), grads

    def loss(self, tokens, targets):
        """The mean over all tokens, without dropout"""
        with self.threads.instead_of_blas() if self.n > 1 else nullcontext():
            return sum(self.threads.map(self.loss_of, self.shares(0, tokens, targets)))

    def loss_of(self, share):
        weight, _, tokens, targets = share
        loss, _ = cross_entropy(forward(self.m, tokens), targets)
        return weight * float(loss)

    def sample(self, ids, **settings):
        return generate.complete(self.m, ids, **settings)

    def state(self):
        """As NumPy has it"""
        return self.m, self.moments

    def any(self, wish):
        """Whether one of the processes has it"""
        return wish


def add(a, b):
    a += b
    return a


def scale(factor, a):
    a *= factor
