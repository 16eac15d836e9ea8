"""A model that is trained: what a step does to it.

The sequences of a batch know nothing of each other, so threads share them, and the gradients of all are added.
"""

import math
from contextlib import nullcontext
from functools import partial

from . import adamw, decode
from .adamw import Moments
from .model import forward, loss_and_grads
from .noise import Noise
from .ops import cross_entropy
from .params import named, tree_map
from .threads import Threads

WORTH = 10**5  # parameters for a token, above which it would cost more to add the gradients than is won


class Trainer:
    leader = True  # of several processes the one that writes

    def __init__(self, m, moments, settings):
        self.m, self.moments, self.settings = m, moments, settings
        self.threads = Threads()
        tokens = settings.batch_size * settings.context
        self.shared = self.threads.n > 1 and m.config.num_parameters() <= WORTH * tokens

    def step(self, t, lr, batches):
        """AdamW's step t = 1, 2, ... on some batches, each the number of its first sequence, tokens, targets -> loss"""
        losses, total = [], None
        with self.threads.instead_of_blas() if self.shared else nullcontext():
            for batch in batches:
                for loss, grads in self.threads.each(partial(self.gradients, t), self.shares(*batch)):
                    losses.append(float(loss))
                    total = grads if total is None else tree_map(add, total, grads)
            if len(losses) > 1:
                tree_map(partial(scale, 1 / len(losses)), total)
            adamw.clip(total, self.settings.clip or math.inf)
            self.threads.each(partial(self.update, t, lr), self.leaves(total))
        return sum(losses) / len(losses)

    def shares(self, first, tokens, targets):
        """The batch, or an equal part of it for each thread"""
        n = self.threads.n if self.shared and len(tokens) % self.threads.n == 0 else 1
        rows = len(tokens) // n
        return [(first + i, tokens[i : i + rows], targets[i : i + rows]) for i in range(0, len(tokens), rows)]

    def gradients(self, t, first, tokens, targets):
        noise = Noise(self.settings.seed, t, first) if self.m.config.dropout else None
        return loss_and_grads(self.m, tokens, targets, noise, self.settings.checkpointing)

    def leaves(self, grads):
        """Of the parameters, their gradients and moments, some for each thread, of about the same size together"""
        trees = (self.m.params, grads, *self.moments)
        groups: list[list] = [[] for _ in range(self.threads.n)]
        for leaf in sorted(zip(*map(arrays, trees), strict=True), key=lambda leaf: -leaf[0].size):
            min(groups, key=lambda group: sum(p.size for p, *_ in group)).append(leaf)
        return [tuple(zip(*group, strict=True)) for group in groups if group]

    def update(self, t, lr, params, grads, m, v):
        s = self.settings
        adamw.step(params, grads, Moments(m, v), t, lr, s.beta1, s.beta2, s.eps, s.weight_decay)

    def loss(self, tokens, targets):
        """The mean over all tokens, without dropout"""
        with self.threads.instead_of_blas() if self.shared else nullcontext():
            losses = self.threads.each(self.loss_of, self.shares(0, tokens, targets))
        return sum(losses) / len(losses)

    def loss_of(self, _, tokens, targets):
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


def arrays(tree):
    return [a for _, a in named(tree)]


def add(a, b):
    a += b
    return a


def scale(factor, a):
    a *= factor
