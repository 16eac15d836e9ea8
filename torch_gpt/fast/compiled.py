"""Decode on GPUs with a compiled step, which CUDA replays as one graph.

A CUDA graph repeats the same kernels on the same addresses. So all sequences are rows of one kv of a fixed size, the
position of each is in a tensor, and sequences that have ended stay in the batch. gpt2_next reads the prompts into kvs
of their own, which the first step moves into the fixed kv. It also reads the newer half of a context that was full.
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
from ..generate.sampling import method
from ..generate.step import gpt2_next
from ..model import block, merge_heads, split_qkv
from ..noise import keys
from ..ops import attention, embedding, layernorm, unembedding

FREE_STEPS = WeakTensorKeyDictionary()  # a model's wte -> its last steps that no call uses; freed with the model
MAX_SHAPES = 256  # for which one function may be compiled; PyTorch's default is 8


class Decoder:
    """Implement the scheduler's StepFunctions for one call with R prompts"""

    def __init__(self, m, R):
        self.m, self.R, self.N = m, R, 64
        self.started = False

    def new_kv(self, B, N):
        wte, config = self.m.params.wte, self.m.config
        power_of_2 = 1 << (N - 1).bit_length()  # so that few sizes are compiled
        self.N = min(config.n_ctx, max(self.N, power_of_2))
        return new_kv(config, wte.dtype, wte.device, B, N)

    @cached_property
    def step(self):
        """Return a free step of the model or a new one; it becomes free again when this Decoder is deleted"""
        free = FREE_STEPS.setdefault(self.m.params.wte, deque(maxlen=2))
        weights = [(a.data_ptr(), a.stride()) for _, a in named(self.m.params)]
        key = self.R, self.N, self.m.config, weights
        step = next((step for step in free if step.key == key), None)
        if step:
            free.remove(step)
        else:
            step = Step(self.m, self.R, self.N, key)
        weakref.finalize(self, free.append, step)
        return step

    def next_logits(self, groups, kv):
        """Return the logits (R,V) after the new tokens; use the compiled step if each sequence has one new token"""
        p, config = self.m.params, self.m.config
        tokens, positions, _, last = one_row(groups, [past[0].length for past in kv])
        if not tokens.size == len(last) == self.R:  # one group of several, or more than one token per sequence
            return gpt2_next(groups, p, config, kv)
        if not self.started:
            self.step.adopt(kv)
            self.started = True
        for layer in chain(*kv):
            layer.length += 1
        return self.step.next_logits(p, config, np.stack([positions, tokens[0]]))

    def sample(self, logits, temperature, top_k, top_p, seed, numbers, step):
        """Draw a token of each sequence; raise GPTError if a logit isn't finite"""
        draw, *cuts = method(temperature, top_k, top_p, logits.shape[-1])
        if step == 0:
            self.step.cuts.copy_(torch.tensor(cuts, dtype=torch.float64))
            self.step.keys.copy_(keys(seed, numbers))
        ids = self.step.sample(draw, logits, step)
        if min(ids) < 0:
            check_finite("the output", logits, self.m.params, torch.isfinite)
        return ids


class Step:
    """Store a kv for R sequences of up to N tokens, the inputs and outputs of a step, and its graphs

    A Step keeps no reference to the weights, so that the model can be freed.
    """

    def __init__(self, m, R, N, key):
        self.key = key
        dtype, device = m.params.wte.dtype, m.params.wte.device
        self.kv = new_kv(m.config, dtype, device, R, N)
        self.rows = torch.zeros(2, R, dtype=torch.int64, device=device)  # positions, tokens
        self.logits = torch.zeros(R, m.config.n_vocab, dtype=dtype, device=device)
        self.cuts = torch.zeros(3, dtype=torch.float64, device=device)  # temperature, top_k, top_p
        self.keys = torch.zeros(R, 3, dtype=torch.int64, device=device)
        self.number = torch.zeros((), dtype=torch.int64, device=device)  # step of the token that is drawn
        self.graphs = defaultdict(Graph)

    def adopt(self, kv):
        """Move the groups' kvs into rows of this step's kv"""
        for whole, *layers in zip(self.kv, *kv, strict=True):
            whole.k.zero_()  # masked positions get weight 0, and 0 * nan would be nan
            whole.v.zero_()
            k, v = (a.split([len(layer.k) for layer in layers]) for a in (whole.k, whole.v))
            for layer, *room in zip(layers, k, v, strict=True):
                layer.move(*room)

    def next_logits(self, p, config, rows):
        """Return the logits (R,V) after one new token per sequence; rows (2,R): their positions and ids"""
        self.rows.copy_(torch.from_numpy(rows))
        return self.graphs[next_logits](next_logits, p, config, self.kv, *self.rows)

    def sample(self, draw, logits, number):
        """Draw the token of this step for each sequence: R ids, -1 if the sequence's logits aren't finite"""
        V = logits.shape[1]  # without the ids that a padded vocabulary has beyond the tokenizer's
        kept = self.logits[:, :V]
        kept.copy_(logits)
        self.number.fill_(number)
        return self.graphs[draw, V](draw_if_finite, draw, kept, self.cuts, self.keys, self.number).tolist()


class FixedKV(NamedTuple):
    """Store a KV of a fixed size, with the positions (B,) of its sequences in a tensor on the device"""

    k: torch.Tensor
    v: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor  # (B,1,1,N)

    def attend(self, qkv):
        """Store the keys and values of one new token per sequence, and attend: qkv (1,B,3C) -> (1,B,C)"""
        q, k, v = split_qkv(qkv.reshape(len(self.k), 1, -1), self.k.shape[1])  # (B,H,1,D)
        sequences = torch.arange(len(k), device=k.device)
        self.k[sequences, :, self.positions] = k[:, :, 0]
        self.v[sequences, :, self.positions] = v[:, :, 0]
        return merge_heads(attention(q, self.k, self.v, mask=self.mask)).reshape(1, len(k), -1)


def next_logits(p, config, kv, positions, tokens):
    """Return the logits (R,V) after one new token per sequence; positions, tokens (R,)"""
    past = torch.arange(kv[0].k.shape[2], device=tokens.device)
    mask = (past <= positions[:, None])[:, None, None]  # (R,1,1,N)
    x = embedding(tokens[None], p.wte, p.wpe, positions)  # (1,R,C)
    for p_i, kv_i in zip(p.h, kv, strict=True):
        x = block(x, p_i, config, FixedKV(kv_i.k, kv_i.v, positions, mask))
    x = layernorm(x, *p.ln_f)
    return unembedding(x, p.wte if p.head is None else p.head.w)[0]


def draw_if_finite(draw, logits, cuts, keys, number):
    """Return ids (R,), -1 for logits that aren't finite, so that the check needs no transfer of its own"""
    return draw(logits, *cuts, keys, number).where(logits.isfinite().all(-1), -1)


class Graph:
    """Compile a function of tensors at fixed addresses; on CUDA capture it in the first call and replay it later"""

    def __init__(self):
        self.graph = None

    @torch.no_grad()
    def __call__(self, f, *args):
        """Return f(*args); all calls of one Graph need the same tensors"""
        if self.graph is None:
            try:
                return self.first(compiled(f), *args)
            except torch._dynamo.exc.BackendCompilerFailed as e:
                reason = str(e).partition("\n")[0]
                raise GPTError(f"PyTorch can't compile a step here: {reason} Generate without compiling.") from None
        self.graph.replay()
        return self.result

    def first(self, f, *args):
        """Run f, and on CUDA capture it"""
        device = args[-1].device
        with torch._dynamo.config.patch(recompile_limit=MAX_SHAPES):
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
    """Return the CUDA graph of f(*args), and the tensors of its result"""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):  # warm up: compiling, tuning and allocating workspaces aren't possible during a capture
            f(*args)  # repeatable, as it writes the same numbers to the same addresses
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        result = f(*args)
    return graph, result
