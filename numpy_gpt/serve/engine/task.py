"""Hold the state of a sequence, and of the prompt that it may share with others."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from ...generate.stopping import StopConditions
from .choice import choose
from .functions import Functions
from .scores import score
from .sequence import Drawn, Event, Finished, PromptScored, Score, Sequence

CHUNK = 64  # tokens of a prompt that are read at once


class Prompt:
    """Hold the kv of a prompt and the logits after it; sequences with the same prompt share one of these

    Each prompt is read alone, in the same chunks, so that no result depends on other prompts.
    """

    def __init__(self, ids: list[int], k: int | None):
        self.ids = ids
        self.k = k  # the best tokens in each score; None if the prompt isn't scored
        self.max_new_tokens = 0  # of the sequences that share the prompt
        self.tasks: list[Task] = []  # that wait for the prompt
        self.start()

    def start(self) -> None:
        """Return to the state in which nothing has been read"""
        self.kv: list[Any] = []
        self.kv_taken = False
        self.n_read = 0
        self.scores: list[Score | None] = [None]
        self.logits: np.ndarray | None = None  # (V,), once all tokens have been read

    def read_chunk(self, functions: Functions, n_vocab: int | None) -> int:
        """Read the next tokens and score those that follow them; return how many were read"""
        self.kv = self.kv or functions.new_kv(len(self.ids) + self.max_new_tokens)
        tokens = self.ids[self.n_read : self.n_read + CHUNK]
        self.n_read += len(tokens)
        if self.k is None:
            last = functions.read(tokens, self.kv)[:n_vocab]
        else:
            logits = functions.read_all(tokens, self.kv)[:, :n_vocab]
            following = self.ids[self.n_read - len(tokens) + 1 : self.n_read + 1]
            pairs = zip(logits, following, strict=False)
            self.scores += [score(z, token, self.k) if token < len(z) else None for z, token in pairs]
            last = logits[-1].copy()  # a view would keep the logits of the whole chunk
        if self.n_read == len(self.ids):
            self.logits = last
        return len(tokens)

    def release(self) -> "list[Task]":
        """Return the sequences that wait for the prompt, and forget them"""
        tasks, self.tasks = self.tasks, []
        return tasks

    def take_kv(self, functions: Functions) -> list[Any]:
        """Return the kv to the first sequence, and a copy to each other one"""
        if not self.kv_taken:
            self.kv_taken = True
            return self.kv
        T = len(self.ids)  # the first sequence has appended its own tokens meanwhile
        copy = functions.new_kv(T + self.max_new_tokens)
        for layer, original in zip(copy, self.kv, strict=True):
            layer.append(original.k[:, :, :T], original.v[:, :, :T])
        return copy


class Task:
    """Hold the state of a sequence from its submission to its end"""

    def __init__(self, sequence: Sequence, prompt: Prompt, conditions: StopConditions, emit: Callable[[Event], None]):
        self.sequence = sequence
        self.conditions = conditions
        self.emit = emit
        self.prompt: Prompt | None = prompt  # until the first token is drawn
        self.kv: list[Any] = []
        self.steps = 0
        self.counts: Counter[int] = Counter()  # how often each token was drawn
        self.last = 0  # the last of them
        self.cancelled = False
        self.ended = False

    def begin(self, functions: Functions) -> None:
        """Take over the kv of the prompt, which has been read"""
        prompt, self.prompt = self.prompt, None  # the last sequence of a prompt frees it
        assert prompt
        if prompt.k is not None:
            self.emit(PromptScored(prompt.scores))
        if self.sequence.options.max_new_tokens == 0:
            self.finish("done")
        else:
            self.kv = prompt.take_kv(functions)

    def draw(self, logits: np.ndarray) -> None:
        """Draw the next token from logits (V,), and emit it"""
        k = self.sequence.logprobs
        token = choose(logits, self.sequence, self.counts, self.steps)
        self.steps += 1
        self.counts[token] += 1
        self.last = token
        full = self.steps == self.sequence.options.max_new_tokens
        end = self.conditions.check(0, token) or ("length" if full else None)
        found = None if k is None else score(logits, token, k)
        self.emit(Drawn(token, end, self.conditions.held(0), found))
        if end:
            self.finish("done")

    def rewind(self) -> None:
        """Remove the last token from the kv, after a step that failed"""
        for layer in self.kv:
            layer.length = len(self.sequence.ids) + self.steps - 1

    def finish(self, reason: str, error: Exception | None = None) -> None:
        """Free the memory, and emit the end"""
        self.ended = True
        self.prompt, self.kv = None, []
        with suppress(Exception):  # emit may be the function that failed
            self.emit(Finished(reason, error))
