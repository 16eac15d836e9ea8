"""Continue a batch of prompts of different lengths, with the operations of either framework.

Sequences of one length form a group with one kv. Nothing is padded, so each sequence gets the tokens that it would get
alone, up to rounding. Groups share the matmuls with the weights. All sequences of a group grow by one token per step.
When their context is full, the older half is dropped and the rest is recomputed.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..config import Config
from ..params import Model
from .options import DecodingOptions, check_decoding_options, check_prompt, check_samples
from .stopping import StopConditions

CHUNK = 512  # rows of a prompt that are read at once: more rows would take more memory and no less time


class StepFunctions(NamedTuple):
    """Bundle the operations that the scheduler needs from a framework"""

    new_kv: Callable[[int, int], list[Any]]  # B, N -> a kv for B sequences of up to N tokens
    next_logits: Callable[[list[np.ndarray], list[list[Any]]], Any]  # groups of (B,T) tokens, their kvs -> (ΣB,V)
    sample: Callable[..., list[int]]  # logits (ΣB,V), temperature, top_k, top_p, seed, ΣB numbers, step -> ΣB tokens
    to_array: Callable[[Any], np.ndarray]  # logits (V,) -> the same in NumPy
    fixed_groups: bool = False  # no shape may change: sequences that have ended stay in their group


class Draw(NamedTuple):
    """Describe a new token of one prompt"""

    prompt: int  # index in the batch
    token: int
    end: str | None  # "id": the token is a stop id; "text": it completes a stop string; "length"; None: no end yet
    logits: np.ndarray | None  # (V,), if they were requested
    held: int  # bytes at the end of the new text that belong, or may belong, to a stop string


def draws(
    m: Model,
    prompts: Iterable[Any],
    options: DecodingOptions,
    stop: Any,
    functions: StepFunctions,
    with_logits: bool = False,
) -> Iterator[Draw]:
    """Return an iterator over the new tokens of all prompts, step by step; check the arguments before it starts"""
    options = check_decoding_options(options)
    conditions = StopConditions(stop, m.tokenizer)
    prompts = [check_prompt(ids, m.config) for ids in prompts]
    samples = number_samples(prompts, options.sample)
    windows = [ids[-m.config.n_ctx :] for ids in prompts]  # the tokens that fit into the context
    return draw_tokens(m, windows, samples, options, conditions, functions, with_logits)


def draw_tokens(
    m: Model,
    prompts: list[list[int]],
    samples: list[int],
    options: DecodingOptions,
    conditions: StopConditions,
    functions: StepFunctions,
    with_logits: bool,
) -> Iterator[Draw]:
    """Yield a token of every prompt that hasn't ended, step after step, until all have ended"""
    n, *cuts, seed, _ = options
    if n == 0:
        return
    groups = make_groups(m.config, prompts, n, functions)
    n_vocab = m.tokenizer.n_vocab if m.tokenizer else None  # a padded vocabulary has more ids, which have no text
    ended: set[int] = set()
    step = 0
    while len(ended) < len(prompts):
        logits = read_unread(groups, functions)[:, :n_vocab]
        sequences = [pair for group in groups for pair in zip(group.prompts, group.ids, strict=True)]
        tokens = functions.sample(logits, *cuts, seed, [samples[prompt] for prompt, _ in sequences], step)
        step += 1
        for i, ((prompt, ids), token) in enumerate(zip(sequences, tokens, strict=True)):
            ids.append(token)
            if prompt in ended:
                continue
            end = conditions.check(prompt, token) or ("length" if step == n else None)
            if end:
                ended.add(prompt)
            z = functions.to_array(logits[i]) if with_logits else None
            yield Draw(prompt, token, end, z, conditions.held(prompt))
        for group in groups:
            kept = (i for i, prompt in enumerate(group.prompts) if functions.fixed_groups or prompt not in ended)
            group.advance(list(kept))
        groups = [group for group in groups if group.prompts]


def number_samples(prompts: list[list[int]], first: int) -> list[int]:
    """Return each prompt's sample number: `first`, or the next one for every repetition of a prompt"""
    seen: Counter[tuple[int, ...]] = Counter()
    numbers = []
    for ids in map(tuple, prompts):
        numbers.append(first + seen[ids])
        seen[ids] += 1
    check_samples(first, max(seen.values(), default=1))
    return numbers


class Group:
    """Hold sequences of one length, the kv of the tokens that were read, and the tokens to read next"""

    def __init__(self, prompts: list[int], ids: Iterable[Iterable[int]], kv: list[Any], n_ctx: int):
        self.prompts = prompts  # of each sequence, the prompt's index in the batch
        self.ids = [list(sequence) for sequence in ids]
        self.kv = kv
        self.n_ctx = n_ctx
        self.unread = np.array(self.ids)  # (B,T)

    @property
    def positions_per_read(self) -> int:
        return max(1, CHUNK // len(self.ids))

    def advance(self, kept: list[int]) -> None:
        """Drop all sequences but the kept ones, and set `unread` to their new tokens

        If the context is full, empty the kv, and set `unread` to the newer half of the context and the new tokens.
        """
        if len(kept) < len(self.ids):
            self.prompts = [self.prompts[i] for i in kept]
            self.take(kept)
        T = 1
        if self.kv[0].length == self.n_ctx:
            T += self.n_ctx // 2
            for layer in self.kv:
                layer.length = 0
        self.unread = np.array([ids[-T:] for ids in self.ids])

    def take(self, sequences: list[int]) -> None:
        """Replace the sequences by those at these indices, which may repeat"""
        self.ids = [list(self.ids[i]) for i in sequences]
        for i, layer in enumerate(self.kv):  # one layer at a time, so that memory never holds two whole kvs
            self.kv[i] = layer.take(sequences)
        self.unread = self.unread[sequences]


def make_groups(config: Config, prompts: list[list[int]], max_new_tokens: int, functions: StepFunctions) -> list[Group]:
    """Group the prompts by length; read a prompt that is given several times once, all but its last token"""
    lengths = defaultdict(list)
    for prompt, ids in enumerate(prompts):
        lengths[len(ids)].append(prompt)
    groups = []
    for length, members in lengths.items():
        distinct = list(dict.fromkeys(tuple(prompts[prompt]) for prompt in members))
        kv = functions.new_kv(len(distinct), min(config.n_ctx, length + max_new_tokens))
        group = Group(members, distinct, kv, config.n_ctx)
        if len(distinct) < len(members):
            prefill(group, 1, functions)
            group.take([distinct.index(tuple(prompts[prompt])) for prompt in members])
        groups.append(group)
    return groups


def read_unread(groups: list[Group], functions: StepFunctions) -> Any:
    """Read all unread tokens, at most CHUNK rows at once, and return the logits (ΣB,V) after each sequence"""
    T = max(1, CHUNK // sum(len(group.ids) for group in groups))
    for group in groups:
        prefill(group, T, functions)
    return functions.next_logits([group.unread for group in groups], [group.kv for group in groups])


def prefill(group: Group, left: int, functions: StepFunctions) -> None:
    """Read a group's tokens in chunks until at most `left` positions are unread"""
    while group.unread.shape[1] > left:
        T = min(group.positions_per_read, group.unread.shape[1] - left)
        functions.next_logits([group.unread[:, :T]], [group.kv])
        group.unread = group.unread[:, T:]
