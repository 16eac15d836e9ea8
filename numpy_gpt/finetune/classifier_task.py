"""Define the task of a classification run: batches, evaluations and checkpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..evaluate.metrics import format_number
from ..train.log import Entry, LogFormat
from ..train.loop import finite
from .batches import Epochs, sorted_batches
from .classifier_data import Texts
from .step import Arrays, Batch


class Evaluator(Protocol):
    """Evaluate a batch; a trainer is one"""

    def evaluate(self, arrays: Arrays) -> np.ndarray:
        """Return the logits (B,K) of the texts"""


class Classification:
    """Train on batches of texts of similar length, as loop.Task requires"""

    unit = "texts"
    files = "for --resume or predict"

    def __init__(
        self, trainer: Evaluator, texts: Texts, batch_size: int, seed: int, save: Callable[[Path, int, Any], None]
    ):
        self.trainer, self.texts, self.batch_size, self.save = trainer, texts, batch_size, save
        self.log = FORMAT
        self.epochs = Epochs(texts.lengths(texts.split.train), batch_size, seed)
        self.measured = {"train": texts.split.train[: len(texts.split.val)], "val": texts.split.val}

    def batches(self, t: int) -> list[Batch]:
        return [(0, self.texts.batch(self.texts.split.train[self.epochs.batch(t)]))]

    def size(self, batches: list[Batch]) -> int:
        return sum(len(arrays[0]) for _, arrays in batches)

    def size_of_steps(self, steps: int) -> int:
        return self.epochs.texts(steps)

    def evaluate(self, step: int, last: bool) -> Entry:
        """Return loss and accuracy of the validation texts, and of as many training texts"""
        entry: Entry = {"step": step, "epoch": step / self.epochs.steps}
        for name, numbers in self.measured.items():
            logits, classes = self.logits(numbers), self.texts.classes[numbers]
            entry[f"{name}_loss"] = finite(losses(logits, classes).mean())
            entry[f"{name}_accuracy"] = float((logits.argmax(-1) == classes).mean())
        return entry

    def logits(self, numbers: np.ndarray) -> np.ndarray:
        """Return the logits (n,K) of these texts"""
        return logits_of(self.trainer, self.texts, numbers, self.batch_size)

    def sample(self, step: int) -> None:
        return None


def logits_of(evaluator: Evaluator, texts: Texts, numbers: np.ndarray, batch_size: int) -> np.ndarray:
    """Return the logits (n,K) of texts, computed in batches of similar length"""
    batches = sorted_batches(texts.lengths(numbers), batch_size)
    logits = np.concatenate([evaluator.evaluate(texts.batch(numbers[rows])) for rows in batches])
    return logits[np.argsort(np.concatenate(batches))]


def losses(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of each row, in float64"""
    z = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf is NaN, which evaluate refuses
        z -= z.max(-1, keepdims=True)
    return np.log(np.exp(z).sum(-1)) - z[np.arange(len(z)), classes]


def line(entry: Entry) -> str:
    """Return an evaluation as a line of text"""
    parts = [
        f"{name} loss {format_number(entry[f'{name}_loss'], 4)} accuracy {entry[f'{name}_accuracy']:.3f}"
        for name in ("train", "val")
    ]
    speed = f"  {entry['texts_per_s']:,.0f} texts/s" if entry["texts_per_s"] else ""
    return f"step {entry['step']:6}  epoch {entry['epoch']:5.2f}  {'  '.join(parts)}{speed}"


CHARTS = {"loss": ("train_loss", "val_loss"), "accuracy": ("train_accuracy", "val_accuracy")}
FORMAT = LogFormat("finetune", line, CHARTS)
