"""Resolve the options of fine-tuning: from the command line, a TOML file and the run to resume."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..checkpoint.source import is_path
from ..config import Config
from ..errors import GPTError
from ..lora import TARGETS
from ..train.loop import Schedule
from ..train.option_checks import absolute, check_eps, lowest_rate, resumed, stored_options, validated
from .batches import steps_per_epoch

SPAM = "sms-spam"  # the name of a data set that --data takes instead of a file


@dataclass(frozen=True)
class FinetuneOptions:
    """Hold the options under the flags' names; a default of None is replaced by a value that depends on the others"""

    data: str = ""
    label_column: str = ""
    text_column: str = ""
    balance: bool = False
    template: str = ""
    init_from: str = "storyteller"
    train: str = "all"
    lora: int = 0
    lora_alpha: float | None = None
    lora_targets: tuple[str, ...] = TARGETS
    context: int | None = None
    batch_size: int = 32
    epochs: int = 5
    lr: float | None = None
    min_lr: float | None = None
    warmup: int | None = None
    beta1: float = 0.9
    beta2: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0
    dropout: float = 0.2
    eval_every: int | None = None
    save_every: int | None = None
    sample_every: int | None = None
    seed: int = 0


CHANGEABLE = {"epochs", "eval_every", "save_every", "sample_every"}  # with --resume
FILES = {"data", "template"}  # identified by their contents, so they may have moved
RATE = 0.116  # the default learning rate, times the width, if all parameters are trained
LORA_FACTOR = {"classify": 4, "instruct": 10}  # by which it is higher for adapters
PARTS = {"classify": ("all", "last", "head"), "instruct": ("all", "last")}
EPILOGS = {
    "classify": """examples:
  python -m {0} classify --data sms-spam --balance --out spam
  python -m {0} classify --data reviews.csv --text-column review --label-column stars --out stars
  python -m {0} classify --resume --out spam --epochs 20
  python -m {0} predict spam "You have won a prize! Call now."

FILE.tsv has a label, a tab and a text in each line. FILE.csv follows the rules of Python's csv module.

70 % of the rows of each label are for training, 10 % for validation and 20 % for the test, drawn by the seed. DIR
becomes a classifier that predict reads, and that transformers loads as GPT2ForSequenceClassification. log.jsonl has an
object for each evaluation, and loss.svg and accuracy.svg plot them. The report at the end is on stdout.

An interrupted run can be resumed from its last checkpoint with --resume, even after kill -9. The result is the same as
without the interruption. --resume of a complete run prints its report again.""",
    "instruct": """examples:
  python -m {0} instruct --data instructions.json --out tuned
  python -m {0} instruct --data instructions.json --init-from 124M --lora 16 --out tuned
  python -m numpy_gpt.generate --model tuned --instruct "Name three colours."

FILE.json is a list of objects with the keys instruction, input (optional) and output, as Alpaca's. The loss is that of
the outputs and of <|endoftext|> after each. A tenth of the entries, drawn by the seed, is held out: for the evaluations
and for sample answers.

A template is an object with two texts:
  {{"prompt": "Q: {{instruction}}\\nA: ", "prompt_with_input": "Q: {{instruction}}\\n{{input}}\\nA: "}}

DIR becomes a checkpoint with the template beside it, which generate --instruct and the chat of serve use. With --lora,
the adapters are merged into it, and DIR/adapter has them alone, as PEFT reads them.

An interrupted run can be resumed from its last checkpoint with --resume, even after kill -9. The result is the same as
without the interruption.""",
}
DESCRIPTIONS = {
    "classify": "Train GPT-2 to classify texts, with a head on the last token of each text.",
    "instruct": "Train GPT-2 to answer instructions.",
}
DEFAULTS: dict[str, dict[str, Any]] = {"classify": {}, "instruct": {"batch_size": 8, "epochs": 3, "dropout": 0.0}}


def parser(command: str, task: str) -> argparse.ArgumentParser:
    """Return the parser of classify or instruct; its namespace has no attribute for most options that aren't given"""
    result = argparse.ArgumentParser(
        prog=f"python -m {command} {task}",
        description=DESCRIPTIONS[task],
        epilog=EPILOGS[task].format(command),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )

    def add(flag, kind, metavar, text):
        name = flag[2:].replace("-", "_")
        default = DEFAULTS[task].get(name, getattr(FinetuneOptions, name))
        shown = "" if default in (None, "") else f" (default: {default})"
        result.add_argument(flag, type=kind, metavar=metavar, help=text + shown)

    if task == "classify":
        add_classification_options(result, add)
    else:
        add("--data", str, "FILE", "instructions: a JSON list of objects, or one object a line")
        add("--template", str, "FILE", "JSON with the texts around an instruction (default: the model's, or Alpaca's)")
    result.add_argument("--out", metavar="DIR", default=None, help="directory of the run")
    result.add_argument("--resume", action="store_true", default=False, help="resume the run in DIR with its options")
    add("--init-from", str, "M", "start from this model, a name or a path")
    parts = "all, last (the last block), a number of last blocks" + (" or head" if task == "classify" else "")
    add("--train", str, "PART", f"the part to train: {parts}")
    add("--lora", int, "R", "train adapters of this rank instead of the blocks' matrices; 0 trains no adapters")
    add("--lora-alpha", float, "X", "the adapters' product is multiplied by X / R (default: R)")
    text = f"matrices with adapters (default: {' '.join(TARGETS)})"
    result.add_argument("--lora-targets", nargs="+", choices=TARGETS, metavar="NAME", help=text)
    text = (
        "cut texts after T tokens"
        if task == "classify"
        else "cut examples after T tokens, and leave out longer prompts"
    )
    add("--context", int, "T", f"{text} (default: the model's context)")
    add("--batch-size", int, "B", "texts in a batch")
    add("--epochs", int, "N", "passes through the training texts; --resume with more epochs stretches the schedule")
    head = ", 4 times for the head" if task == "classify" else ""
    lora = LORA_FACTOR[task]
    text = f"{RATE} / width for all parameters, twice that for last blocks{head}, {lora} times for adapters"
    add("--lr", float, "X", f"highest learning rate (default: {text})")
    add("--min-lr", float, "X", "learning rate of the last step (default: a tenth of --lr)")
    add("--warmup", int, "N", "steps of linear warm-up (default: a twentieth of all steps)")
    add("--beta1", float, "X", "AdamW's decay rate of the mean gradient")
    add("--beta2", float, "X", "AdamW's decay rate of the mean square")
    add("--eps", float, "X", "AdamW's addend to the root of the mean square")
    add("--weight-decay", float, "X", "AdamW's decay of matrices, multiplied by the learning rate")
    add("--clip", float, "X", "largest norm of the gradient; 0 turns clipping off")
    add("--dropout", float, "X", "dropout rate" + (" in the trained blocks" if task == "classify" else ""))
    add("--eval-every", int, "N", "steps between evaluations (default: an epoch)")
    add("--save-every", int, "N", "steps between checkpoints (default: an epoch)")
    if task == "instruct":
        add("--sample-every", int, "N", "steps between sample answers; 0 prints none (default: an epoch)")
    add("--seed", int, "S", "seed of the split, of new weights, batches and dropout, from 0 to 2**64 - 1")
    return result


def add_classification_options(result: argparse.ArgumentParser, add: Any) -> None:
    """Add the options that only classify has"""
    add("--data", str, "FILE", f"labels and texts: FILE.tsv, FILE.csv or {SPAM}, which is downloaded")
    add("--label-column", str, "NAME", "column of the labels in FILE.csv (default: label, or else the first)")
    add("--text-column", str, "NAME", "column of the texts in FILE.csv (default: text, or else the second)")
    text = "use as many rows of each label as the rarest label has, drawn by the seed"
    result.add_argument("--balance", action=argparse.BooleanOptionalAction, help=text)
    result.add_argument("--json", action="store_true", default=False, help="print the report at the end as an object")


def resolve(task: str, given: Mapping[str, Any], stored: Mapping[str, Any] | None = None) -> FinetuneOptions:
    """Return a run's options: the given ones, then those of the run to resume, or else the defaults

    Invalid options raise GPTError, and invalid stored ones CheckpointError.
    """
    given = validated(FinetuneOptions, given)
    for name in ("data", "template"):
        if given.get(name) and given[name] != SPAM:
            given[name] = absolute(given[name])
    if is_path(given.get("init_from", "")):
        given["init_from"] = absolute(given["init_from"])
    if "lora_targets" in given:
        given["lora_targets"] = tuple(name for name in TARGETS if name in given["lora_targets"])
    if stored is not None:
        s = stored_options(FinetuneOptions, {**stored, "lora_targets": tuple(stored.get("lora_targets") or ())})
        base = {"init_from"} if s.lora else set()  # read again, and identified by its contents
        return resumed(s, given, CHANGEABLE | FILES | base)
    s = FinetuneOptions(**{**DEFAULTS[task], **given})
    if not s.data:
        raise GPTError("--data is missing: give the file to train on.")
    check_part(s.train, task)
    if s.lora and s.train == "head":
        raise GPTError("--lora trains adapters of blocks, and --train head trains no block: leave one of them out.")
    if not s.lora and ("lora_alpha" in given or "lora_targets" in given):
        raise GPTError("--lora-alpha and --lora-targets are for adapters: give their rank with --lora.")
    if s.lora_alpha == 0:
        raise GPTError("--lora-alpha 0 multiplies the adapters' product by 0: choose a number above 0.")
    Config(dropout=s.dropout)  # checks it
    check_eps(s.eps, s.beta2, "float32")
    return s


def check_part(part: str, task: str) -> None:
    """Raise GPTError if --train PART isn't a part that the task can train"""
    if part not in PARTS[task] and not (part.isdecimal() and int(part)):
        others = ", ".join(PARTS[task])
        raise GPTError(f"--train {part} isn't a part of a model: choose {others}, or a number of last blocks.")


def complete(s: FinetuneOptions, task: str, config: Config, texts: int) -> FinetuneOptions:
    """Return the options with the defaults that depend on the model and on the number of training texts"""
    epoch = steps_per_epoch(texts, s.batch_size)
    lr = default_rate(s, task, config) if s.lr is None else s.lr
    values: dict[str, Any] = {
        "context": context(s, config),
        "lr": lr,
        "min_lr": lowest_rate(s.min_lr, lr),
        "warmup": s.epochs * epoch // 20 if s.warmup is None else s.warmup,
        "lora_alpha": float(s.lora) if s.lora_alpha is None else s.lora_alpha,
        "eval_every": epoch if s.eval_every is None else s.eval_every,
        "save_every": epoch if s.save_every is None else s.save_every,
        "sample_every": (epoch if task == "instruct" else 0) if s.sample_every is None else s.sample_every,
    }
    return replace(s, **values)


def context(s: FinetuneOptions, config: Config) -> int:
    """Return --context, by default the model's context; raise GPTError if it is longer than that"""
    if s.context is not None and s.context > config.n_ctx:
        raise GPTError(f"--context {s.context} is longer than {s.init_from} allows: choose at most {config.n_ctx}.")
    return config.n_ctx if s.context is None else s.context


def default_rate(s: FinetuneOptions, task: str, config: Config) -> float:
    """Return the learning rate: inversely proportional to the width, and higher if few parameters are trained"""
    factor = LORA_FACTOR[task] if s.lora else {"all": 1, "head": 4}.get(s.train, 2)
    return factor * RATE / config.n_embd


def schedule(s: Any, texts: int) -> Schedule:
    """Return the schedule of a run with complete options"""
    steps = s.epochs * steps_per_epoch(texts, s.batch_size)
    return Schedule(steps, s.lr, s.min_lr, s.warmup, s.eval_every, s.save_every, s.sample_every)
