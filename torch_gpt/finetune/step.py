"""Fine-tune a model on PyTorch one optimiser step at a time: the twin of numpy_gpt/finetune/step.py."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from numpy_gpt.adamw import Moments
from numpy_gpt.config import Config
from numpy_gpt.finetune.step import Arrays, Batch
from numpy_gpt.finetune.trainable import Trainable
from numpy_gpt.params import GPT2, Model, tree_map

from .. import adamw, generate
from ..lora import adapt
from ..noise import Noise
from ..params import explained_memory_errors, tensor, to_numpy

CPU = torch.device("cpu")
SMALLER_BATCH = "give a smaller --batch-size or --context."
SMALLER_MODEL = "choose a smaller model, or train fewer parameters with --train or --lora."
OTHER_DEVICE = "give --device cpu."  # the remedy for predict, which has none of these options


class Objective(NamedTuple):
    """Define what a run minimises and how it is evaluated"""

    mean_loss: Callable[..., torch.Tensor]  # params, config, first block, tensors, noise -> the mean
    evaluate: Callable[..., torch.Tensor]  # params, config, tensors -> the results for these rows
    weight: Callable[[Any], float]  # the number of terms in the mean


class Trainer:
    """Fine-tune the twin, as loop.Trainer requires"""

    leader = True

    def __init__(
        self,
        objective: Objective,
        model: Trainable,
        config: Config,
        moments: Moments,
        options: Any,
        device: torch.device = CPU,
        dtype: torch.dtype = torch.float32,
    ):
        self.objective, self.config, self.options, self.device = objective, config, options, device
        self.remedy = SMALLER_BATCH if options else OTHER_DEVICE
        placed: dict[int, torch.Tensor] = {}  # a trained leaf can be a leaf of params: it becomes one tensor

        def place(a: np.ndarray) -> torch.Tensor:
            if id(a) not in placed:
                placed[id(a)] = tensor(a).to(device, dtype)
            return placed[id(a)]

        self.model = model._replace(params=tree_map(place, model.params), trained=tree_map(place, model.trained))
        self.moments = Moments(*(tree_map(place, tree) for tree in moments))
        tree_map(torch.Tensor.requires_grad_, self.model.trained)

    def step(self, t: int, lr: float, batches: Sequence[Batch]) -> float:
        """Take step t = 1, 2, ... of AdamW on the mean loss over all terms of the batches, and return this loss"""
        s, total, trained = self.options, 0.0, self.model.trained
        with explained_memory_errors(self.remedy):
            terms = sum(self.objective.weight(arrays) for _, arrays in batches)
            for first, arrays in batches:
                noise = Noise(s.seed, t, first) if self.config.dropout else None
                weight = self.objective.weight(arrays) / terms
                batch = self.to_device(arrays)
                loss = weight * self.objective.mean_loss(self.effective(), self.config, self.model.first, batch, noise)
                loss.backward()
                total += float(loss.detach())
            grads = tree_map(lambda p: p.grad, trained)
            adamw.clip(grads, s.clip or math.inf)
            adamw.step(trained, grads, self.moments, t, lr, s.beta1, s.beta2, s.eps, s.weight_decay)
            tree_map(clear_gradient, trained)
        return total

    def effective(self) -> GPT2:
        """Return the parameters to compute with: those of the model, with adapters added"""
        params, trained, first, scale = self.model
        if scale is None:
            return params
        n = first or 0
        return params._replace(h=params.h[:n] + adapt(params.h[n:], trained.h[n:], scale))

    def to_device(self, arrays: Arrays) -> tuple[torch.Tensor, ...]:
        return tuple(torch.from_numpy(np.ascontiguousarray(a)).to(self.device) for a in arrays)

    @torch.no_grad()
    def evaluate(self, arrays: Arrays) -> np.ndarray:
        """Return the results of the objective for a batch, without dropout"""
        with explained_memory_errors(self.remedy):
            return self.objective.evaluate(self.effective(), self.config, self.to_device(arrays)).cpu().numpy()

    @torch.no_grad()
    def sample(self, tokenizer: Any, ids: list[int], **options: Any) -> list[int]:
        """Return the ids of a continuation"""
        with explained_memory_errors(self.remedy):
            params = tree_map(torch.detach, self.effective())
        return generate.complete(Model(self.config, params, tokenizer), ids, **options)

    @torch.no_grad()
    def state(self) -> tuple[Any, ...]:
        """Return the effective parameters, the trained ones and both moments as NumPy arrays"""
        with explained_memory_errors(self.remedy):
            return tuple(to_numpy(tree) for tree in (self.effective(), self.model.trained, *self.moments))

    def any_process(self, condition: bool) -> bool:
        return condition


def clear_gradient(p: torch.Tensor) -> None:
    p.grad = None
