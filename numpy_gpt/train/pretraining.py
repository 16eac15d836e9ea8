"""Define the task of a training run: to predict the next token of a text."""

from pathlib import Path
from typing import Any

import numpy as np

from ..adamw import Moments
from ..evaluate.metrics import format_measures, format_number, measure, token_lengths
from ..params import Model
from ..text import windows
from . import resume
from .backend import Batch, TrainerLike
from .log import Entry, LogFormat
from .loop import finite
from .options import TrainOptions

DECODING: dict[str, Any] = {"max_new_tokens": 200, "temperature": 0.8, "top_p": 0.95}


class Pretraining:
    """Train on random windows of a text, and evaluate on evenly spread ones, as Task requires"""

    unit = "tokens"
    files = "for --resume or --init-from"

    def __init__(
        self, trainer: TrainerLike, text: windows.Split, options: TrainOptions, about: dict[str, Any], format: str
    ):
        self.trainer, self.text, self.options, self.about = trainer, text, options, about
        self.format = format  # of a new run's checkpoint
        self.tokenizer = trainer.m.tokenizer
        self.token_lengths = token_lengths(self.tokenizer, trainer.m.config.n_vocab)
        self.log = FORMAT

    def batches(self, t: int) -> list[Batch]:
        s = self.options
        firsts = range(0, s.accumulate * s.batch_size, s.batch_size)
        numbers = np.arange(s.batch_size)
        return [(n, *windows.random_batch(self.text.train, s.context, s.seed, t, n + numbers)) for n in firsts]

    def size(self, batches: list[Batch]) -> int:
        return sum(tokens.size for _, tokens, _ in batches)

    def size_of_steps(self, steps: int) -> int:
        s = self.options
        return steps * s.accumulate * s.batch_size * s.context

    def evaluate(self, step: int, last: bool) -> Entry:
        """Return the losses on equally many batches of both texts; after the last step, on all of the validating one"""
        s = self.options
        most = s.eval_batches or -(-len(self.text.val) // (s.context * s.batch_size))
        val = self.measure("val", self.text.val, 0 if last else most)
        return {"step": step, **self.measure("train", self.text.train, most), **val}

    def measure(self, name: str, tokens: np.ndarray, most: int) -> Entry:
        """Return the measures on at most `most` batches, or on all of them if most is 0"""
        batches = windows.batches(tokens, self.options.context, self.options.batch_size, most)
        measured = measure(self.trainer.loss, batches, self.token_lengths)
        finite(measured["loss"])
        return {f"{name}_{key}": value for key, value in measured.items()}

    def sample(self, step: int) -> str | None:
        """Return a sample: the start of a document if the training text has documents, else the start of a line"""
        eot = self.tokenizer.eot
        documents = eot is not None and (self.text.train[: 1 << 20] == eot).any()
        prompt = [eot] if documents else self.tokenizer.encode("\n")
        ids = self.trainer.sample(prompt, seed=step, stop=[] if eot is None else [eot], **DECODING)
        return None if ids is None else self.tokenizer.decode(ids)

    def save(self, out: Path, step: int, state: tuple[Any, ...]) -> None:
        params, *moments = state
        m = Model(self.trainer.m.config, params, self.tokenizer)
        resume.save(out, resume.State(m, Moments(*moments), step, self.about), self.format)


def line(entry: Entry) -> str:
    """Return an evaluation as a line of text"""
    train, val = (format_number(entry[name], 4) for name in ("train_loss", "val_loss"))
    measures = format_measures(entry["val_perplexity"], entry["val_bits_per_byte"])
    speed = f"  {entry['tokens_per_s']:,.0f} tokens/s" if entry["tokens_per_s"] else ""
    return f"step {entry['step']:6}  train {train}  val {val}  {measures}{speed}"


FORMAT = LogFormat("train", line, {"loss": ("train_loss", "val_loss")})
