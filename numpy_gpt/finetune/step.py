"""Fine-tune a model one optimiser step at a time; threads share the rows of a batch, as in numpy_gpt.train."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from .. import adamw, generate
from ..adamw import Moments
from ..config import Config
from ..fast.threads import shared
from ..fast.turns import one_at_a_time
from ..noise import Noise
from ..params import Model, tree_map
from ..train.step import PARAMETERS_PER_TOKEN, add, scale
from .trainable import Trainable, effective, trained_gradients

Arrays = tuple[np.ndarray, ...]  # with a row for each text; the first are the tokens (B,T)
Batch = tuple[int, Arrays]  # the number of its first text in the step, and the arrays


class Objective(NamedTuple):
    """Define what a run minimises and how it is evaluated"""

    loss_and_grads: Callable[..., tuple[Any, Any]]  # params, config, first block, arrays, noise -> the mean, its grads
    evaluate: Callable[..., Any]  # params, config, arrays -> the results for these rows
    weight: Callable[[Arrays], float]  # the number of terms in the mean
    combine: Callable[[Sequence[Any]], Any]  # the results of several parts of a batch -> the batch's


class Trainer:
    """Fine-tune the reference in one process, as loop.Trainer requires"""

    leader = True

    def __init__(self, objective: Objective, model: Trainable, config: Config, moments: Moments, options: Any):
        self.objective, self.model, self.config, self.moments, self.options = objective, model, config, moments, options
        self.threads = shared()

    def step(self, t: int, lr: float, batches: Sequence[Batch]) -> float:
        """Take step t = 1, 2, ... of AdamW on the mean loss over all terms of the batches, and return this loss"""
        s, losses = self.options, []
        total: Any = None
        params, s_adapt = effective(self.model)
        terms = sum(self.objective.weight(arrays) for _, arrays in batches)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the loop checks the loss and the result
            for first, arrays in batches:
                f = partial(self.gradients, params, t, terms)
                for loss, grads in self.map(f, first, arrays):
                    losses.append(loss)
                    total = grads if total is None else tree_map(add, total, grads)
            grads = trained_gradients(total, self.model, s_adapt)
            adamw.clip(grads, s.clip or math.inf)
            adamw.step(self.model.trained, grads, self.moments, t, lr, s.beta1, s.beta2, s.eps, s.weight_decay)
        return sum(losses)

    def map(self, f: Callable, first: int, arrays: Arrays) -> list[Any]:
        """Return f(number of the first row, arrays) of a share of the rows for each thread"""
        n = self.number_of_threads(arrays)
        edges = [len(arrays[0]) * i // n for i in range(n + 1)]
        shares = [(first + a, tuple(array[a:b] for array in arrays)) for a, b in pairwise(edges) if a < b]
        with one_at_a_time(), self.threads.single_threaded_blas() if n > 1 else nullcontext():
            return list(self.threads.map(lambda share: f(*share), shares))

    def number_of_threads(self, arrays: Arrays) -> int:
        """Return the number of threads that share a batch: one if summing gradients would cost more than is saved"""
        threaded = self.threads.blas and self.config.num_parameters() <= PARAMETERS_PER_TOKEN * arrays[0].size
        return min(self.threads.n, len(arrays[0])) if threaded else 1

    def gradients(self, params, t, terms, first, arrays):
        """Return the loss and the gradients of a share, multiplied by its weight in the mean over all terms"""
        noise = Noise(self.options.seed, t, first) if self.config.dropout else None
        loss, grads = self.objective.loss_and_grads(params, self.config, self.model.first, arrays, noise)
        weight = self.objective.weight(arrays) / terms
        if weight != 1:
            tree_map(partial(scale, weight), grads)
        return weight * float(loss), grads

    def evaluate(self, arrays: Arrays) -> Any:
        """Return the results of the objective for a batch, without dropout"""
        params, _ = effective(self.model)
        with np.errstate(over="ignore", invalid="ignore"):
            parts = self.map(lambda _, share: self.objective.evaluate(params, self.config, share), 0, arrays)
        return self.objective.combine(parts)

    def sample(self, tokenizer: Any, ids: list[int], **options: Any) -> list[int]:
        """Return the ids of a continuation"""
        return generate.complete(Model(self.config, effective(self.model)[0], tokenizer), ids, **options)

    def state(self) -> tuple[Any, ...]:
        """Return the effective parameters, the trained ones and both moments"""
        return effective(self.model)[0], self.model.trained, *self.moments

    def any_process(self, condition: bool) -> bool:
        return condition
