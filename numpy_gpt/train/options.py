"""What a run of training is asked to do: by flags, by a TOML file, by the run that it resumes."""

import argparse
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ..adamw import smallest_eps
from ..config import Config
from ..errors import CheckpointError, GPTError
from ..number import is_index, is_real


@dataclass(frozen=True)
class TrainOptions:
    """As the flags are called; what stands here is the default. None: it follows from the others"""

    data: tuple[str, ...] = ()
    val_data: tuple[str, ...] = ()
    init_from: str | None = None
    tokenizer: str | None = None
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    context: int = 64
    batch_size: int = 12
    accumulate: int = 1
    steps: int = 2000
    lr: float | None = None
    min_lr: float | None = None
    warmup: int | None = None
    beta1: float = 0.9
    beta2: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0
    dropout: float = 0.0
    eval_every: int = 250
    eval_batches: int = 20
    save_every: int = 250
    sample_every: int = 500
    seed: int = 0
    checkpointing: bool = False


NEW_MODEL = ("tokenizer", "n_layer", "n_head", "n_embd")  # of no use with --init-from
FREE = ("steps", "eval_every", "eval_batches", "save_every", "sample_every", "checkpointing")  # when it is resumed
FILES = ("data", "val_data")
LEAST = {  # of whole numbers
    **dict.fromkeys(("n_layer", "n_head", "n_embd", "context", "batch_size", "accumulate", "steps"), 1),
    **dict.fromkeys(("eval_every", "save_every"), 1),
    **dict.fromkeys(("warmup", "eval_batches", "sample_every", "seed"), 0),
}
BELOW = {  # what numbers of at least 0 must be
    **dict.fromkeys(("lr", "min_lr"), 1e30),  # times a step it has to be finite
    **dict.fromkeys(("eps", "weight_decay", "clip"), math.inf),
    **dict.fromkeys(("beta1", "beta2", "dropout"), 1),
}
EPILOG = """examples:
  python -m {0} --data shakespeare.txt --out shakespeare
  python -m {0} --resume --out shakespeare
  python -m {0} --init-from 124M --data notes.txt --out tuned --steps 200
  python -m numpy_gpt.generate --model shakespeare "ROMEO:"

DIR becomes a checkpoint like any other, with log.jsonl, an object for each evaluation, and loss.svg, their curve. A run
that was ended in any way, even by kill -9, goes on with --resume from its last checkpoint, and ends as it would have
ended. Ctrl-C and SIGTERM save first. If the reader of stdout closes the pipe, the run goes on and prints nothing more.
The same flags give the same run in NumPy and in PyTorch, to rounding, and either goes on with what the other began.

FILE may be a pipe, as in --data <(zcat text.gz): its tokens are kept in the user's cache, as those of a file are. A
resumed run whose text can't be read any more takes them from there."""


def parser(name: str) -> argparse.ArgumentParser:
    """Flags that aren't given leave nothing behind, so that one can tell"""
    made = argparse.ArgumentParser(
        prog=f"python -m {name}",
        description="Train a GPT-2 on text, from the start or from other weights.",
        epilog=EPILOG.format(name),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )

    def add(flag, kind, metavar, what, **more):
        default = getattr(TrainOptions, flag[2:].replace("-", "_"))
        made.add_argument(
            flag,
            type=kind,
            metavar=metavar,
            help=what if default in (None, ()) else f"{what} (default: {default})",
            **more,
        )

    add("--data", str, "FILE", "text in UTF-8; <|endoftext|> parts documents, and files are parted by it", nargs="+")
    add("--val-data", str, "FILE", "text to validate with (default: the last tenth of --data)", nargs="+")
    made.add_argument("--out", metavar="DIR", default=None, help="where the run is kept: new, or resumed")
    made.add_argument("--resume", action="store_true", default=False, help="go on with the run in DIR, as it was begun")
    add("--init-from", str, "M", "start from this model, a name or a path, with its tokenizer")
    add("--tokenizer", str, "M|bpe:N|bytes", "a model's, a new one of N tokens, or a token a byte (default: bytes)")
    add("--n-layer", int, "L", "layers")
    add("--n-head", int, "H", "attention heads in a layer")
    add("--n-embd", int, "C", "width")
    add("--context", int, "T", "tokens in a window, and the most that a new model sees")
    add("--batch-size", int, "B", "windows at a time")
    add("--accumulate", int, "A", "so many batches for one step: less memory for the same step")
    add("--steps", int, "N", "steps in all; a resumed run may get more, over which its schedule is stretched")
    add("--lr", float, "X", "the highest learning rate (default: 1e-3; with --init-from 5e-5)")
    add("--min-lr", float, "X", "the last (default: a tenth of --lr)")
    add("--warmup", int, "N", "steps until the highest (default: a twentieth of --steps)")
    add("--beta1", float, "X", "of AdamW: what stays of the mean gradient")
    add("--beta2", float, "X", "what stays of the mean square")
    add("--eps", float, "X", "is added to the root of that")
    add("--weight-decay", float, "X", "of matrices, times the learning rate")
    add("--clip", float, "X", "the largest norm of the gradient; 0 for any")
    add("--dropout", float, "X", "the rate of dropout")
    add("--eval-every", int, "N", "steps between evaluations")
    add("--eval-batches", int, "N", "batches for one, 0 for all of validation; the last has all of it")
    add("--save-every", int, "N", "steps between checkpoints")
    add("--sample-every", int, "N", "steps between samples of text; 0 for none")
    add("--seed", int, "S", "of the weights, the windows and dropout: from 0 to 2**64 - 1")
    what = "a block saves its input alone, and runs once more"
    made.add_argument("--checkpointing", action=argparse.BooleanOptionalAction, help=what)
    return made


def resolve(asked: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> TrainOptions:
    """What a run is to do: what is asked for now, over what it was when it began, or else over the defaults"""
    wide = asked.get("dtype") == "float64" or asked.get("init_from")  # the twin's flag; a model in float64
    asked = checked(asked)
    if before is None:
        return begun(asked, "float64" if wide else "float32")
    s = stored(before)
    free = {*FREE, *FILES}  # the texts are known by their contents
    if s.eps < smallest_eps("float32", s.beta2):
        free.add("eps")  # adamw.step refuses it
    for name, value in asked.items():
        if value != getattr(s, name) and name not in free:
            raise GPTError(
                f"{flag(name)} is {told(value)} and was {told(getattr(s, name))} when the run began: leave it out to "
                "resume, or begin another run."
            )
    return replace(s, **asked)


def stored(before: Mapping[str, Any]) -> TrainOptions:
    names = {field.name for field in fields(TrainOptions)}
    if before.keys() != names:
        name = min(before.keys() ^ names)
        raise CheckpointError(f"the run to resume has {'no' if name in names else 'an unknown'} setting {name}.")
    try:
        return TrainOptions(**checked(before))
    except (GPTError, TypeError) as e:
        raise CheckpointError(f"the run to resume has no settings that can be: {e}") from None


def begun(asked: Mapping[str, Any], dtype: str) -> TrainOptions:
    """What follows from the rest is put in"""
    s = TrainOptions(**asked)
    for name in NEW_MODEL:
        if s.init_from and name in asked:
            raise GPTError(f"{flag(name)} is for a new model, and {s.init_from} has its own: leave one of them out.")
    if not s.data:
        raise GPTError("--data is missing: give the text to train on.")
    Config(n_embd=s.n_embd, n_head=s.n_head, dropout=s.dropout)  # complains
    least = smallest_eps(dtype, s.beta2)
    if s.eps < least:
        raise GPTError(
            f"--eps is {s.eps}: it must be at least {least:.2g} to be added in {dtype}, or updates can be 0/0."
        )
    lr = (5e-5 if s.init_from else 1e-3) if s.lr is None else s.lr
    min_lr = lr / 10 if s.min_lr is None else s.min_lr
    if min_lr > lr:
        raise GPTError(f"--min-lr is {min_lr} and --lr {lr}: the last learning rate can't be above the highest.")
    warmup = s.steps // 20 if s.warmup is None else s.warmup
    tokenizer = "bytes" if s.tokenizer is None and not s.init_from else s.tokenizer
    return replace(s, lr=lr, min_lr=min_lr, warmup=warmup, tokenizer=tokenizer)


def checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are of TrainOptions, each possible by itself; files by paths that hold wherever the run is resumed"""
    values = {field.name: values[field.name] for field in fields(TrainOptions) if field.name in values}
    for name, value in values.items():
        bits = 64 if name == "seed" else 31
        if name in LEAST and (not is_index(value) or not LEAST[name] <= value < 2**bits):
            raise GPTError(
                f"{flag(name)} is {value!r:.40}: it must be a whole number from {LEAST[name]} to 2**{bits} - 1."
            )
        if name in BELOW and (not is_real(value) or not 0 <= value < BELOW[name]):
            most = "" if BELOW[name] == math.inf else f" and less than {BELOW[name]:g}"
            raise GPTError(f"{flag(name)} is {value!r}: it must be a finite number of at least 0{most}.")
    return {name: tuple(map(os.path.abspath, value)) if name in FILES else value for name, value in values.items()}


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def told(value: Any) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)
