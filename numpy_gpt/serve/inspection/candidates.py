"""Compute the probabilities of the next token before and after temperature, top-k and top-p."""

from typing import NamedTuple

import numpy as np

from ...errors import GPTError
from ...generate.options import DecodingOptions, check_decoding_options
from ...generate.sampling import best, survivors
from ...number import is_real
from ..parameters import shown
from .numbers import log_softmax

COUNT = 20  # candidates of an answer
SETTINGS = ("temperature", "top_k", "top_p")


class Stages(NamedTuple):
    """Hold the probabilities (V,) after each setting, and the ids that each setting removes"""

    before: np.ndarray  # of the model
    tempered: np.ndarray  # after temperature
    after: np.ndarray  # after all settings: of a draw
    removed: dict[str, np.ndarray]  # setting -> mask (V,) of the ids that it removes


def answer_candidates(request):
    """Return the best candidates at a position with their probabilities, and what each setting removes"""
    position = request.position()
    options = read_settings(request)
    logits = request.logits(position)
    stages = apply_settings(logits, options.temperature, options.top_k, options.top_p)
    ids = best(logits.astype(np.float64), min(COUNT, len(logits)))
    return {
        "candidates": [describe(request, stages, i) for i in ids],
        "removed": {name: count_removed(stages, name) for name in SETTINGS},
        "kept": int(len(logits) - sum(mask.sum() for mask in stages.removed.values())),
        "next": describe_next(request, stages, position),
    }


def read_settings(request):
    """Return the three settings as checked DecodingOptions"""
    values = {name: request.body.get(name, off) for name, off in zip(SETTINGS, (1.0, 0, 1.0), strict=True)}
    for name, value in values.items():
        if not is_real(value):
            raise GPTError(f"{name} is {shown(value)}: it must be a number.")
    temperature, top_k, top_p = values.values()
    return check_decoding_options(DecodingOptions(0, temperature, top_k, top_p, seed=0))


def apply_settings(logits, temperature, top_k, top_p):
    """Return the Stages of logits (V,), with the ids that sampling.sample draws from"""
    before = np.exp(log_softmax(logits))
    if temperature == 0:
        tempered = np.zeros_like(before)
        tempered[logits.argmax()] = 1
        nothing = np.zeros(len(before), bool)
        return Stages(before, tempered, tempered, {"temperature": tempered == 0, "top_k": nothing, "top_p": nothing})
    z = logits.astype(np.float64)
    with np.errstate(over="ignore"):  # a tiny temperature: all but the best become -inf
        z = (z - z.max()) / temperature
    tempered = np.exp(z) / np.exp(z).sum()
    in_top_k, kept = (mask_of(survivors(z, top_k, p), len(z)) for p in (1.0, top_p))
    after = np.where(kept, tempered, 0) / tempered[kept].sum()
    removed = {"temperature": np.zeros(len(z), bool), "top_k": ~in_top_k, "top_p": in_top_k & ~kept}
    return Stages(before, tempered, after, removed)


def mask_of(ids, n):
    """Return a mask (n,) that is True at the ids"""
    mask = np.zeros(n, bool)
    mask[ids] = True
    return mask


def describe(request, stages, i):
    """Return the probabilities of a candidate, and the setting that removes it or None"""
    return {
        "token": request.token(i),
        "before": float(stages.before[i]),
        "tempered": float(stages.tempered[i]),
        "after": float(stages.after[i]),
        "removed_by": next((name for name, mask in stages.removed.items() if mask[i]), None),
    }


def count_removed(stages, name):
    """Return how many tokens a setting removes, and their probability before it removes them"""
    mask = stages.removed[name]
    p = stages.before if name == "temperature" else stages.tempered
    return {"tokens": int(mask.sum()), "probability": float(p[mask].sum())}


def describe_next(request, stages, position):
    """Return the token that follows in the prompt as a candidate with its rank, or None if there is none"""
    i = request.ids[position + 1] if position + 1 < len(request.ids) else request.n_vocab
    if i >= request.n_vocab:
        return None
    p = stages.before
    rank = 1 + int((p > p[i]).sum() + (p[:i] == p[i]).sum())  # a tie goes to the lower id
    return describe(request, stages, i) | {"rank": rank}
