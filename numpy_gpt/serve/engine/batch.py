"""Decode a changing set of sequences together: continuous batching.

Each iteration reads a part of the new prompts, and draws one token of every other sequence. The linear layers of a step
are matmuls over all sequences, and each sequence attends over its own kv.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from .functions import Functions
from .task import CHUNK, Prompt, Task


class Batch:
    """Hold the sequences that are being read and decoded"""

    def __init__(self, functions: Functions, n_vocab: int | None):
        self.functions = functions
        self.n_vocab = n_vocab  # ids from here on have no text
        self.reading: deque[Prompt] = deque()  # each with the sequences that wait for it
        self.decoding: list[Task] = []
        self.prompt_tokens = self.generated_tokens = 0  # so far

    def tasks(self) -> list[Task]:
        """Return all sequences"""
        return [task for prompt in self.reading for task in prompt.tasks] + self.decoding

    def add(self, task: Task) -> None:
        """Add a sequence; its prompt may have been read for another one"""
        prompt = task.prompt
        assert prompt
        if prompt.logits is not None:
            self.begin([task], prompt.logits)
            return
        if not prompt.tasks:
            self.reading.append(prompt)
        prompt.tasks.append(task)

    def iterate(self) -> None:
        """Read chunks of prompts, at least CHUNK tokens if there are so many; then draw a token of each sequence"""
        left = CHUNK
        self.drop_cancelled()
        while self.reading and left > 0:
            left -= self.read(self.reading.popleft())
        if self.decoding:
            self.step()

    def drop_cancelled(self) -> None:
        """End all sequences that have been cancelled"""
        for task in self.tasks():
            if task.cancelled:
                task.finish("cancelled")
        for prompt in self.reading:
            prompt.tasks = unfinished(prompt.tasks)
        self.reading = deque(prompt for prompt in self.reading if prompt.tasks)
        self.decoding = unfinished(self.decoding)

    def read(self, prompt: Prompt) -> int:
        """Read a chunk of a prompt; then put it behind the others, or draw the first tokens after it"""
        try:
            n = prompt.read_chunk(self.functions, self.n_vocab)
        except Exception as e:
            prompt.start()
            for task in prompt.release():
                task.finish("failed", e)
            return CHUNK
        self.prompt_tokens += n
        if prompt.logits is None:
            self.reading.append(prompt)
        else:
            self.begin(prompt.release(), prompt.logits)
        return n

    def begin(self, tasks: list[Task], logits: np.ndarray) -> None:
        """Draw the first token of each sequence from the logits (V,) after their prompt"""
        for task in tasks:
            attempt(task, task.begin, self.functions)
        self.draw([(task, logits) for task in unfinished(tasks)])
        self.decoding += unfinished(tasks)

    def step(self) -> None:
        """Draw the next token of each sequence"""
        self.draw(self.next_logits(self.decoding))
        self.decoding = unfinished(self.decoding)

    def next_logits(self, tasks: list[Task]) -> list[tuple[Task, np.ndarray]]:
        """Return each sequence with its next logits (V,)

        If an error is raised, repeat the step with each sequence alone. Those that raise it again are ended.
        """
        try:
            logits = self.functions.step([task.last for task in tasks], [task.kv for task in tasks])
        except Exception as e:
            for task in tasks:
                task.rewind()
            if len(tasks) > 1:
                return [pair for task in tasks for pair in self.next_logits([task])]
            tasks[0].finish("failed", e)
            return []
        return list(zip(tasks, logits[:, : self.n_vocab], strict=True))

    def draw(self, pairs: list[tuple[Task, np.ndarray]]) -> None:
        """Draw a token of each sequence from its logits (V,)"""
        for task, logits in pairs:
            attempt(task, task.draw, logits)
        self.generated_tokens += len(pairs)


def attempt(task: Task, action: Callable[[Any], None], argument: Any) -> None:
    """Call the action of a sequence; if it raises an error, end this sequence alone"""
    try:
        action(argument)
    except Exception as e:
        task.finish("failed", e)


def unfinished(tasks: list[Task]) -> list[Task]:
    return [task for task in tasks if not task.ended]
