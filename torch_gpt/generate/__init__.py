"""Continue prompts: stream, complete and complete_batch.

The same seed and sample number give the same tokens alone and in a batch, unless rounding decides between two tokens.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from numpy_gpt.checks import check_finite
from numpy_gpt.generate import scheduler
from numpy_gpt.generate.options import DecodingOptions, check_prompts
from numpy_gpt.generate.scheduler import Draw, StepFunctions
from numpy_gpt.params import Model

from ..fast.compiled import Decoder
from ..language_model import check
from ..params import explained_memory_errors
from .kv import new_kv
from .sampling import sample
from .step import gpt2_next


def stream(
    m: Model,
    ids: Sequence[int] | np.ndarray | torch.Tensor,
    max_new_tokens: int = 200,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: Iterable[int | str] = (),
    compiled: bool = False,
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
        compiled: if True, compile the step of a token, and on CUDA replay it as one graph.
        sample: the number of the sample, from 0 to 2**32 - 1. Each number gives other random numbers for the same seed.

    Raises GPTError if an argument is invalid, before the first token is drawn, or later if the logits aren't finite or
    the device's memory is full.

    Example:
        >>> import torch_gpt
        >>> m = torch_gpt.load("storyteller")
        >>> tokens = torch_gpt.stream(m, m.tokenizer.encode("Once upon a time"), 5, temperature=0)
        >>> "".join(m.tokenizer.decode([token]) for token in tokens)
        ', there was a little'
    """
    options = DecodingOptions(max_new_tokens, temperature, top_k, top_p, seed, sample)
    new = draws(m, [ids], options, stop, compiled=compiled)
    return (draw.token for draw in new if draw.end != "id")


def complete(
    m: Model,
    ids: Sequence[int] | np.ndarray | torch.Tensor,
    max_new_tokens: int = 200,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: Iterable[int | str] = (),
    compiled: bool = False,
    sample: int = 0,
) -> list[int]:
    """Return the new tokens of a prompt, without the prompt's own

    Arguments and errors are those of stream.

    Example:
        >>> import torch_gpt
        >>> m = torch_gpt.load("storyteller")
        >>> m.tokenizer.decode(torch_gpt.complete(m, m.tokenizer.encode("Once upon a time"), 5, temperature=0))
        ', there was a little'
    """
    return list(stream(m, ids, max_new_tokens, temperature, top_k, top_p, seed, stop, compiled, sample))


def complete_batch(
    m: Model,
    prompts: Iterable[Sequence[int] | np.ndarray | torch.Tensor],
    max_new_tokens: int = 200,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: Iterable[int | str] = (),
    compiled: bool = False,
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
        >>> import torch_gpt
        >>> m = torch_gpt.load("storyteller")
        >>> prompts = [m.tokenizer.encode(text) for text in ("Once upon a time", "Tom and Lily")]
        >>> [m.tokenizer.decode(new) for new in torch_gpt.complete_batch(m, prompts, 5, temperature=0)]
        [', there was a little', ' were happy. They liked']
    """
    options = DecodingOptions(max_new_tokens, temperature, top_k, top_p, seed, sample)
    prompts = check_prompts(prompts)
    new: list[list[int]] = [[] for _ in prompts]
    for draw in draws(m, prompts, options, stop, compiled=compiled):
        if draw.end != "id":
            new[draw.prompt].append(draw.token)
    return new


def draws(
    m: Model,
    prompts: Iterable[Any],
    options: DecodingOptions,
    stop: Any,
    with_logits: bool = False,
    compiled: bool = False,
) -> Iterator[Draw]:
    """Return an iterator over the new tokens of all prompts, step by step"""
    check(m)
    if compiled:
        prompts = list(prompts)
        decoder = Decoder(m, len(prompts), look_ahead=m.params.wte.is_cuda and not with_logits)
        functions = StepFunctions(decoder.new_kv, decoder.next_logits, decoder.sample, to_array, fixed_groups=True)
    else:
        wte = m.params.wte
        functions = StepFunctions(
            partial(new_kv, m.config, wte.dtype, wte.device), partial(next_logits, m), sample, to_array
        )
    return explain_full_memory(scheduler.draws(m, prompts, options, stop, functions, with_logits))


def explain_full_memory(draws: Iterator[Draw]) -> Iterator[Draw]:
    """Yield the draws; raise GPTError or MemoryError in place of PyTorch's errors of memory"""
    with explained_memory_errors("draw fewer samples or tokens at once, or use bfloat16 weights."):
        yield from draws


def next_logits(m, groups, kv):
    """Return gpt2_next's logits; raise GPTError if they aren't finite"""
    logits = gpt2_next(groups, m.params, m.config, kv)
    check_finite("the output", logits, m.params, torch.isfinite)
    return logits


def to_array(logits):
    return logits.double().cpu().numpy()
