"""Prompts to tokens, with a kv: stream, complete, complete_batch.

A prompt that is longer than the context loses its beginning. The same seed and sample give the same tokens alone and in
a batch, but where rounding decides. In a batch the repetitions of a prompt take the next sample numbers: sample,
sample + 1, ... Different prompts of a batch share their random numbers at each step, so their draws are correlated. For
independent draws, give each prompt another seed or sample in a call of its own.
"""

from functools import partial

import torch

from numpy_gpt.checks import check_finite
from numpy_gpt.generate import scheduler
from numpy_gpt.generate.options import DecodingOptions, check_prompts
from numpy_gpt.generate.scheduler import Backend

from ..fast.compiled import Decoder
from ..language_model import check
from .kv import new_kv
from .sampling import sample
from .step import gpt2_next


def stream(m, ids, max_new_tokens=200, temperature=1.0, top_k=0, top_p=1.0, seed=0, stop=(), compiled=False, sample=0):
    """The new ids one by one, as soon as each is drawn

    stop has token ids, which end it and are left out, and texts, which end it when complete: their tokens are there.
    sample is the number of the sample: each number gives other random numbers for the same seed.
    """
    settings = DecodingOptions(max_new_tokens, temperature, top_k, top_p, seed, sample)
    drawn = draws(m, [ids], settings, stop, compiled=compiled)
    return (draw.token for draw in drawn if draw.end != "id")


def complete(
    m, ids, max_new_tokens=200, temperature=1.0, top_k=0, top_p=1.0, seed=0, stop=(), compiled=False, sample=0
):
    """The new ids in one list, without the prompt's"""
    return list(stream(m, ids, max_new_tokens, temperature, top_k, top_p, seed, stop, compiled, sample))


def complete_batch(
    m, prompts, max_new_tokens=200, temperature=1.0, top_k=0, top_p=1.0, seed=0, stop=(), compiled=False, sample=0
):
    """Return the new ids of each prompt

    Different prompts share their random numbers, so their draws are correlated. The repetitions of a prompt don't: they
    take the sample numbers sample, sample + 1, ...
    """
    settings = DecodingOptions(max_new_tokens, temperature, top_k, top_p, seed, sample)
    prompts = check_prompts(prompts)
    new: list[list[int]] = [[] for _ in prompts]
    for draw in draws(m, prompts, settings, stop, compiled=compiled):
        if draw.end != "id":
            new[draw.prompt].append(draw.token)
    return new


def draws(m, prompts, settings, stop, with_logits=False, compiled=False):
    """The new tokens of all prompts, step by step; compiled: for GPUs"""
    check(m)
    wte = m.params.wte
    backend = Backend(partial(new_kv, m.config, wte.dtype, wte.device), partial(read, m), sample, numbers)
    if compiled:
        prompts = list(prompts)
        decoder = Decoder(m, len(prompts))
        backend = Backend(decoder.new_kv, decoder.read, decoder.sample, numbers, fixed=True)
    return scheduler.draws(m, prompts, settings, stop, backend, with_logits)


def read(m, groups, kv):
    logits = gpt2_next(groups, m.params, m.config, kv)
    check_finite("the output", logits, m.params, torch.isfinite)
    return logits


def numbers(logits):
    return logits.double().cpu().numpy()
