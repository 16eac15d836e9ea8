"""Continue prompts: stream, complete and complete_batch.

The same seed and sample number give the same tokens alone and in a batch, unless rounding decides between two tokens.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..checks import check_finite, check_model, no_overflow
from ..fast.turns import in_turns, one_at_a_time
from ..params import Model
from . import scheduler
from .kv import new_kv
from .options import DecodingOptions, check_prompts
from .sampling import sample
from .scheduler import Draw, StepFunctions
from .step import gpt2_next


def stream(
    m: Model,
    ids: Sequence[int] | np.ndarray,
    max_new_tokens: int = 200,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: Iterable[int | str] = (),
    sample: int = 0,
) -> Iterator[int]:
    """Yield the new tokens of a prompt one by one, as soon as each is drawn

    Arguments:
        m: the model, as init and load return it.
        ids: the token ids of the prompt, at least one. A prompt that is longer than the context loses its beginning.
        max_new_tokens: the largest number of tokens to draw, from 0.
        temperature: the divisor of the logits, from 0. 0 always takes the best token.
        top_k: draw from the top_k best tokens. 0 keeps all.
        top_p: then draw from the best tokens that have probability top_p together, from 0 to 1. 1 keeps all.
        seed: the seed of the random numbers, from 0 to 2**64 - 1.
        stop: token ids and strings that end the sequence. The stop id isn't yielded, the tokens of a stop string are.
        sample: the number of the sample, from 0 to 2**32 - 1. Each number gives other random numbers for the same seed.

    Raises GPTError if an argument is invalid, before the first token is drawn, or later if the logits aren't finite.

    Example:
        >>> import numpy_gpt
        >>> m = numpy_gpt.load("storyteller")
        >>> tokens = numpy_gpt.stream(m, m.tokenizer.encode("Once upon a time"), 5, temperature=0)
        >>> "".join(m.tokenizer.decode([token]) for token in tokens)
        ', there was a little'
    """
    options = DecodingOptions(max_new_tokens, temperature, top_k, top_p, seed, sample)
    new = draws(m, [ids], options, stop)
    return (draw.token for draw in new if draw.end != "id")


def complete(
    m: Model,
    ids: Sequence[int] | np.ndarray,
    max_new_tokens: int = 200,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: Iterable[int | str] = (),
    sample: int = 0,
) -> list[int]:
    """Return the new tokens of a prompt, without the prompt's own

    Arguments and errors are those of stream.

    Example:
        >>> import numpy_gpt
        >>> m = numpy_gpt.load("storyteller")
        >>> m.tokenizer.decode(numpy_gpt.complete(m, m.tokenizer.encode("Once upon a time"), 5, temperature=0))
        ', there was a little'
    """
    return in_turns(stream(m, ids, max_new_tokens, temperature, top_k, top_p, seed, stop, sample))


def complete_batch(
    m: Model,
    prompts: Iterable[Sequence[int] | np.ndarray],
    max_new_tokens: int = 200,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: Iterable[int | str] = (),
    sample: int = 0,
) -> list[list[int]]:
    """Return a list of new tokens for each prompt

    Arguments:
        prompts: an iterable of prompts, each as in stream.

    The other arguments and the errors are those of stream.

    Repetitions of a prompt take the next sample numbers: sample, sample + 1, ... Different prompts share their random
    numbers at each step, so their draws are correlated. For independent draws, continue each prompt in a call of its
    own, with another seed or sample.

    Example:
        >>> import numpy_gpt
        >>> m = numpy_gpt.load("storyteller")
        >>> prompts = [m.tokenizer.encode(text) for text in ("Once upon a time", "Tom and Lily")]
        >>> [m.tokenizer.decode(new) for new in numpy_gpt.complete_batch(m, prompts, 5, temperature=0)]
        [', there was a little', ' were happy. They liked']
    """
    options = DecodingOptions(max_new_tokens, temperature, top_k, top_p, seed, sample)
    prompts = check_prompts(prompts)
    new: list[list[int]] = [[] for _ in prompts]
    for draw in in_turns(draws(m, prompts, options, stop)):
        if draw.end != "id":
            new[draw.prompt].append(draw.token)
    return new


def draws(
    m: Model, prompts: Iterable[Any], options: DecodingOptions, stop: Any, with_logits: bool = False
) -> Iterator[Draw]:
    """Return an iterator over the new tokens of all prompts, step by step"""
    check_model(m)
    functions = StepFunctions(
        new_kv=partial(new_kv, m.config, m.params.wte.dtype),
        next_logits=partial(next_logits, m),
        sample=sample_each,
        to_array=np.asarray,
    )
    return scheduler.draws(m, prompts, options, stop, functions, with_logits)


def next_logits(m, groups, kv):
    """Return gpt2_next's logits; raise GPTError if they aren't finite"""
    with one_at_a_time(), no_overflow("the output", m.params):
        logits = gpt2_next(groups, m.params, m.config, kv)
    check_finite("the output", logits, m.params)
    return logits


def sample_each(logits, temperature, top_k, top_p, seed, numbers, step):
    """Draw a token of each sample: logits (B,V), B sample numbers -> B token ids"""
    pairs = zip(logits, numbers, strict=True)
    return [sample(z, temperature, top_k, top_p, seed, number, step) for z, number in pairs]
