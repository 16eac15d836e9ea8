"""numpy_gpt/train/step.py on PyTorch: autograd's gradients, one or many processes, and what makes a GPU fast.

In float32 and float64 it is the twin of that file: the same batches, masks, clipping and bits of AdamW. In bfloat16,
compiled or sharded it is fast instead: weights and moments in float32, products in bfloat16, AdamW PyTorch's fused one.
"""

import math
from contextlib import contextmanager
from typing import NamedTuple

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
from numpy_gpt.params import Head, tree_map

from .. import adamw, generate
from ..fast.fused import Fused
from ..fast.modules import GPT, shard
from ..noise import Noise
from ..params import from_numpy

MULTIPLE = 128  # of the vocabulary's size: matrix units like that


class How(NamedTuple):
    """What of training is PyTorch's alone"""

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    compile: bool = False
    shard: bool = False
    rank: int = 0  # of this process
    world: int = 1  # processes

    @property
    def fast(self):
        return self.compile or self.shard or self.dtype == torch.bfloat16


ALONE = How()


class Trainer:
    def __init__(self, m, moments, settings, how=ALONE):
        if how.shard and how.world == 1:
            raise GPTError("--shard needs processes to share the weights: start it by torchrun --nproc-per-node K -m.")
        if settings.batch_size % how.world:
            raise GPTError(f"--batch-size is {settings.batch_size}: {how.world} processes can't share that evenly.")
        if how.compile and m.config.dropout:
            raise GPTError("--compile can't draw NumPy's dropout masks: leave --compile or --dropout out.")
        self.settings, self.how, self.leader = settings, how, how.rank == 0
        self.m, self.n_vocab = m, m.config.n_vocab
        params, *moments = (self.placed(tree) for tree in (m.params, *moments))
        compiled = torch.compile if how.compile else lambda f: f
        self.gpt = GPT(m._replace(params=params), settings.checkpointing, how.shard, compiled)
        if how.shard:
            shard(self.gpt, how.device, how.dtype)
        self.ddp = DistributedDataParallel(self.gpt) if how.world > 1 and not how.shard else None
        self.params = self.gpt.tree()
        adamw.check_eps(settings.eps, settings.beta2, 1, self.params)
        self.m = m._replace(params=None if how.shard else self.unpadded(tree_map(torch.detach, self.params)))
        self.fused = Fused(self.params, moments, settings) if how.fast else None
        self.moments = self.fused.moments if self.fused else Moments(*moments)

    def placed(self, tree):
        """Where it is trained; the loss leaves out what the vocabulary is padded with"""
        dtype = torch.float64 if self.how.dtype == torch.float64 else torch.float32
        device = "cpu" if self.how.shard else self.how.device  # a share goes to the GPU, and no more
        tree = from_numpy(self.m._replace(params=tree), device, dtype).params
        rows = -self.n_vocab % MULTIPLE if self.how.dtype == torch.bfloat16 else 0
        return over_vocabulary(lambda w: pad(w, (0, 0, 0, rows)), tree) if rows else tree

    def unpadded(self, tree):
        return over_vocabulary(lambda w: w[: self.n_vocab], tree)

    def step(self, t, lr, batches):
        """AdamW's step t = 1, 2, ... on some batches, each the number of its first sequence, tokens, targets -> loss"""
        s = self.settings
        with in_words():
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
        """-> the mean loss of all processes, of which each has its rows; their gradients meet after the last batch"""
        losses = []
        for i, (first, tokens, targets) in enumerate(batches, 1):
            rows = len(tokens) // self.how.world
            start = rows * self.how.rank
            mine = slice(start, start + rows)
            noise = Noise(self.settings.seed, t, first + start) if self.m.config.dropout else None
            self.meet(i == len(batches))
            loss = self.forward(self.ddp or self.gpt, tokens[mine], targets[mine], noise) / len(batches)
            loss.backward()
            losses.append(loss.detach())
        return self.total(sum(losses)) / self.how.world

    def meet(self, now):
        if isinstance(self.gpt, FSDPModule):
            self.gpt.set_requires_gradient_sync(now)
        if self.ddp:
            self.ddp.require_backward_grad_sync = now  # what no_sync() sets

    def forward(self, run, tokens, targets, noise=None, eager=False):
        with torch.autocast(torch.device(self.how.device).type, torch.bfloat16, self.how.dtype == torch.bfloat16):
            return run(self.on_device(tokens), self.on_device(targets), noise, eager)

    def on_device(self, a):
        """From pinned memory, so that the copy needn't wait for the step before"""
        a = torch.from_numpy(np.ascontiguousarray(a))
        return a.pin_memory().to(self.how.device, non_blocking=True) if self.how.device.startswith("cuda") else a

    def total(self, x):
        """over all processes"""
        if self.how.world > 1:
            dist.all_reduce(x)
        return x

    @torch.no_grad()
    def loss(self, tokens, targets):
        """The mean over all tokens, without dropout; not compiled, since every other shape would be compiled anew"""
        rows = slice(self.how.rank, None, self.how.world)
        n = len(tokens[rows])
        x, y = (tokens[rows], targets[rows]) if n else (tokens[:1], targets[:1])  # all take part where it is sharded
        with in_words():
            mean = self.forward(self.gpt, x, y, eager=True)
            return float(self.total(mean.double() * n)) / len(tokens)

    def sample(self, ids, **settings):
        if not self.leader or self.how.shard:
            return None  # one process is enough, and has to have the weights
        return generate.complete(self.m, ids, **settings)

    def state(self):
        """As NumPy has it; all processes take part"""
        with in_words():
            params, *moments = (tree_map(self.gathered, tree) for tree in (self.params, *self.moments))
        if not self.leader:
            return None, None
        return self.m._replace(params=self.unpadded(params)), Moments(*map(self.unpadded, moments))

    def gathered(self, a):
        a = a.full_tensor() if isinstance(a, DTensor) else a
        return a.detach().cpu().numpy() if self.leader else None

    def any(self, wish):
        """Whether one of the processes has it"""
        with in_words():
            return bool(self.total(torch.tensor(int(wish))))


def over_vocabulary(f, tree):
    """Of wte, and of a head"""
    return tree._replace(wte=f(tree.wte), head=tree.head and Head(f(tree.head.w)))


@contextmanager
def in_words():
    """What a user can do something about"""
    try:
        yield
    except torch.OutOfMemoryError:
        raise GPTError("the GPU's memory is full: give a smaller --batch-size and more --accumulate.") from None
    except RuntimeError as e:  # as gloo says it, and NCCL
        if "DefaultCPUAllocator" in str(e):
            raise MemoryError from None
        if dist.is_initialized() and ("gloo" in str(e) or isinstance(e, dist.DistError)):
            raise GPTError("another process of this run has ended, so this one must end too.") from None
        raise
