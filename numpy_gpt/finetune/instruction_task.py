"""Define the task of an instruction run: batches, evaluations, sample answers and checkpoints."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..errors import GPTError
from ..evaluate.metrics import exp, format_measures, format_number
from ..text.template import Template, render
from ..text.tokenizer import Tokenizer
from ..train.log import Entry, LogFormat
from ..train.loop import finite
from .batches import Epochs, padded, sorted_batches
from .classifier_data import padding_of
from .instructions import Entry as Instruction
from .instructions import Example, encode, split
from .step import Arrays, Batch

DECODING: dict[str, Any] = {"max_new_tokens": 128, "temperature": 0}


class Data(NamedTuple):
    """Hold the tokens of the entries of either part, and the entries held out for sample answers"""

    train: list[Example]
    val: list[Example]
    held_out: list[Instruction]
    left_out: int  # entries whose prompt fills the context


class Evaluator(Protocol):
    """Evaluate a batch, and continue a prompt; a trainer does both"""

    def evaluate(self, arrays: Arrays) -> Any:
        """Return the sum of the losses of the responses"""

    def sample(self, tokenizer: Any, ids: list[int], **options: Any) -> list[int]:
        """Return the ids of a continuation"""


def prepare(
    entries: Sequence[Instruction], template: Template, tokenizer: Tokenizer, context: int, seed: int, name: str
) -> Data:
    """Return the tokens of the entries, without those whose prompt fills the context"""
    if len(entries) < 2:
        raise GPTError(f"{name} has one entry: give at least two, one to train on and one to hold out.")
    encoded = [(entry, encode(entry, template, tokenizer, context)) for entry in entries]
    usable = [(entry, example) for entry, example in encoded if example is not None]
    if len(usable) < 2:
        raise GPTError(
            f"the prompts of {len(entries) - len(usable)} of the {len(entries)} entries in {name} fill the context of "
            f"{context} tokens, and a run needs two others: shorten the entries or the template, or choose a model "
            "with a longer context."
        )
    train, val = split(len(usable), seed)
    held_out = [usable[i][0] for i in val]
    return Data([usable[i][1] for i in train], [usable[i][1] for i in val], held_out, len(entries) - len(usable))


class Instructions:
    """Train on responses, in batches of examples of similar length, as loop.Task requires"""

    unit = "examples"
    files = "for --resume or generate --instruct"

    def __init__(
        self,
        trainer: Evaluator,
        data: Data,
        template: Template,
        tokenizer: Tokenizer,
        options: Any,
        save: Callable[[Path, int, Any], None],
    ):
        self.trainer, self.data, self.template, self.tokenizer, self.save = trainer, data, template, tokenizer, save
        self.batch_size, self.sample_every = options.batch_size, options.sample_every
        self.log = FORMAT
        self.epochs = Epochs(lengths(data.train), options.batch_size, options.seed)
        self.measured = {"train": data.train[: len(data.val)], "val": data.val}

    def batches(self, t: int) -> list[Batch]:
        return [(0, self.arrays([self.data.train[i] for i in self.epochs.batch(t)]))]

    def arrays(self, examples: Sequence[Example]) -> Arrays:
        """Return tokens, targets and mask (B,T) of examples, padded on the right; the mask is True on the responses"""
        rows = padded([example.ids for example in examples], padding_of(self.tokenizer))
        position = np.arange(1, rows.shape[1])
        starts = np.array([[example.start] for example in examples])
        ends = np.array([[len(example.ids)] for example in examples])
        return rows[:, :-1], rows[:, 1:], (starts <= position) & (position < ends)

    def size(self, batches: list[Batch]) -> int:
        return sum(len(arrays[0]) for _, arrays in batches)

    def size_of_steps(self, steps: int) -> int:
        return self.epochs.texts(steps)

    def evaluate(self, step: int, last: bool) -> Entry:
        """Return the losses of the responses in the entries held out, and in as many training entries"""
        entry: Entry = {"step": step, "epoch": step / self.epochs.steps}
        for name, examples in self.measured.items():
            batches = sorted_batches(lengths(examples), self.batch_size)
            arrays = [self.arrays([examples[i] for i in rows]) for rows in batches]
            total = sum(float(self.trainer.evaluate(batch)) for batch in arrays)
            entry[f"{name}_loss"] = finite(total / sum(int(mask.sum()) for _, _, mask in arrays))
        return {**entry, "val_perplexity": exp(entry["val_loss"])}

    def sample(self, step: int) -> str:
        """Return the answer to an instruction that was held out; the samples of a run take turns"""
        number = (step // self.sample_every - 1) % len(self.data.held_out)
        instruction, given, _ = self.data.held_out[number]
        prompt = render(self.template, instruction, given)
        stop = [] if self.tokenizer.eot is None else [self.tokenizer.eot]
        ids = self.trainer.sample(self.tokenizer, self.tokenizer.encode(prompt), seed=step, stop=stop, **DECODING)
        return prompt + self.tokenizer.decode(ids)


def lengths(examples: Sequence[Example]) -> np.ndarray:
    return np.array([len(example.ids) for example in examples])


def line(entry: Entry) -> str:
    """Return an evaluation as a line of text"""
    train, val = (format_number(entry[name], 4) for name in ("train_loss", "val_loss"))
    measures = format_measures(entry["val_perplexity"], None)
    speed = f"  {entry['examples_per_s']:,.1f} examples/s" if entry["examples_per_s"] else ""
    return f"step {entry['step']:6}  epoch {entry['epoch']:5.2f}  train {train}  val {val}  {measures}{speed}"


FORMAT = LogFormat("finetune", line, {"loss": ("train_loss", "val_loss")})
