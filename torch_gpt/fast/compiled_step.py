"""Run a decoding step as one function that PyTorch's compiler has compiled, on devices other than CUDA."""

from functools import cache
from typing import NamedTuple

import torch

from numpy_gpt.errors import GPTError

from ..generate.kv import new_kv
from ..model import block, merge_heads, split_qkv
from ..ops import attention, embedding, layernorm, unembedding

MAX_SHAPES = 256  # for which one function may be compiled; PyTorch's default is 8


class CompiledStep:
    """Store a kv for R sequences of up to N tokens, and the inputs and outputs of a step"""

    def __init__(self, m, R, N, key):
        self.key = key
        wte = m.params.wte
        self.kv = new_kv(m.config, wte.dtype, wte.device, R, N)
        self.clock = torch.zeros(R + 1, dtype=torch.int64, device=wte.device)
        self.positions, self.number = self.clock[:R], self.clock[R]  # of the new tokens; of the step
        self.last = torch.zeros(R, dtype=torch.int64, device=wte.device)  # tokens
        self.logits = torch.zeros(R, m.config.n_vocab, dtype=wte.dtype, device=wte.device)

    def set_options(self, cuts, keys):
        """Set temperature, top_k and top_p, and the keys of the random numbers, and begin with step 0"""
        self.cuts = torch.tensor(cuts, dtype=torch.float64, device=self.last.device)
        self.keys = keys.to(self.last.device)
        self.number.zero_()

    def set_input(self, positions, tokens):
        """Set the positions and the ids (R,) of the new tokens"""
        self.positions.copy_(torch.from_numpy(positions))
        self.last.copy_(torch.from_numpy(tokens))

    def forward_and_draw(self, p, config, method, V):
        """Compute the logits after the new tokens, and draw the next tokens from the first V of them"""
        self.logits.copy_(run(next_logits, p, config, self.kv, self.positions, self.last))
        self.draw_and_count(method, self.logits[:, :V])

    def draw(self, method, logits, number):
        """Draw the tokens of step `number` from logits (R,V) that were computed elsewhere"""
        self.number.fill_(number)
        self.draw_and_count(method, logits)

    def draw_and_count(self, method, logits):
        self.last = run(draw_if_finite, method, logits, self.cuts, self.keys, self.number)
        self.clock += 1

    def start_reading(self):
        """Keep the tokens for read, so that the next step can be started before it"""
        self.drawn = self.last

    def read(self):
        """Return the tokens as a list of R ids, -1 if a sequence's logits aren't finite"""
        return self.drawn.tolist()


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
    """Return ids (R,), -1 for logits that aren't finite"""
    return draw(logits, *cuts, keys, number).where(logits.isfinite().all(-1), -1)


@torch.no_grad()
def run(f, *args):
    """Return f(*args), compiled in its first call; raise GPTError if PyTorch can't compile here"""
    try:
        with torch._dynamo.config.patch(recompile_limit=MAX_SHAPES):
            return compiled(f)(*args)
    except torch._dynamo.exc.BackendCompilerFailed as e:
        reason = str(e).partition("\n")[0]
        raise GPTError(f"PyTorch can't compile a step here: {reason} Generate without compiling.") from None


@cache
def compiled(f):
    return torch.compile(f, fullgraph=True, dynamic=False)
