"""Run a training loop: steps, with evaluations, samples and checkpoints between them.

A task defines the rest: the batches of a step, an evaluation, a sample, and the files of a checkpoint.
"""

import math
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, SupportsFloat

import numpy as np
from tqdm import tqdm

from .. import adamw
from ..errors import GPTError
from ..evaluate.metrics import format_number
from ..params import named
from ..system.cli import Stop, print_stderr, print_unwritten, silence
from .log import Entry, Journal, LogFormat


class Task(Protocol):
    """Define the parts of a run that depend on its purpose"""

    log: LogFormat
    unit: str  # of progress, in the plural
    files: str  # the end of a message about a checkpoint: its uses

    def batches(self, t: int) -> list[Any]:
        """Return the batches of step t"""

    def size(self, batches: list[Any]) -> int:
        """Return the number of units in the batches of a step"""

    def size_of_steps(self, steps: int) -> int:
        """Return the number of units in the first steps"""

    def evaluate(self, step: int, last: bool) -> Entry:
        """Return the measures after a step; every process calls this"""

    def sample(self, step: int) -> str | None:
        """Return a sample of text, or None in a process that can't generate"""

    def save(self, out: Path, step: int, state: tuple[Any, ...]) -> None:
        """Atomically replace the checkpoint"""


class Trainer(Protocol):
    """Train a model; each of several processes has a trainer"""

    leader: bool  # of several processes, the one that prints and writes

    def step(self, t: int, lr: float, batches: list[Any]) -> SupportsFloat:
        """Take step t = 1, 2, ... of AdamW on the mean loss of the batches, and return this loss"""

    def state(self) -> tuple[Any, ...] | None:
        """Return the trees to save, with NumPy arrays, in the leader, and None in other processes"""

    def any_process(self, condition: bool) -> bool:
        """Return whether the condition holds in at least one process"""


class Schedule(NamedTuple):
    """Define the steps of a run, their learning rates, and the number of steps from one action to the next"""

    steps: int
    lr: float
    min_lr: float
    warmup: int
    eval_every: int
    save_every: int
    sample_every: int  # 0: never


def schedule_of(options: Any) -> Schedule:
    """Return the schedule in the options of a command"""
    return Schedule(*(getattr(options, name) for name in Schedule._fields))


class Run:
    """Train to the last step, starting from any step"""

    def __init__(self, out: Path, step: int, trainer: Trainer, task: Task, schedule: Schedule, quiet: bool = False):
        """Prepare a run; if quiet is True, it prints nothing on stdout"""
        self.quiet = quiet
        self.out, self.trainer, self.task, self.schedule = out, trainer, task, schedule
        self.step = step  # done
        self.last_attempt = self.last_saved = step  # of a checkpoint; only the leader writes one
        self.stdout_error: OSError | None = None  # after it, nothing more is printed
        notice = "saving a checkpoint after this step, then ending; repeat to end at once"
        self.stop = Stop(f"{task.log.command}: {notice}")
        self.journal = Journal(out, step, self.print, task.log)
        self.losses: list[SupportsFloat] = []  # since the last evaluation; a GPU may still compute one
        self.seconds = 0.0  # that these steps took
        self.units = 0  # in these steps

    def train(self) -> int:
        """Train, and return the command's exit status"""
        try:
            with self.stop, self.progress() as bar:
                self.loop(bar)
        except GPTError as e:
            raise GPTError(f"after step {self.step}: {e} {self.checkpoint_notice()}".rstrip()) from None
        return self.end()

    def loop(self, bar: tqdm) -> None:
        s = self.schedule
        if self.step == 0:
            self.evaluate()
        while self.step < s.steps and not self.trainer.any_process(bool(self.stop.signal)):
            self.advance(bar)
            last = self.step == s.steps
            if last or self.step % s.eval_every == 0:
                self.evaluate()
            if s.sample_every and self.step % s.sample_every == 0:
                self.sample()
            if last or self.step % s.save_every == 0:
                self.save()
        if self.last_attempt < self.step:
            self.save()

    def progress(self) -> tqdm:
        """Return a progress bar, which only the leader shows, and only on a terminal"""
        return tqdm(
            total=self.task.size_of_steps(self.schedule.steps),
            initial=self.task.size_of_steps(self.step),
            unit=f" {self.task.unit}",
            unit_scale=True,
            bar_format="{desc} |{bar:20}| {rate_fmt}, {remaining} left",
            leave=False,
            disable=None if self.trainer.leader and sys.stderr else True,
        )

    def advance(self, bar: tqdm) -> None:
        """Take a step, and show the loss of the step before, since reading this step's would wait for the GPU"""
        started, t, batches = time.perf_counter(), self.step + 1, self.task.batches(self.step + 1)
        self.losses.append(self.trainer.step(t, self.rate(t), batches))
        if len(self.losses) > 1:
            loss = format_number(finite(self.losses[-2]), 3)
            bar.set_description_str(f"step {self.step}/{self.schedule.steps}  loss {loss}", refresh=False)
        self.step = t
        size = self.task.size(batches)
        bar.update(size)
        self.units += size
        self.seconds += time.perf_counter() - started

    def rate(self, t: int) -> float:
        """Return the learning rate of step t"""
        s = self.schedule
        return adamw.cosine(t - 1, s.steps, s.lr, s.min_lr, s.warmup)

    def checkpoint_notice(self) -> str:
        """Return a message about the last checkpoint, in the leader, or nothing in other processes"""
        if not self.trainer.leader:
            return ""
        if not self.last_saved:
            return "No checkpoint was saved."
        return f"The checkpoint of step {self.last_saved} is in {self.out}, {self.task.files}."

    def evaluate(self) -> None:
        """Log an evaluation, and the speed of the steps since the last one"""
        started = time.perf_counter()
        for loss in self.losses:
            finite(loss)  # waits for the GPU
        self.seconds += time.perf_counter() - started
        entry = self.task.evaluate(self.step, self.step == self.schedule.steps)
        entry["lr"] = self.rate(self.step) if self.step else None
        entry[self.task.unit] = self.task.size_of_steps(self.step)
        entry[f"{self.task.unit}_per_s"] = self.units / self.seconds if self.losses else None
        self.losses, self.seconds, self.units = [], 0.0, 0
        if self.trainer.leader:
            self.journal.add(entry)

    def sample(self) -> None:
        """Print a sample of text, with its control characters replaced"""
        text = self.task.sample(self.step)
        if text is None:
            return
        text = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
        self.print(f"--- step {self.step}\n{text.strip()}\n---")

    def save(self) -> None:
        """Save a checkpoint; if it can't be written, print why and keep the previous one"""
        for loss in self.losses[-1:]:
            finite(loss)
        self.last_attempt = self.step
        state = self.trainer.state()
        if state is None:
            return
        check_no_overflow(state)
        try:
            self.task.save(self.out, self.step, state)
            self.last_saved = self.step
        except GPTError as e:
            print_stderr(f"{self.task.log.command}: step {self.step}: {e} {self.checkpoint_notice()}")

    def print(self, text: str) -> None:
        """Print on stdout, above the progress bar; after an error print nothing more, and continue"""
        if self.quiet or not self.trainer.leader or self.stdout_error or not sys.stdout:
            return
        try:
            tqdm.write(text)
            sys.stdout.flush()
        except OSError as e:
            self.stdout_error = e
            silence(sys.stdout)

    def end(self) -> int:
        """Print why the run ended early, if it did, and return the exit status"""
        command, steps = self.task.log.command, self.schedule.steps
        if self.trainer.leader and self.step < steps:
            print_stderr(f"{command}: stopped after step {self.step} of {steps}. {self.checkpoint_notice()}")
        status = 128 + self.stop.signal if self.stop.signal else 0
        if self.trainer.leader and self.last_saved < self.step:
            status = 1
        if self.stdout_error and not isinstance(self.stdout_error, BrokenPipeError):
            print_unwritten(command, self.stdout_error)
            status = status or 1
        return status


def finite(loss: SupportsFloat) -> float:
    """Return the loss as a float, or raise GPTError if it is inf or NaN"""
    if not math.isfinite(float(loss)):
        raise GPTError(f"the loss is {float(loss)}: lower the learning rate.")
    return float(loss)


def check_no_overflow(trees: Iterable[Any]) -> None:
    """Raise GPTError if a parameter or a moment isn't finite: its gradient can overflow though the loss is finite"""
    for tree in trees:
        for name, a in named(tree):
            if not np.isfinite(a).all():
                raise GPTError(f"{name} overflowed to inf or NaN: lower the learning rate.")
