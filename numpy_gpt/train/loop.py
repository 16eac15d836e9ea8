"""Run the training loop: steps, with evaluations, samples and checkpoints between them."""

import math
import sys
import time
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
from tqdm import tqdm

from .. import adamw
from ..adamw import Moments
from ..errors import GPTError
from ..evaluate.metrics import format_number, measure, token_lengths
from ..params import Model, named
from ..system.cli import Stop, print_stderr, print_unwritten, silence
from ..text import windows
from . import resume
from .backend import Batch, TrainerLike
from .log import Journal
from .options import TrainOptions

DECODING: dict[str, Any] = {"max_new_tokens": 200, "temperature": 0.8, "top_p": 0.95}


class Run:
    """Train to the last step, starting from any step; a trainer holds the model"""

    def __init__(
        self,
        out: Path,
        step: int,
        trainer: TrainerLike,
        text: windows.Split,
        options: TrainOptions,
        about: dict[str, Any],
        format: str,
    ):
        self.out, self.trainer, self.text, self.options, self.about = out, trainer, text, options, about
        self.format = format  # of a new run's checkpoint
        self.step = step  # done
        self.last_attempt = self.last_saved = step  # of a checkpoint; only the leader writes one
        self.tokenizer = trainer.m.tokenizer
        self.token_lengths = token_lengths(self.tokenizer, trainer.m.config.n_vocab)
        self.stdout_error: OSError | None = None  # after it, nothing more is printed
        self.stop = Stop("train: saving a checkpoint after this step, then ending; repeat to end at once")
        self.journal = Journal(out, step, self.print)
        self.losses: list[SupportsFloat] = []  # since the last evaluation; a GPU may still compute one
        self.seconds = 0.0  # that these steps took

    def train(self) -> int:
        """Train, and return the command's exit status"""
        try:
            with self.stop, self.progress() as bar:
                self.loop(bar)
        except GPTError as e:
            raise GPTError(f"after step {self.step}: {e} {self.checkpoint_notice()}".rstrip()) from None
        return self.end()

    def loop(self, bar: tqdm) -> None:
        s = self.options
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
        s = self.options
        tokens = s.accumulate * s.batch_size * s.context
        return tqdm(
            total=s.steps * tokens,
            initial=self.step * tokens,
            unit=" tokens",
            unit_scale=True,
            bar_format="{desc} |{bar:20}| {rate_fmt}, {remaining} left",
            leave=False,
            disable=None if self.trainer.leader and sys.stderr else True,
        )

    def advance(self, bar: tqdm) -> None:
        """Take a step, and show the loss of the step before, since reading this step's would wait for the GPU"""
        started, t, batches = time.perf_counter(), self.step + 1, self.batches(self.step + 1)
        self.losses.append(self.trainer.step(t, self.rate(t), batches))
        if len(self.losses) > 1:
            loss = format_number(self.finite(self.losses[-2]), 3)
            bar.set_description_str(f"step {self.step}/{self.options.steps}  loss {loss}", refresh=False)
        self.step = t
        bar.update(sum(tokens.size for _, tokens, _ in batches))
        self.seconds += time.perf_counter() - started

    def batches(self, t: int) -> list[Batch]:
        """Return the batches of step t"""
        s = self.options
        firsts = range(0, s.accumulate * s.batch_size, s.batch_size)
        numbers = np.arange(s.batch_size)
        return [(n, *windows.random_batch(self.text.train, s.context, s.seed, t, n + numbers)) for n in firsts]

    def rate(self, t: int) -> float:
        """Return the learning rate of step t"""
        s = self.options
        assert s.lr is not None  # options.resolve sets all three
        assert s.min_lr is not None
        assert s.warmup is not None
        return adamw.cosine(t - 1, s.steps, s.lr, s.min_lr, s.warmup)

    def finite(self, loss: SupportsFloat) -> float:
        """Return the loss as a float, or raise GPTError if it is inf or NaN"""
        if not math.isfinite(float(loss)):
            raise GPTError(f"the loss is {float(loss)}: lower the learning rate.")
        return float(loss)

    def checkpoint_notice(self) -> str:
        """Return a message about the last checkpoint, in the leader, or nothing in other processes"""
        if not self.trainer.leader:
            return ""
        if not self.last_saved:
            return "No checkpoint was saved."
        return f"The checkpoint of step {self.last_saved} is in {self.out}, for --resume or --init-from."

    def evaluate(self) -> None:
        """Log the losses on equally many batches of both texts; after the last step, on the whole validation text"""
        s, started = self.options, time.perf_counter()
        most = s.eval_batches or -(-len(self.text.val) // (s.context * s.batch_size))
        done = [self.finite(loss) for loss in self.losses]  # waits for the GPU
        self.seconds += time.perf_counter() - started
        val = self.measure("val", self.text.val, 0 if self.step == s.steps else most)
        entry = {"step": self.step, **self.measure("train", self.text.train, most), **val}
        entry["lr"] = self.rate(self.step) if self.step else None
        entry["tokens"] = self.step * s.accumulate * s.batch_size * s.context
        entry["tokens_per_s"] = len(done) * s.accumulate * s.batch_size * s.context / self.seconds if done else None
        self.losses, self.seconds = [], 0.0
        if self.trainer.leader:
            self.journal.add(entry)

    def measure(self, name: str, tokens: np.ndarray, most: int) -> dict[str, Any]:
        """Return the measures on at most `most` batches, or on all of them if most is 0"""
        batches = windows.batches(tokens, self.options.context, self.options.batch_size, most)
        measured = measure(self.trainer.loss, batches, self.token_lengths)
        self.finite(measured["loss"])
        return {f"{name}_{key}": value for key, value in measured.items()}

    def sample(self) -> None:
        """Print a sample: the start of a document if the training text has documents, else the start of a line"""
        eot = self.tokenizer.eot
        documents = eot is not None and (self.text.train[: 1 << 20] == eot).any()
        prompt = [eot] if documents else self.tokenizer.encode("\n")
        ids = self.trainer.sample(prompt, seed=self.step, stop=[] if eot is None else [eot], **DECODING)
        if ids is None:
            return
        text = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in self.tokenizer.decode(ids))
        self.print(f"--- step {self.step}\n{text.strip()}\n---")

    def save(self) -> None:
        """Save a checkpoint; if it can't be written, print why and keep the previous one"""
        for loss in self.losses[-1:]:
            self.finite(loss)
        self.last_attempt = self.step
        state = self.trainer.state()
        if state is None:
            return
        m, moments = state
        check_no_overflow(m, moments)
        try:
            resume.save(self.out, resume.State(m, moments, self.step, self.about), self.format)
            self.last_saved = self.step
        except GPTError as e:
            print_stderr(f"train: step {self.step}: {e} {self.checkpoint_notice()}")

    def print(self, text: str) -> None:
        """Print on stdout, above the progress bar; after an error print nothing more, and continue"""
        if not self.trainer.leader or self.stdout_error or not sys.stdout:
            return
        try:
            tqdm.write(text)
            sys.stdout.flush()
        except OSError as e:
            self.stdout_error = e
            silence(sys.stdout)

    def end(self) -> int:
        """Print why the run ended early, if it did, and return the exit status"""
        steps = self.options.steps
        if self.trainer.leader and self.step < steps:
            print_stderr(f"train: stopped after step {self.step} of {steps}. {self.checkpoint_notice()}")
        status = 128 + self.stop.signal if self.stop.signal else 0
        if self.trainer.leader and self.last_saved < self.step:
            status = 1
        if self.stdout_error and not isinstance(self.stdout_error, BrokenPipeError):
            print_unwritten("train", self.stdout_error)
            status = status or 1
        return status


def check_no_overflow(m: Model, moments: Moments) -> None:
    """Raise GPTError if a parameter or a moment isn't finite: its gradient can overflow though the loss is finite"""
    for tree in (m.params, *moments):
        for name, a in named(tree):
            if not np.isfinite(a).all():
                raise GPTError(f"{name} overflowed to inf or NaN: lower the learning rate.")
