"""Resolve the options of a training run: from the command line, a TOML file and the run to resume."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..config import Config
from ..errors import GPTError
from ..text.bpe import FIRST
from ..text.tokenizer import EOT
from .option_checks import FILES, check_eps, flag, lowest_rate, resumed, stored_options, validated


@dataclass(frozen=True)
class TrainOptions:
    """Hold the options under the flags' names; a default of None is replaced by a value that depends on the others"""

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


NEW_MODEL = ("tokenizer", "n_layer", "n_head", "n_embd")  # contradict --init-from
CHANGEABLE = ("steps", "eval_every", "eval_batches", "save_every", "sample_every", "checkpointing")  # with --resume
FORMATS = ("huggingface", "openai")  # layouts of the checkpoint; the first is the default
EPILOG = """examples:
  python -m {0} --data shakespeare.txt --out shakespeare
  python -m {0} --resume --out shakespeare
  python -m {0} --init-from 124M --data notes.txt --out tuned --steps 200
  python -m numpy_gpt.generate --model shakespeare "ROMEO:"

DIR becomes a checkpoint, with two more files: log.jsonl has an object for each evaluation, and loss.svg plots them.

An interrupted run can be resumed from its last checkpoint with --resume, even after kill -9. The result is the same as
without the interruption. Ctrl-C and SIGTERM save a checkpoint first. A run that was started with nohup continues when
its terminal closes. If the reader of stdout closes the pipe, the run continues and prints nothing more.

NumPy and PyTorch compute the same run from the same options, up to rounding. Either resumes a run of the other.

FILE may be a pipe, as in --data <(zcat text.gz). The tokens of a text are kept in the user's cache. A resumed run takes
them from there if the text can't be read any more."""


def parser(name: str) -> argparse.ArgumentParser:
    """Return the parser; its namespace has no attribute for most options that aren't given"""
    result = argparse.ArgumentParser(
        prog=f"python -m {name}",
        description="Train GPT-2 on text, from random weights or from another model.",
        epilog=EPILOG.format(name),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )

    def add(flag, kind, metavar, text, **more):
        default = getattr(TrainOptions, flag[2:].replace("-", "_"))
        result.add_argument(
            flag,
            type=kind,
            metavar=metavar,
            help=text if default in (None, ()) else f"{text} (default: {default})",
            **more,
        )

    add(
        "--data",
        str,
        "FILE",
        "UTF-8 text; <|endoftext|> separates documents, and is added between files",
        nargs="+",
    )
    add("--val-data", str, "FILE", "text for validation (default: the last tenth of --data)", nargs="+")
    result.add_argument("--out", metavar="DIR", default=None, help="directory of the run")
    text = "layout of a new checkpoint: huggingface, which transformers loads (default), or openai"
    result.add_argument("--format", choices=FORMATS, default=None, help=text)
    result.add_argument("--resume", action="store_true", default=False, help="resume the run in DIR with its options")
    add("--init-from", str, "M", "start from this model, a name or a path, and use its tokenizer")
    add("--tokenizer", str, "M|bpe:N|bytes", "a model's, a new one of N tokens, or one token per byte (default: bytes)")
    add("--n-layer", int, "L", "layers")
    add("--n-head", int, "H", "attention heads in a layer")
    add("--n-embd", int, "C", "width")
    add("--context", int, "T", "tokens in a window, and context of a new model; by default at most --init-from's")
    add("--batch-size", int, "B", "windows in a batch")
    add("--accumulate", int, "A", "batches whose gradients a step averages: A times the batch in the same memory")
    add("--steps", int, "N", "steps in total; --resume with more steps stretches the schedule")
    add("--lr", float, "X", "highest learning rate (default: 1e-3; with --init-from 5e-5)")
    add("--min-lr", float, "X", "learning rate of the last step (default: a tenth of --lr)")
    add("--warmup", int, "N", "steps of linear warm-up, less than --steps to reach --min-lr (default: a twentieth)")
    add("--beta1", float, "X", "AdamW's decay rate of the mean gradient")
    add("--beta2", float, "X", "AdamW's decay rate of the mean square")
    add("--eps", float, "X", "AdamW's addend to the root of the mean square")
    add("--weight-decay", float, "X", "AdamW's decay of matrices, multiplied by the learning rate")
    add("--clip", float, "X", "largest norm of the gradient; 0 turns clipping off")
    add("--dropout", float, "X", "dropout rate")
    add("--eval-every", int, "N", "steps between evaluations")
    add(
        "--eval-batches",
        int,
        "N",
        "batches in an evaluation; 0, like the last step, reads all of the validation text",
    )
    add("--save-every", int, "N", "steps between checkpoints")
    add("--sample-every", int, "N", "steps between samples of text; 0 prints none")
    add("--seed", int, "S", "seed of weights, windows and dropout, from 0 to 2**64 - 1")
    text = "save each block's input only, and recompute the block in the backward"
    result.add_argument("--checkpointing", action=argparse.BooleanOptionalAction, help=text)
    return result


def resolve(given: Mapping[str, Any], stored: Mapping[str, Any] | None = None) -> TrainOptions:
    """Return a run's options: the given ones, then those of the run to resume, or else the defaults

    Invalid options raise GPTError, and invalid stored ones CheckpointError.
    """
    wide = given.get("dtype") == "float64" or given.get("init_from")  # torch's --dtype; a model that may be float64
    given = validated(TrainOptions, given)
    if stored is None:
        return new_options(given, "float64" if wide else "float32")
    s = stored_options(TrainOptions, stored)
    return resumed(s, given, {*CHANGEABLE, *FILES})  # a text is identified by its contents


def new_options(given: Mapping[str, Any], dtype: str) -> TrainOptions:
    """Return the options of a new run, with the defaults that depend on other options"""
    s = TrainOptions(**given)
    check_consistent(s, given)
    bpe_size(s.tokenizer or "")
    check_shape(s)
    check_eps(s.eps, s.beta2, dtype)
    lr = (5e-5 if s.init_from else 1e-3) if s.lr is None else s.lr
    min_lr = lowest_rate(s.min_lr, lr)
    warmup = s.steps // 20 if s.warmup is None else s.warmup
    tokenizer = "bytes" if s.tokenizer is None and not s.init_from else s.tokenizer
    return replace(s, lr=lr, min_lr=min_lr, warmup=warmup, tokenizer=tokenizer)


def check_consistent(s: TrainOptions, given: Mapping[str, Any]) -> None:
    for name in NEW_MODEL:
        if s.init_from and name in given:
            raise GPTError(
                f"{flag(name)} is for a new model, not for --init-from {s.init_from}: leave one of them out."
            )
    if not s.data:
        raise GPTError("--data is missing: give the text to train on.")


def bpe_size(tokenizer: str) -> int | None:
    """Return N of --tokenizer bpe:N, or None for another tokenizer; raise GPTError if N isn't a possible size"""
    if not tokenizer.startswith("bpe:"):
        return None
    size = tokenizer.removeprefix("bpe:")
    if not size.isdecimal() or len(size) > 9:
        raise GPTError(f"--tokenizer {tokenizer[:40]!r} has no number of tokens: write it as in bpe:1024.")
    if int(size) <= FIRST:
        raise GPTError(f"--tokenizer {tokenizer} is too small: choose at least {FIRST + 1}, for the bytes and {EOT}.")
    return int(size)


def check_shape(s: TrainOptions) -> None:
    """Raise GPTError if no model has this width, number of heads and dropout: Config checks them"""
    Config(n_embd=s.n_embd, n_head=s.n_head, dropout=s.dropout)
