"""Decode the sequences of concurrent requests in one thread."""

from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from threading import Condition, Thread

import numpy as np

from ..errors import GPTError
from ..generate.stopping import StopConditions
from ..params import Model
from .choice import choose
from .functions import Functions
from .scores import score
from .sequence import Drawn, Event, Finished, PromptScored, Score, Sequence

__all__ = ["Drawn", "Engine", "Event", "Finished", "PromptScored", "QueueFull", "Score", "Sequence", "Ticket"]

CHUNK = 64  # tokens of a prompt that are read between two steps of decoding


class QueueFull(GPTError):
    """Report that the engine accepts no more sequences at the moment"""


class Work:
    """Hold the state of one sequence"""

    def __init__(self, sequence: Sequence, conditions: StopConditions, emit: Callable[[Event], None]):
        self.sequence = sequence
        self.conditions = conditions
        self.emit = emit
        self.cancelled = False


class Ticket:
    """Hold the sequences of one request"""

    def __init__(self, works: list[Work]):
        self.works = works

    def cancel(self) -> None:
        """End all sequences that haven't ended yet, within one token"""
        for work in self.works:
            work.cancelled = True


class Engine:
    """Decode sequences in a worker thread, and emit each token as soon as it is drawn"""

    def __init__(self, m: Model, functions: Functions, max_sequences: int = 64, max_waiting: int = 256):
        self.m = m
        self.functions = functions
        self.max_open = max_sequences + max_waiting
        self.waiting: deque[Work] = deque()
        self.running = 0
        self.generated = 0
        self.closed = False
        self.changed = Condition()
        self.thread = Thread(target=self.run, name="engine", daemon=True)
        self.thread.start()

    def submit(self, sequences: list[Sequence], emit: Callable[[int, Event], None]) -> Ticket:
        """Append the sequences to the queue; raise QueueFull if there is no room for all of them

        emit(index, event) is called in the engine's thread, and must not block.
        """
        works = [
            Work(sequence, StopConditions(sequence.stop, self.m.tokenizer), partial(emit, i))
            for i, sequence in enumerate(sequences)
        ]
        with self.changed:
            if self.closed:
                raise GPTError("the engine is closed: create another one.")
            if len(self.waiting) + self.running + len(works) > self.max_open:
                raise QueueFull(f"the queue has no room for {len(works)} sequences: try again later.")
            self.waiting.extend(works)
            self.changed.notify()
        return Ticket(works)

    def counts(self) -> dict[str, int]:
        """Return the number of running and waiting sequences, and of the tokens generated so far"""
        with self.changed:
            return {"running": self.running, "waiting": len(self.waiting), "generated_tokens": self.generated}

    def close(self) -> None:
        """Cancel all sequences, and wait until the thread has ended"""
        with self.changed:
            self.closed = True
            self.changed.notify()
        self.thread.join()

    def run(self) -> None:
        """Decode one sequence after another until the engine is closed"""
        while work := self.next_work():
            error = None
            try:
                self.decode(work)
            except Exception as e:
                error = e
            with self.changed:
                self.running = 0
            reason = "failed" if error else "cancelled" if self.stopped(work) else "done"
            work.emit(Finished(reason, error))
        for work in self.waiting:
            work.emit(Finished("cancelled", None))

    def next_work(self) -> Work | None:
        """Wait for a sequence, and return it; return None if the engine is closed"""
        with self.changed:
            while not self.waiting and not self.closed:
                self.changed.wait()
            if self.closed:
                return None
            self.running = 1
            return self.waiting.popleft()

    def stopped(self, work: Work) -> bool:
        return work.cancelled or self.closed

    def decode(self, work: Work) -> None:
        """Emit all events of a sequence but the last"""
        sequence = work.sequence
        n = sequence.options.max_new_tokens
        n_vocab = self.m.tokenizer.n_vocab if self.m.tokenizer else None
        kv = self.functions.new_kv(1, len(sequence.ids) + n)
        scores: list[Score | None] = [None]
        drawn: Counter[int] = Counter()
        for start in range(0, len(sequence.ids), CHUNK):
            if self.stopped(work):
                return
            tokens = sequence.ids[start : start + CHUNK]
            logits = self.functions.all_logits(np.array([tokens]), kv)[:, :n_vocab]
            if sequence.prompt_logprobs:
                following = sequence.ids[start + 1 : start + CHUNK + 1]
                rows = zip(logits, following, strict=False)
                scores += [score(z, token, sequence.logprobs or 0) for z, token in rows]
        if sequence.prompt_logprobs:
            work.emit(PromptScored(scores))
        for step in range(n):
            if self.stopped(work):
                return
            if step:
                logits = self.functions.next_logits([np.array([tokens])], [kv])[:, :n_vocab]
            token = choose(logits[-1], sequence, drawn, step)
            drawn[token] += 1
            tokens = [token]
            end = work.conditions.check(0, token) or ("length" if step + 1 == n else None)
            found = None if sequence.logprobs is None else score(logits[-1], token, sequence.logprobs)
            self.generated += 1
            work.emit(Drawn(token, end, work.conditions.held(0), found))
            if end:
                return
