"""Decoding for GPUs: a step compiled and, on CUDA, replayed as one graph.

A graph repeats the same kernels on the same addresses. So all sequences stand in one kv of a fixed size, a row each,
the position of each is in a tensor, and what has ended stays. Prompts go through gpt2_next into kvs of their own, which
the first step moves into that one; what is read again where the context is full goes through it too.
"""

import weakref
from collections import defaultdict, deque
from functools import cache, cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.weak import WeakTensorKeyDictionary

from numpy_gpt.checks import check_finite
from numpy_gpt.errors import GPTError
from numpy_gpt.generate.step import one_row
from numpy_gpt.params import named

from ..generate.kv import new_kv
from ..generate.sampling import rule
from ..generate.step import gpt2_next
from ..model import block, merge_heads, split_qkv
from ..noise import keys
from ..ops import attention, embedding, layernorm, unembedding

FREE = WeakTensorKeyDictionary()  # a model's wte -> its last steps that no call uses: they go when the model goes
COMPILED_SHAPES = 256  # of one function; PyTorch's default is 8, after which it raises


class Decoder:
    """What a Backend does, for one call with R prompts"""

    def __init__(self, m, R):
        self.m, self.R, self.N = m, R, 64
        self.held = False

    def new_kv(self, B, N):
        wte, config = self.m.params.wte, self.m.config
        self.N = min(config.n_ctx, max(self.N, 1 << (N - 1).bit_length()))  # few sizes, so that few are compiled
        return new_kv(config, wte.dtype, wte.device, B, N)

    @cached_property
    def step(self):
        """One of the model's that is free, or a new one; it is given back when this call is over"""
        free = FREE.setdefault(self.m.params.wte, deque(maxlen=2))
        weights = [(a.data_ptr(), a.stride()) for _, a in named(self.m.params)]
        places = self.R, self.N, self.m.config, weights
        step = next((step for step in free if step.places == places), None)
        if step:
            free.remove(step)
        else:
            step = Step(self.m, self.R, self.N, places)
        weakref.finalize(self, free.append, step)
        return step

    def read(self, groups, kv):
        p, config = self.m.params, self.m.config
        tokens, positions, _, last = one_row(groups, [past[0].length for past in kv])
        if not tokens.size == len(last) == self.R:  # a group alone, or more than one token of each
            return gpt2_next(groups, p, config, kv)
        if not self.held:
            self.step.hold(kv)
            self.held = True
        for layer in chain(*kv):
            layer.length += 1
        return self.step.next_logits(p, config, np.stack([positions, tokens[0]]))

    def sample(self, logits, temperature, top_k, top_p, seed, numbers, step):
        draw, *cuts = rule(temperature, top_k, top_p, logits.shape[-1])
        if step == 0:
            self.step.cuts.copy_(torch.tensor(cuts, dtype=torch.float64))
            self.step.keys.copy_(keys(seed, numbers))
        ids = self.step.sample(draw, logits, step)
        if min(ids) < 0:
            check_finite("the output", logits, self.m.params, torch.isfinite)
        return ids


class Step:
    """A kv for R sequences of up to N tokens, what goes in and comes out of a step, and the graphs between them

    It has no weights, or the model would never go.
    """

    def __init__(self, m, R, N, places):
        self.places = places
        dtype, device = m.params.wte.dtype, m.params.wte.device
        self.kv = new_kv(m.config, dtype, device, R, N)
        self.rows = torch.zeros(2, R, dtype=torch.int64, device=device)  # positions, tokens
        self.logits = torch.zeros(R, m.config.n_vocab, dtype=dtype, device=device)
        self.cuts = torch.zeros(3, dtype=torch.float64, device=device)  # temperature, top_k, top_p
        self.keys = torch.zeros(R, 3, dtype=torch.int64, device=device)
        self.number = torch.zeros((), dtype=torch.int64, device=device)  # of the token that is drawn
        self.graphs = defaultdict(Graph)

    def hold(self, kv):
        """From now on these are rows of this one"""
        for whole, *layers in zip(self.kv, *kv, strict=True):
            whole.k.zero_()  # of what is masked: 0 * nan would be nan
            whole.v.zero_()
            k, v = (a.split([len(layer.k) for layer in layers]) for a in (whole.k, whole.v))
            for layer, *room in zip(layers, k, v, strict=True):
                layer.move(*room)

    def next_logits(self, p, config, rows):
        self.rows.copy_(torch.from_numpy(rows))
        return self.graphs[next_logits](next_logits, p, config, self.kv, *self.rows)

    def sample(self, draw, logits, number):
        V = logits.shape[1]  # without what a padded vocabulary has beyond the tokenizer's
        kept = self.logits[:, :V]
        kept.copy_(logits)
        self.number.fill_(number)
        return self.graphs[draw, V](draw_if_finite, draw, kept, self.cuts, self.keys, self.number).tolist()


class FixedKV(NamedTuple):
    """A KV of a fixed size, whose sequences stand at positions (B,) that the device alone knows"""

    k: torch.Tensor
    v: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor  # (B,1,1,N)

    def attend(self, qkv):
        """qkv (1,B,3C) of one new token each -> (1,B,C)"""
        q, k, v = split_qkv(qkv.reshape(len(self.k), 1, -1), self.k.shape[1])  # (B,H,1,D)
        sequences = torch.arange(len(k), device=k.device)
        self.k[sequences, :, self.positions] = k[:, :, 0]
        self.v[sequences, :, self.positions] = v[:, :, 0]
        return merge_heads(attention(q, self.k, self.v, mask=self.mask)).reshape(1, len(k), -1)


def next_logits(p, config, kv, positions, tokens):
    """positions, tokens (R,), one of each sequence -> logits (R,V)"""
    past = torch.arange(kv[0].k.shape[2], device=tokens.device)
    mask = (past <= positions[:, None])[:, None, None]  # (R,1,1,N)
    x = embedding(tokens[None], p.wte, p.wpe, positions)  # (1,R,C)
    for p_i, kv_i in zip(p.h, kv, strict=True):
        x = block(x, p_i, config, FixedKV(kv_i.k, kv_i.v, positions, mask))
    x = layernorm(x, *p.ln_f)
    return unembedding(x, p.wte if p.head is None else p.head.w)[0]


def draw_if_finite(draw, logits, cuts, keys, number):
    """(R,) ids, or -1 where the logits are not finite: so nothing has to be asked of the device before"""
    return draw(logits, *cuts, keys, number).where(logits.isfinite().all(-1), -1)


class Graph:
    """A function, compiled, of tensors that stay where they are: on CUDA captured in its first call, then replayed"""

    def __init__(self):
        self.graph = None

    @torch.no_grad()
    def __call__(self, f, *args):
        if self.graph is None:
            try:
                return self.first(compiled(f), *args)
            except torch._dynamo.exc.BackendCompilerFailed as e:
                reason = str(e).partition("\n")[0]
                raise GPTError(f"PyTorch can't compile a step here: {reason} Go on without compiling.") from None
        self.graph.replay()
        return self.result

    def first(self, f, *args):
        device = args[-1].device
        with torch._dynamo.config.patch(recompile_limit=COMPILED_SHAPES):
            if device.type != "cuda":
                return f(*args)
            with torch.cuda.device(device):
                self.graph, self.result = capture(f, *args)
        self.graph.replay()
        return self.result


@cache
def compiled(f):
    return torch.compile(f, fullgraph=True, dynamic=False)


def capture(f, *args):
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):  # it compiles, tries kernels and takes workspaces, which no capture allows
            f(*args)  # again: the same numbers to the same places
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        result = f(*args)
    return graph, result
