"""Decode with compiled steps: hand-written kernels in a graph on CUDA, the output of torch.compile elsewhere.

Compiled code needs the same shapes at the same addresses. So all sequences are rows of one kv of a fixed size, the
position of each is in a tensor, and sequences that have ended stay in the batch. gpt2_next reads the prompts into kvs
of their own, which the first step moves into the fixed kv. It also reads the newer half of a context that was full.
"""

import weakref
from collections import deque
from functools import cached_property, partial
from itertools import chain

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from numpy_gpt.checks import not_finite
from numpy_gpt.errors import GPTError
from numpy_gpt.generate.step import one_row
from numpy_gpt.params import named

from ..generate.kv import new_kv
from ..generate.sampling import method
from ..generate.step import gpt2_next
from ..noise import keys

FREE_STEPS = WeakTensorKeyDictionary()  # a model's wte -> its last steps that no call uses; freed with the model


class Decoder:
    """Implement the scheduler's StepFunctions for one call with R prompts

    With look_ahead, a step starts on the GPU before the host reads the tokens of the step before it, so that the GPU
    doesn't wait for Python. The logits of a step are then overwritten before the host can read them.
    """

    def __init__(self, m, R, look_ahead=False):
        self.m, self.R, self.N = m, R, 64
        self.look_ahead = look_ahead
        self.started = False  # the kv is that of the step
        self.follows = False  # the last logits are the step's, so that the device has the positions of the next ones
        self.ahead = False  # the next step has started
        self.room = False  # the kv has room for it

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
            step = step_class(self.m.params.wte.device)(self.m, self.R, self.N, key)
        weakref.finalize(self, free.append, step)
        return step

    def next_logits(self, groups, kv):
        """Return the logits (R,V) after the new tokens; use the compiled step if each sequence has one new token"""
        p, config = self.m.params, self.m.config
        tokens, positions, _, last = one_row(groups, [past[0].length for past in kv])
        self.follows = tokens.size == len(last) == self.R  # else one group of several, or several tokens per sequence
        if not self.follows:
            self.room = self.ahead = False
            return gpt2_next(groups, p, config, kv)
        if not self.started:
            self.adopt(kv)
        for layer in chain(*kv):
            layer.length += 1
        self.room = max(past[0].length for past in kv) < self.N
        if not self.ahead:
            self.step.set_input(positions, tokens[0])
        return self.step.logits  # sample computes them, since one graph computes the logits and draws from them

    def adopt(self, kv):
        """Move the groups' kvs into rows of the step's kv"""
        for whole, *layers in zip(self.step.kv, *kv, strict=True):
            whole.k.zero_()  # masked positions get weight 0, and 0 * nan would be nan
            whole.v.zero_()
            k, v = (a.split([len(layer.k) for layer in layers]) for a in (whole.k, whole.v))
            for layer, *room in zip(layers, k, v, strict=True):
                layer.move(*room)
        self.started = True

    def sample(self, logits, temperature, top_k, top_p, seed, numbers, step):
        """Draw a token of each sequence; raise GPTError if a logit isn't finite"""
        draw, *cuts = method(temperature, top_k, top_p, logits.shape[-1])
        if step == 0:
            self.step.set_options(cuts, keys(seed, numbers))
        forward_and_draw = partial(self.step.forward_and_draw, self.m.params, self.m.config, draw, logits.shape[-1])
        if not self.follows:
            self.step.draw(draw, logits, step)
        elif not self.ahead:
            forward_and_draw()
        self.step.start_reading()
        self.ahead = self.look_ahead and self.room
        if self.ahead:
            forward_and_draw()
        ids = self.step.read()
        if min(ids) < 0:
            raise not_finite("the output", self.m.params, torch.isfinite)
        return ids


def step_class(device):
    """Return the class of steps for a device; what it imports takes a second, which eager decoding doesn't need"""
    if device.type != "cuda":
        from .compiled_step import CompiledStep

        return CompiledStep
    try:
        from .graph_step import GraphStep
    except ImportError as e:
        raise GPTError(
            f"compiled decoding on CUDA needs Triton ({e}): install it, or generate without compiling."
        ) from None
    return GraphStep
