"""Train a model one optimiser step at a time.

The sequences of a batch don't depend on each other, so threads share them, and their gradients are added.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from .. import adamw, generate
from ..adamw import Moments
from ..fast.threads import shared
from ..fast.turns import one_at_a_time
from ..language_model import forward, loss_and_grads
from ..noise import Noise
from ..ops import cross_entropy
from ..params import Model, tree_map
from .backend import Batch
from .options import TrainOptions

PARAMETERS_PER_TOKEN = 10**5  # above this ratio, summing gradients would cost more than threading saves


class Trainer:
    """Train the reference in one process, as TrainerLike requires"""

    leader = True

    def __init__(self, m: Model, moments: Moments, options: TrainOptions):
        self.m, self.moments, self.options = m, moments, options
        self.threads = shared()
        tokens = options.batch_size * options.context
        threaded = self.threads.blas and m.config.num_parameters() <= PARAMETERS_PER_TOKEN * tokens
        self.n = min(self.threads.n, options.batch_size) if threaded else 1  # threads that share a batch

    def step(self, t: int, lr: float, batches: Sequence[Batch]) -> float:
        """Take step t = 1, 2, ... of AdamW on the mean loss of the batches, and return this loss"""
        losses, s = [], self.options
        total: Any = None
        with one_at_a_time(), self.threads.single_threaded_blas() if self.n > 1 else nullcontext():
            for batch in batches:
                for loss, grads in self.threads.map(partial(self.gradients, t, len(batches)), self.shares(*batch)):
                    losses.append(loss)
                    total = grads if total is None else tree_map(add, total, grads)
            adamw.clip(total, s.clip or math.inf)
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # Run.save checks the result
                adamw.step(self.m.params, total, self.moments, t, lr, s.beta1, s.beta2, s.eps, s.weight_decay)
        return sum(losses)

    def shares(self, first, tokens, targets):
        """Return a share of the batch for each thread, as its weight in the batch's mean, first number and rows"""
        B = len(tokens)
        edges = [B * i // self.n for i in range(self.n + 1)]
        parts = [slice(*edge) for edge in pairwise(edges) if edge[0] < edge[1]]
        return [((p.stop - p.start) / B, first + p.start, tokens[p], targets[p]) for p in parts]

    def gradients(self, t, n_batches, share):
        """Return the share's loss and gradients, multiplied by its weight in the mean over all batches"""
        weight, first, tokens, targets = share
        noise = Noise(self.options.seed, t, first) if self.m.config.dropout else None
        loss, grads = loss_and_grads(self.m, tokens, targets, noise, self.options.checkpointing)
        weight /= n_batches
        if weight != 1:
            tree_map(partial(scale, weight), grads)
        return weight * float(loss), grads

    def loss(self, tokens: np.ndarray, targets: np.ndarray) -> float:
        """Return the mean loss over all tokens, without dropout"""
        with one_at_a_time(), self.threads.single_threaded_blas() if self.n > 1 else nullcontext():
            return sum(self.threads.map(self.weighted_loss, self.shares(0, tokens, targets)))

    def weighted_loss(self, share):
        weight, _, tokens, targets = share
        loss, _ = cross_entropy(forward(self.m, tokens), targets)
        return weight * float(loss)

    def sample(self, ids: list[int], **options: Any) -> list[int]:
        return generate.complete(self.m, ids, **options)

    def state(self) -> tuple[Any, ...]:
        return self.m.params, *self.moments

    def any_process(self, condition: bool) -> bool:
        return condition


def add(a, b):
    a += b
    return a


def scale(factor, a):
    a *= factor
