"""Start a fine-tuning run or resume it: the parts that classify and instruct share."""

import argparse
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import fast
from ..adamw import Moments, moments
from ..checkpoint import hub
from ..checkpoint.adapter import FILES as ADAPTER_FILES
from ..checkpoint.adapter import LoraAdapters, check_replaceable
from ..checkpoint.adapter import write as write_adapters
from ..checkpoint.destination import check_can_be_directory
from ..checkpoint.stored import Stored
from ..config import Config
from ..errors import CheckpointError, GPTError
from ..lora import new_adapters
from ..params import GPT2, Block, Head, Model, tree_map
from ..system import cli
from ..system.cli import exit_on_signals, print_stderr, uninterrupted
from ..system.locks import run_directory
from ..text import sources
from ..text.template import Template
from ..train.log import LogFormat
from ..train.start import check_new_directory, check_no_checkpoint, load_initial
from . import options, run_files
from .backend import Backend
from .merge import ORGANISATION
from .options import FinetuneOptions
from .trainable import Trainable, first_block, select, with_adapters

ADAPTER = "adapter"  # in the directory of a run: a directory with its adapters alone


class Previous(NamedTuple):
    """Hold what a run to resume has saved beside its model"""

    step: int
    about: dict[str, Any]
    tensors: dict[str, Stored]


class Opened(NamedTuple):
    """Hold a run's directory, its options as far as they are known, and its previous state, if it is resumed"""

    out: Path
    options: FinetuneOptions
    previous: Previous | None
    check_signals: Callable[[], None]


def parse(task: str, argv: list[str], backend: Backend) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    """Parse the command line, and prepare the process for computing"""
    parser = options.parser(backend.command, task)
    backend.add_arguments(parser)
    args = cli.parse(parser, argv)
    if not args.out:
        parser.error("--out is missing: give the directory of the run.")
    fast.tune()
    with uninterrupted():  # Cython discards an exception that a signal's handler raises in this import
        import numpy.random  # noqa: F401
    return args, parser


@contextmanager
def opened(task: str, args: argparse.Namespace, parser: argparse.ArgumentParser, log: LogFormat) -> Iterator[Opened]:
    """Lock the directory of a new run or of the one to resume, and yield it with its options"""
    out = Path(args.out)
    if not args.resume:
        s = resolve(task, parser, args)
        check_new_run(out, s, log)
    elif not os.path.isdir(out):
        run_files.load(out, task)  # raises GPTError
    with exit_on_signals() as check_signals, run_directory(out):
        if args.resume:
            previous = Previous(*run_files.load(out, task))
            s = resolve(task, parser, args, previous.about["settings"])
            if "data" not in args:
                check_rereadable(s.data)
            if s.lora:
                check_replaceable(out / ADAPTER)
                if "init_from" not in args:
                    check_base_exists(s.init_from)
            yield Opened(out, s, previous, check_signals)
        else:
            check_no_checkpoint(out)  # another process may have saved one since the first check
            yield Opened(out, s, None, check_signals)


def check_rereadable(data: str) -> None:
    """Raise GPTError if a resumed run can't read its data, which were a pipe or have moved"""
    if data != options.SPAM and not sources.is_rereadable(data):
        raise GPTError(f"{data} can't be read again: give the same data with --data.")


def check_base_exists(source: str) -> None:
    """Raise CheckpointError if the model of adapters, whose path a run stores as an absolute one, has moved"""
    if os.path.isabs(source) and not os.path.exists(source):
        raise CheckpointError(
            f"{source}, the model that the run was started from, doesn't exist: give its new path with --init-from."
        )


def check_new_run(out: Path, s: FinetuneOptions, log: LogFormat) -> None:
    """Raise GPTError if a new run in this directory would replace other files, such as adapters"""
    adapter = out / ADAPTER
    check_new_directory(out, "huggingface", log, [f"{ADAPTER}/{name}" for name in ADAPTER_FILES] if s.lora else ())
    if s.lora:
        check_can_be_directory(adapter)
        check_replaceable(adapter)


def resolve(
    task: str,
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    stored: Mapping[str, Any] | None = None,
) -> FinetuneOptions:
    """Return the options of a run; invalid ones exit with the parser's usage and status 2"""
    try:
        return options.resolve(task, vars(args), stored)
    except CheckpointError:  # the stored options are invalid
        raise
    except GPTError as e:
        parser.error(str(e))


def initial_model(run: Opened) -> Model:
    """Return a copy of the model that a run starts from"""
    return load_initial(run.options.init_from, run.options.dropout)


def base_of(run: Opened, params: GPT2) -> dict[str, str]:
    """Return the hash of the frozen weights, which a run with adapters reads again; raise GPTError if it differs"""
    if not run.options.lora:
        return {}
    found = run_files.fingerprint(params._replace(head=None))
    check_same(run, "base", found, f"the model {run.options.init_from}")
    return {"base": found}


def check_same(run: Opened, key: str, found: Any, what: str) -> None:
    """Raise GPTError if a resumed run was started with another text, template or model"""
    if run.previous and run.previous.about.get(key) != found:
        raise GPTError(f"{what} isn't the one that {run.out} was started with: restore it, or start a new run.")


def in_dtype_of(run: Opened, params: GPT2) -> GPT2:
    """Return parameters in the dtype of the run to resume, which PyTorch's --dtype may have changed"""
    if not run.previous:
        return params
    wide = all(stored.dtype == "float64" for stored in run.previous.tensors.values())
    return tree_map(lambda a: a.astype(np.float64 if wide else np.float32, copy=False), params)


def trainable(params: GPT2, s: FinetuneOptions, config: Config, head: Head | None) -> Trainable:
    """Return the parameters with the part of them that the options train, or with adapters and a classifier's head"""
    first = first_block(s.train, config.n_layer)
    if not s.lora:
        return select(params, first)
    if s.lora > config.n_embd:
        raise GPTError(
            f"--lora {s.lora} is above the largest rank of the model's matrices: choose at most {config.n_embd}."
        )
    dtype = params.wte.dtype
    adapters = new_adapters(config, s.lora, s.lora_targets, first or 0, s.seed)
    assert s.lora_alpha is not None  # complete options have it
    adapters = tree_map(lambda a: a.astype(dtype), adapters)
    return with_adapters(params, first, adapters, s.lora_alpha / s.lora, head)


def restore(run: Opened, model: Trainable) -> Moments:
    """Return AdamW's moments of a new run, or those of the run to resume, whose adapters are restored too"""
    state = moments(model.trained)
    if run.previous:
        trees = run_files.trees_to_save(model.trained, state, adapters=bool(run.options.lora))
        run_files.fill_trees(run.out, run.previous.tensors, trees)
    return state


def save_adapters(
    out: Path,
    s: FinetuneOptions,
    adapters: list[Block],
    head: np.ndarray | None,
    config: Config,
    template: Template | None = None,
) -> None:
    """Write the adapters of a run, if it has any, to a directory of their own

    They are written before the model: a run whose last checkpoint is saved has their last values too.
    """
    if s.lora:
        assert s.lora_alpha is not None  # complete options have it
        base = published(s.init_from)
        write_adapters(out / ADAPTER, LoraAdapters(adapters, s.lora, s.lora_alpha, head, base, template), config)


def published(source: str) -> str:
    """Return the name by which PEFT finds a released model, or the source of another model"""
    names = {size: name for name, size in hub.NAMES.items() if name != size}
    size = hub.NAMES.get(source)
    return f"{ORGANISATION}{names[size]}" if size else source


def is_complete(run: Opened, steps: int) -> bool:
    """Print a note and return True if the run to resume has done all of its steps"""
    if run.previous and run.previous.step >= steps:
        print_stderr(
            f"finetune: {run.out} has done all of its {run.previous.step} steps: give more --epochs to resume it."
        )
        return True
    return False
