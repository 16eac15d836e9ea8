"""Decode the sequences of concurrent requests in one thread."""

from collections import deque
from collections.abc import Callable
from functools import partial
from threading import Condition, Thread

from ...errors import GPTError
from ...generate.stopping import StopConditions
from ...params import Model
from .batch import Batch
from .functions import Functions
from .sequence import Drawn, Event, Finished, PromptScored, Score, Sequence
from .task import Prompt, Task

__all__ = ["Drawn", "Engine", "Event", "Finished", "PromptScored", "QueueFull", "Score", "Sequence", "Ticket"]


class QueueFull(GPTError):
    """Report that the engine accepts no more sequences at the moment"""


class Ticket:
    """Hold the sequences of one request"""

    def __init__(self, tasks: list[Task]):
        self.tasks = tasks

    def cancel(self) -> None:
        """End all sequences that haven't ended yet, within one token"""
        for task in self.tasks:
            task.cancelled = True


class Engine:
    """Decode sequences in a thread of its own, and emit each token as soon as it is drawn

    Up to max_sequences run at the same time, and up to max_waiting others wait. Requests take turns: when a sequence
    ends, the next one is of the request that has waited longest since its last turn.
    """

    def __init__(self, m: Model, functions: Functions, max_sequences: int = 64, max_waiting: int = 256):
        self.tokenizer = m.tokenizer
        self.max_sequences, self.max_waiting = max_sequences, max_waiting
        self.batch = Batch(functions, m.tokenizer.n_vocab if m.tokenizer else None)
        self.waiting: deque[deque[Task]] = deque()  # the sequences of each request that haven't started
        self.running = 0
        self.closed = False
        self.changed = Condition()
        self.thread = Thread(target=self.run, name="engine", daemon=True)
        self.thread.start()

    def submit(self, sequences: list[Sequence], emit: Callable[[int, Event], None]) -> Ticket:
        """Queue the sequences of a request; raise QueueFull if there is no room for all of them

        The engine's thread calls emit(index, event) for each event of the sequence at this index. emit must not block.
        """
        tasks = self.create_tasks(sequences, emit)
        with self.changed:
            if self.closed:
                raise GPTError("the engine is closed: create another one.")
            room = self.max_sequences + self.max_waiting - self.running - self.n_waiting()
            if len(tasks) > room:
                raise QueueFull(f"the queue has room for {room} of {len(tasks)} sequences: try again later.")
            if tasks:
                self.waiting.append(deque(tasks))
            self.changed.notify()
        return Ticket(tasks)

    def create_tasks(self, sequences: list[Sequence], emit: Callable[[int, Event], None]) -> list[Task]:
        """Return a task for each sequence; sequences with the same prompt share it"""
        prompts: dict[object, Prompt] = {}
        tasks = []
        for i, sequence in enumerate(sequences):
            k = (sequence.logprobs or 0) if sequence.prompt_logprobs else None
            prompt = prompts.setdefault((tuple(sequence.ids), k), Prompt(sequence.ids, k))
            prompt.max_new_tokens = max(prompt.max_new_tokens, sequence.options.max_new_tokens)
            conditions = StopConditions(sequence.stop, self.tokenizer)
            tasks.append(Task(sequence, prompt, conditions, partial(emit, i)))
        return tasks

    def counts(self) -> dict[str, int]:
        """Return how many sequences run and wait, and how many tokens were read and generated so far"""
        with self.changed:
            return {
                "running": self.running,
                "waiting": self.n_waiting(),
                "prompt_tokens": self.batch.prompt_tokens,
                "generated_tokens": self.batch.generated_tokens,
            }

    def close(self) -> None:
        """Cancel all sequences, and wait until the thread has ended"""
        with self.changed:
            self.closed = True
            self.changed.notify()
        self.thread.join()

    def n_waiting(self) -> int:
        return sum(map(len, self.waiting))

    def run(self) -> None:
        """Decode until the engine is closed; then end all sequences"""
        while self.wait():
            self.drop_cancelled()
            for task in self.next_tasks():
                self.batch.add(task)
            self.batch.iterate()
            with self.changed:
                self.running = len(self.batch.tasks())
        for task in [*self.batch.tasks(), *(task for queue in self.waiting for task in queue)]:
            task.finish("cancelled")
        self.waiting.clear()
        self.running = 0

    def wait(self) -> bool:
        """Wait until there is a sequence to decode; return False if the engine is closed"""
        with self.changed:
            self.changed.wait_for(lambda: self.waiting or self.running or self.closed)
            return not self.closed

    def drop_cancelled(self) -> None:
        """End the waiting sequences that have been cancelled"""
        with self.changed:
            cancelled = [task for queue in self.waiting for task in queue if task.cancelled]
            kept = [deque(task for task in queue if not task.cancelled) for queue in self.waiting]
            self.waiting = deque(queue for queue in kept if queue)
        for task in cancelled:
            task.finish("cancelled")

    def next_tasks(self) -> list[Task]:
        """Remove the sequences that can start now from the queue, and return them"""
        tasks: list[Task] = []
        with self.changed:
            while self.waiting and self.running < self.max_sequences:
                queue = self.waiting.popleft()
                tasks.append(queue.popleft())
                self.running += 1
                if queue:
                    self.waiting.append(queue)
        return tasks
