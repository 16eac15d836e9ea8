"""The loop of training: steps, and between them evaluations, samples and checkpoints."""

import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from .. import adamw
from ..adamw import Moments
from ..errors import GPTError
from ..evaluate.metrics import lengths, measure, short
from ..params import Model, named
from ..system.cli import Stop, print_stderr, print_unwritten, silence
from ..text import windows
from . import resume
from .log import Journal
from .options import TrainOptions

SAMPLE: dict[str, Any] = {"max_new_tokens": 200, "temperature": 0.8, "top_p": 0.95}


class Run:
    """One run, from any step to its last; a trainer has the model, this has all around it"""

    def __init__(
        self, out: Path, step: int, trainer: Any, text: windows.Split, settings: TrainOptions, about: dict[str, Any]
    ):
        self.out, self.trainer, self.text, self.settings, self.about = out, trainer, text, settings, about
        self.step = self.tried = self.saved = step  # where it is, was to be saved, and was saved by the leader
        self.tokenizer = trainer.m.tokenizer
        self.lengths = lengths(self.tokenizer, trainer.m.config.n_vocab)
        self.unwritten: OSError | None = None  # why stdout can't be written any more
        self.stop = Stop("train: ending after this step, with a checkpoint; once more ends it at once")
        self.journal = Journal(out, step, self.say)
        self.losses: list[Any] = []  # of the steps since the last evaluation; PyTorch may still be computing the last
        self.seconds = 0.0  # that they took

    def go(self) -> int:
        """-> the command's exit status"""
        try:
            with self.stop, self.progress() as bar:
                self.loop(bar)
        except GPTError as e:
            raise GPTError(f"after step {self.step}: {e} {self.kept()}".rstrip()) from None
        return self.end()

    def loop(self, bar: tqdm) -> None:
        s = self.settings
        if self.step == 0:
            self.evaluate()
        while self.step < s.steps and not self.trainer.any(bool(self.stop.signal)):
            self.advance(bar)
            last = self.step == s.steps
            if last or self.step % s.eval_every == 0:
                self.evaluate()
            if s.sample_every and self.step % s.sample_every == 0:
                self.sample()
            if last or self.step % s.save_every == 0:
                self.save()
        if self.tried < self.step:
            self.save()

    def progress(self) -> tqdm:
        s = self.settings
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
        """One step; shown is the loss of the one before, so that nobody waits for a GPU"""
        before, t, batches = time.perf_counter(), self.step + 1, self.batches(self.step + 1)
        self.losses.append(self.trainer.step(t, self.rate(t), batches))
        if len(self.losses) > 1:
            loss = self.finite(self.losses[-2])
            bar.set_description_str(f"step {self.step}/{self.settings.steps}  loss {short(loss, 3)}", refresh=False)
        self.step = t
        bar.update(sum(tokens.size for _, tokens, _ in batches))
        self.seconds += time.perf_counter() - before

    def batches(self, t: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Of step t: the number of the first sequence, tokens and targets (B,T)"""
        s = self.settings
        firsts = range(0, s.accumulate * s.batch_size, s.batch_size)
        numbers = np.arange(s.batch_size)
        return [(n, *windows.random_batch(self.text.train, s.context, s.seed, t, n + numbers)) for n in firsts]

    def rate(self, t: int) -> float:
        s = self.settings
        return adamw.cosine(t - 1, s.steps, s.lr, s.min_lr, s.warmup)

    def finite(self, loss: Any) -> float:
        if not math.isfinite(float(loss)):
            raise GPTError(f"the loss is {float(loss)}: lower the learning rate.")
        return float(loss)

    def kept(self) -> str:
        """For the leader to say"""
        if not self.trainer.leader:
            return ""
        if not self.saved:
            return "No checkpoint was saved."
        return f"The checkpoint of step {self.saved} is in {self.out}, for --resume or --init-from."

    def evaluate(self) -> None:
        """Both texts by as many batches; the last time, all of validation"""
        s, started = self.settings, time.perf_counter()
        most = s.eval_batches or -(-len(self.text.val) // (s.context * s.batch_size))
        done = [self.finite(loss) for loss in self.losses]  # a GPU has computed them by then
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
        """The loss over some batches, or with 0 over all of them"""
        batches = windows.batches(tokens, self.settings.context, self.settings.batch_size, most)
        measured = measure(self.trainer.loss, batches, self.lengths)
        self.finite(measured["loss"])
        return {f"{name}_{what}": value for what, value in measured.items()}

    def sample(self) -> None:
        """Begins as a document does, if the text has any, or else as a line"""
        eot = self.tokenizer.eot
        begun = eot is not None and (self.text.train[: 1 << 20] == eot).any()
        prompt = [eot] if begun else self.tokenizer.encode("\n")
        ids = self.trainer.sample(prompt, seed=self.step, stop=[] if eot is None else [eot], **SAMPLE)
        if ids is None:
            return
        text = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in self.tokenizer.decode(ids))
        self.say(f"--- step {self.step}\n{text.strip()}\n---")

    def save(self) -> None:
        """Where it can't be, the run goes on, with the checkpoint that is there"""
        for loss in self.losses[-1:]:
            self.finite(loss)
        self.tried = self.step
        m, moments = self.trainer.state()
        if not self.trainer.leader:
            return
        check_moved(m, moments)
        try:
            resume.save(self.out, resume.State(m, moments, self.step, self.about))
            self.saved = self.step
        except GPTError as e:
            print_stderr(f"train: step {self.step}: {e} {self.kept()}")

    def say(self, text: str) -> None:
        """Print on stdout, above the progress, until it can't be written: the run goes on without it"""
        if not self.trainer.leader or self.unwritten or not sys.stdout:
            return
        try:
            tqdm.write(text)
            sys.stdout.flush()
        except OSError as e:
            self.unwritten = e
            silence(sys.stdout)

    def end(self) -> int:
        steps = self.settings.steps
        if self.trainer.leader and self.step < steps:
            print_stderr(f"train: stopped after step {self.step} of {steps}. {self.kept()}")
        status = 128 + self.stop.signal if self.stop.signal else 0
        if self.trainer.leader and self.saved < self.step:
            status = 1
        if self.unwritten and not isinstance(self.unwritten, BrokenPipeError):
            print_unwritten("train", self.unwritten)
            status = status or 1
        return status


def check_moved(m: Model, moments: Moments) -> None:
    """A loss may be fine, and what its gradients led to not"""
    for tree in (m.params, *moments):
        for name, a in named(tree):
            if not np.isfinite(a).all():
                raise GPTError(f"{name} has been moved to where numbers end: lower the learning rate.")
