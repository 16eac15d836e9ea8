"""Prompts to tokens, with a kv: stream, complete, complete_batch.

A prompt that is longer than the context loses its beginning. The same seed gives the same tokens alone and in a batch,
but where rounding decides; a prompt that is given again in a batch takes the next seed.
"""

from functools import partial

import numpy as np

from . import batch
from .batch import Backend
from .checks import check_finite, check_model, no_overflow
from .kv import new_kv
from .model import gpt2_next
from .request import Settings
from .sample import sample


def stream(m, ids, max_new_tokens=200, temperature=1.0, top_k=0, top_p=1.0, seed=0, stop=()):
    """The new ids one by one, as soon as each is drawn

    stop has token ids, which end it and are left out, and texts, which end it when complete: their tokens are there.
    """
    drawn = draws(m, [ids], Settings(max_new_tokens, temperature, top_k, top_p, seed), stop)
    return (draw.token for draw in drawn if draw.end != "id")


def complete(m, ids, max_new_tokens=200, temperature=1.0, top_k=0, top_p=1.0, seed=0, stop=()):
    """The new ids in one list, without the prompt's"""
    return list(stream(m, ids, max_new_tokens, temperature, top_k, top_p, seed, stop))


def complete_batch(m, prompts, max_new_tokens=200, temperature=1.0, top_k=0, top_p=1.0, seed=0, stop=()):
    """The new ids of each prompt"""
    prompts = list(prompts)
    new: list[list[int]] = [[] for _ in prompts]
    for draw in draws(m, prompts, Settings(max_new_tokens, temperature, top_k, top_p, seed), stop):
        if draw.end != "id":
            new[draw.prompt].append(draw.token)
    return new


def draws(m, prompts, settings, stop, with_logits=False):
    """The new tokens of all prompts, step by step"""
    check_model(m)
    backend = Backend(partial(new_kv, m.config, m.params.wte.dtype), partial(read, m), sample_each, np.asarray)
    return batch.draws(m, prompts, settings, stop, backend, with_logits)


def read(m, groups, kv):
    with no_overflow("the output", m.params):
        logits = gpt2_next(groups, m.params, m.config, kv)
    check_finite("the output", logits, m.params)
    return logits


def sample_each(logits, temperature, top_k, top_p, seeds, step):
    return [sample(z, temperature, top_k, top_p, seed, step) for z, seed in zip(logits, seeds, strict=True)]
