"""Prompts that are continued together, in any framework: which are in step, what each still sees, where each ends.

Sequences of one length are a group with one kv, so that nothing is padded and each gets what it would get alone, to
rounding. Groups share the products with the weights. A group stays in step to the end; where its context is full, the
older half is dropped and the rest read again.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..config import Config
from .options import DecodingOptions, check_decoding_options, check_prompt, check_samples
from .stopping import Ends

CHUNK = 512  # rows of a prompt that are read at once: more would take more memory and no less time


class Backend(NamedTuple):
    """What a framework does"""

    new_kv: Callable[[int, int], list[Any]]  # B, N -> a kv for B sequences of up to N tokens
    read: Callable[[list[Any], list[Any]], Any]  # groups of (B,T) tokens, their kvs -> logits (ΣB,V) after the last
    sample: Callable[..., list[int]]  # logits (ΣB,V), the cuts, seed, ΣB sample numbers, step -> ΣB tokens
    numbers: Callable[[Any], np.ndarray]  # (V,) -> the same in NumPy
    fixed: bool = False  # no shape may change: what has ended stays in its group, and its tokens are ignored


class Draw(NamedTuple):
    prompt: int  # its number in the batch
    token: int
    end: str | None  # "id": the token is one of stop; "text": it completes a text of stop; "length"; None: it goes on
    logits: np.ndarray | None


def draws(
    m: Any, prompts: Iterable[Any], settings: DecodingOptions, stop: Any, backend: Backend, with_logits: bool = False
) -> Iterator[Draw]:
    """The new tokens of all prompts, step by step, each as soon as it is there; what is asked is checked at once"""
    settings = check_decoding_options(settings)
    ends = Ends(stop, m.tokenizer)
    prompts = [check_prompt(ids, m.config) for ids in prompts]
    samples = number_samples(prompts, settings.sample)
    windows = [ids[-m.config.n_ctx :] for ids in prompts]  # what the model sees
    return drawn(m, windows, samples, settings, ends, backend, with_logits)


def drawn(
    m: Any,
    prompts: list[list[int]],
    samples: list[int],
    settings: DecodingOptions,
    ends: Ends,
    backend: Backend,
    with_logits: bool,
) -> Iterator[Draw]:
    n, *cuts, seed, _ = settings
    if n == 0:
        return
    groups = in_groups(m.config, prompts, n, backend)
    known = m.tokenizer.n_vocab if m.tokenizer else None  # ids beyond, in a padded vocabulary, stand for no text
    done: set[int] = set()
    step = 0
    while len(done) < len(prompts):
        logits = read(groups, backend)[:, :known]
        sequences = [pair for group in groups for pair in zip(group.prompts, group.ids, strict=True)]
        tokens = backend.sample(logits, *cuts, seed, [samples[prompt] for prompt, _ in sequences], step)
        step += 1
        for (prompt, ids), token, z in zip(sequences, tokens, logits, strict=True):
            ids.append(token)
            if prompt in done:
                continue
            end = ends.after(prompt, token) or ("length" if step == n else None)
            if end:
                done.add(prompt)
            yield Draw(prompt, token, end, backend.numbers(z) if with_logits else None)
        for group in groups:
            group.go_on([i for i, prompt in enumerate(group.prompts) if backend.fixed or prompt not in done])
        groups = [group for group in groups if group.prompts]


def number_samples(prompts: list[list[int]], first: int) -> list[int]:
    """Return each prompt's sample number: the first, or the next for every repetition of a prompt"""
    seen: Counter[tuple[int, ...]] = Counter()
    numbers = []
    for ids in map(tuple, prompts):
        numbers.append(first + seen[ids])
        seen[ids] += 1
    check_samples(first, max(seen.values(), default=1))
    return numbers


class Group:
    """Sequences of one length: what they are, what the kv has of them, and what is to be read next"""

    def __init__(self, prompts: list[int], ids: Iterable[Iterable[int]], kv: list[Any], n_ctx: int):
        self.prompts = prompts  # their numbers in the batch
        self.ids = [list(sequence) for sequence in ids]
        self.kv = kv
        self.n_ctx = n_ctx
        self.unread = np.array(self.ids)  # (B,T)

    @property
    def piece(self) -> int:
        return max(1, CHUNK // len(self.ids))

    def go_on(self, going: list[int]) -> None:
        """Drop all but these; unread is the token that each was given, after half the context if that is full"""
        if len(going) < len(self.ids):
            self.prompts = [self.prompts[i] for i in going]
            self.take(going)
        T = 1
        if self.kv[0].length == self.n_ctx:
            T += self.n_ctx // 2
            for layer in self.kv:
                layer.length = 0
        self.unread = np.array([ids[-T:] for ids in self.ids])

    def take(self, sequences: list[int]) -> None:
        self.ids = [list(self.ids[i]) for i in sequences]
        for i, layer in enumerate(self.kv):  # one at a time: two kvs are never there
            self.kv[i] = layer.take(sequences)
        self.unread = self.unread[sequences]


def in_groups(config: Config, prompts: list[list[int]], max_new_tokens: int, backend: Backend) -> list[Group]:
    lengths = defaultdict(list)
    for prompt, ids in enumerate(prompts):
        lengths[len(ids)].append(prompt)
    groups = []
    for length, members in lengths.items():
        distinct = list(dict.fromkeys(tuple(prompts[prompt]) for prompt in members))
        kv = backend.new_kv(len(distinct), min(config.n_ctx, length + max_new_tokens))
        group = Group(members, distinct, kv, config.n_ctx)
        if len(distinct) < len(members):  # what is the same is read once
            read_ahead(group, 1, backend)
            group.take([distinct.index(tuple(prompts[prompt])) for prompt in members])
        groups.append(group)
    return groups


def read(groups: list[Group], backend: Backend) -> Any:
    """All that is unread -> the logits (ΣB,V) after it; at the end the groups together, CHUNK rows at most"""
    left = max(1, CHUNK // sum(len(group.ids) for group in groups))
    for group in groups:
        read_ahead(group, left, backend)
    return backend.read([group.unread for group in groups], [group.kv for group in groups])


def read_ahead(group: Group, left: int, backend: Backend) -> None:
    """All but what is left to be read, in pieces"""
    while group.unread.shape[1] > left:
        T = min(group.piece, group.unread.shape[1] - left)
        backend.read([group.unread[:, :T]], [group.kv])
        group.unread = group.unread[:, T:]
