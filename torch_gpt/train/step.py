"""Train a model on PyTorch one optimiser step at a time, in one process or in several.

In float32 and float64 this is the twin of numpy_gpt/train/step.py: the same batches, dropout masks, clipping and bits
of AdamW. With bfloat16, --compile or --shard it is faster: it uses PyTorch's fused AdamW. In bfloat16, activations and
matmuls are in that dtype, and the weights, their gradients and their moments in float32.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.functional import pad
from torch.nn.parallel import DistributedDataParallel

from numpy_gpt.adamw import Moments
from numpy_gpt.checks import check_finite
from numpy_gpt.errors import GPTError
from numpy_gpt.params import Head, Model, tree_map
from numpy_gpt.train.backend import Batch
from numpy_gpt.train.options import TrainOptions

from .. import adamw, generate
from ..fast.fused import Fused
from ..fast.modules import GPT, shard
from ..fast.tensor_noise import numbers_of, tensor_noise
from ..noise import Noise
from ..params import explained_memory_errors, from_numpy

MULTIPLE = 128  # the vocabulary is padded to a multiple: tensor cores are faster on it
SMALLER_BATCH = "give a smaller --batch-size and a larger --accumulate."
SMALLER_MODEL = "train a smaller model, since a parameter needs 16 bytes, or split it over several GPUs by --shard."


class Execution(NamedTuple):
    """Describe how and where PyTorch computes"""

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    compile: bool = False
    shard: bool = False
    rank: int = 0  # of this process
    world: int = 1  # processes

    @property
    def fast(self) -> bool:
        """Return whether PyTorch's fused AdamW replaces the twin's"""
        return self.compile or self.shard or self.dtype == torch.bfloat16


ON_CPU = Execution()


class Trainer:
    """Train the twin, as TrainerLike requires; each of several processes has a trainer"""

    def __init__(self, m: Model, moments: Moments, options: TrainOptions, execution: Execution = ON_CPU):
        check_execution(m, options, execution)
        self.options, self.execution, self.leader = options, execution, execution.rank == 0
        self.m, self.n_vocab = m, m.config.n_vocab
        params, *placed = (self.place(tree) for tree in (m.params, *moments))
        compile_for = execution.device if execution.compile else None
        self.gpt = GPT(m._replace(params=params), options.checkpointing, execution.shard, compile_for, execution.dtype)
        if execution.shard:
            shard(self.gpt, execution.device, execution.dtype)
        self.ddp = DistributedDataParallel(self.gpt) if execution.world > 1 and not execution.shard else None
        self.params = self.gpt.tree()
        adamw.check_eps(options.eps, options.beta2, 1, self.params)
        trained: Any = None if execution.shard else self.unpad(tree_map(torch.detach, self.params))
        self.m = m._replace(params=trained)
        self.fused = Fused(self.params, placed, options) if execution.fast else None
        self.moments = self.fused.moments if self.fused else Moments(*placed)

    def place(self, tree):
        """Return the tree as tensors on the device; bfloat16 pads the vocabulary, and the loss ignores the padding"""
        dtype = torch.float64 if self.execution.dtype == torch.float64 else torch.float32
        device = "cpu" if self.execution.shard else self.execution.device  # FSDP2 moves each process's share to its GPU
        tree = from_numpy(self.m._replace(params=tree), device, dtype).params
        rows = -self.n_vocab % MULTIPLE if self.execution.dtype == torch.bfloat16 else 0
        return map_vocabulary(lambda w: pad(w, (0, 0, 0, rows)), tree) if rows else tree

    def unpad(self, tree):
        return map_vocabulary(lambda w: w[: self.n_vocab], tree)

    def step(self, t: int, lr: float, batches: Sequence[Batch]) -> float | torch.Tensor:
        """Take step t = 1, 2, ... of AdamW on the mean loss of the batches, and return this loss

        The fused AdamW returns a tensor, so that the caller need not wait for the GPU.
        """
        s = self.options
        with explained_errors():
            loss = self.backward(t, batches)
            if self.fused:
                norm = self.fused.step(t, lr, s.clip or math.inf)
                return torch.where(norm.isfinite(), loss, math.nan)
            check_finite("the loss", loss, self.params, torch.isfinite)
            grads = tree_map(lambda p: p.grad, self.params)
            adamw.clip(grads, s.clip or math.inf)
            adamw.step(self.params, grads, self.moments, t, lr, s.beta1, s.beta2, s.eps, s.weight_decay)
            self.gpt.zero_grad()
            return float(loss)

    def backward(self, t, batches):
        """Add the gradients of this process's rows of each batch; return the mean loss of all processes

        The gradients are averaged over the processes after the last batch.
        """
        losses = []
        for i, (first, tokens, targets) in enumerate(batches, 1):
            rows = len(tokens) // self.execution.world
            start = rows * self.execution.rank
            own = slice(start, start + rows)
            self.set_gradient_sync(i == len(batches))
            noise = self.noise(t, first + start, rows)
            loss = self.forward(self.ddp or self.gpt, tokens[own], targets[own], noise) / len(batches)
            loss.backward()
            losses.append(loss.detach())
        return self.sum_processes(sum(losses)) / self.execution.world

    def set_gradient_sync(self, sync):
        """Set whether the next backward averages the gradients over the processes"""
        if isinstance(self.gpt, FSDPModule):
            self.gpt.set_requires_gradient_sync(sync)
        if self.ddp:
            self.ddp.require_backward_grad_sync = sync  # as no_sync() does

    def noise(self, t, first, B):
        """Return the noise of step t for B sequences, or None without dropout; a compiled step gets it as tensors"""
        if not self.m.config.dropout:
            return None
        noise = Noise(self.options.seed, t, first)
        return tensor_noise(self.to_device(numbers_of(noise, B))) if self.execution.compile else noise

    def forward(self, run, tokens, targets, noise=None, eager=False):
        return run(self.to_device(tokens), self.to_device(targets), noise, eager)

    def to_device(self, a):
        """Copy from pinned memory, so that the copy doesn't wait for the previous step"""
        a, device = torch.from_numpy(np.ascontiguousarray(a)), self.execution.device
        return a.pin_memory().to(device, non_blocking=True) if device.startswith("cuda") else a

    def sum_processes(self, x):
        """Return the sum of a tensor over all processes"""
        if self.execution.world > 1:
            dist.all_reduce(x)
        return x

    @torch.no_grad()
    def loss(self, tokens: np.ndarray, targets: np.ndarray) -> float:
        """Return the mean loss over all tokens, without dropout

        It isn't compiled, since each new shape would be compiled again.
        """
        rows = slice(self.execution.rank, None, self.execution.world)
        n = len(tokens[rows])
        x, y = (tokens[rows], targets[rows]) if n else (tokens[:1], targets[:1])  # FSDP2 needs every process
        with explained_errors():
            mean = self.forward(self.gpt, x, y, eager=True)
            return float(self.sum_processes(mean.double() * n)) / len(tokens)

    def sample(self, ids: list[int], **options: Any) -> list[int] | None:
        """Return the ids of a continuation, or None: only the leader generates, and only with all of the weights"""
        if not self.leader or self.execution.shard:
            return None
        return generate.complete(self.m, ids, **options)

    def state(self) -> tuple[Any, ...] | None:
        """Return the parameters and both moments as NumPy arrays in the leader; every process must call this"""
        with explained_errors():
            trees = [tree_map(self.gather, tree) for tree in (self.params, *self.moments)]
        return tuple(map(self.unpad, trees)) if self.leader else None

    def gather(self, a):
        a = a.full_tensor() if isinstance(a, DTensor) else a
        return a.detach().cpu().numpy() if self.leader else None

    def any_process(self, condition: bool) -> bool:
        with explained_errors():
            return bool(self.sum_processes(torch.tensor(int(condition))))


def check_execution(m: Model, options: TrainOptions, execution: Execution) -> None:
    """Raise GPTError if these options can't be combined"""
    if execution.shard and execution.world == 1:
        raise GPTError(
            "--shard needs several processes to split the weights: start it with torchrun --nproc-per-node K -m."
        )
    if options.batch_size % execution.world:
        raise GPTError(
            f"--batch-size {options.batch_size} can't be split over {execution.world} processes: choose a multiple of "
            f"{execution.world}."
        )


def map_vocabulary(f, tree):
    """Return the tree with f applied to the leaves with a row per token: wte and an untied head"""
    return tree._replace(wte=f(tree.wte), head=tree.head and Head(f(tree.head.w)))


@contextmanager
def explained_errors(remedy: str = SMALLER_BATCH) -> Iterator[None]:
    """Turn PyTorch's errors of memory and of lost processes into GPTError or MemoryError"""
    try:
        with explained_memory_errors(remedy):
            yield
    except RuntimeError as e:
        if dist.is_initialized() and ("gloo" in str(e) or isinstance(e, dist.DistError)):
            raise GPTError("another process of this run has ended, so this one must end too.") from None
        raise
