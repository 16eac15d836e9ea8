"""Check the options, prompts and stop conditions of generation; invalid ones raise GPTError."""

import math
import operator
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from ..checks import check_ids
from ..config import Config
from ..errors import GPTError
from ..number import is_index, is_real


class DecodingOptions(NamedTuple):
    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    seed: int
    sample: int = 0  # number of the first sample


def check_decoding_options(options: DecodingOptions) -> DecodingOptions:
    """Check each option's type and range; return them as Python's int and float"""
    n, temperature, top_k, top_p, seed, sample = options
    for name, number in (("max_new_tokens", n), ("top_k", top_k), ("seed", seed), ("sample", sample)):
        if not is_index(number) or number < 0:
            raise GPTError(f"{name} is {number!r}: it must be a whole number of at least 0.")
    n, top_k, seed, sample = (operator.index(number) for number in (n, top_k, seed, sample))
    if seed >= 2**64:
        raise GPTError(f"seed is {seed}: it must be smaller than 2**64.")
    check_samples(sample, 1)
    if not is_real(temperature) or not 0 <= float(temperature) < math.inf:
        raise GPTError(f"temperature is {temperature!r}: it must be finite and at least 0; 0 takes the best token.")
    if not is_real(top_p) or not 0 <= top_p <= 1:
        raise GPTError(f"top_p is {top_p!r}: it must be a probability from 0 to 1; 1 keeps every token.")
    return DecodingOptions(n, float(temperature), top_k, float(top_p), seed, sample)


def check_samples(first: int, count: int) -> None:
    """Check that the sample numbers fit into 32 bits, their place in the counter of the random numbers"""
    if first + count > 2**32:
        last = f", so the last is {first + count - 1}" if count > 1 else ""
        raise GPTError(f"sample is {first}{last}: a sample's number must be smaller than 2**32.")


def check_prompt(ids: Any, config: Config) -> list[int]:
    """Check a prompt's ids, and return them as a list"""
    try:
        ids = ids.tolist() if hasattr(ids, "tolist") else ids
        row = np.array(ids)
    except (ValueError, TypeError, RuntimeError):  # ValueError: nested lists; the others: a tensor on meta
        row = np.empty((0, 0))
    if not isinstance(ids, list | tuple | range):
        raise GPTError(f"ids is {ids!r:.60}: it must be a list of token ids.")
    if not len(ids):
        raise GPTError("ids is empty: give at least one token, such as the tokenizer's eot.")
    if row.ndim > 1:
        raise GPTError("ids contains lists: it must be one list of token ids; complete_batch takes several prompts.")
    check_ids(row, config, "ids")
    return row.tolist()


def check_prompts(prompts: Any) -> list[Any]:
    """Return the prompts as a list; check_prompt checks each"""
    try:
        return list(iter(prompts))
    except TypeError:
        raise GPTError(f"prompts is {prompts!r:.60}: it must be a list of prompts, each a list of ids.") from None


def check_stop(stop: Any) -> tuple[set[int], list[bytes]]:
    """Return the stop ids, and the stop strings as UTF-8 bytes"""
    message = f"stop is {stop!r}: it must be a list of token ids and of strings that aren't empty."
    if isinstance(stop, str | bytes) or not isinstance(stop, Iterable) or getattr(stop, "ndim", 1) == 0:
        raise GPTError(message)
    stop = list(stop)
    if not all(is_index(s) or (isinstance(s, str) and s) for s in stop):
        raise GPTError(message)
    strings = [s for s in stop if isinstance(s, str)]
    if any("\ufffd" in string for string in strings):
        raise GPTError(f"stop is {stop!r}: a stop string can't contain U+FFFD, which replaces invalid bytes in text.")
    try:
        return {operator.index(s) for s in stop if not isinstance(s, str)}, [string.encode() for string in strings]
    except UnicodeEncodeError:
        raise GPTError(f"stop is {stop!r}: a stop string has a character that can't be encoded as UTF-8.") from None
