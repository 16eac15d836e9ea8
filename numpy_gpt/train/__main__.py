"""python -m numpy_gpt.train: train a model on text."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from .. import fast
from ..errors import CheckpointError, GPTError
from ..params import Model
from ..system.cli import exit_on_signals, parse, print_stderr, run, uninterrupted
from ..system.locks import run_directory
from ..text import token_cache, windows
from . import options, pretraining
from .backend import Backend
from .loop import Run, schedule_of
from .option_checks import FILES
from .options import TrainOptions
from .pretraining import Pretraining
from .resume import State
from .start import check_new_directory, check_no_checkpoint, load_run, new_state, resolve_context
from .step import Trainer
from .texts import read_split, readable_texts, refuse_pipes


def main(argv: Sequence[str] | None = None, name: str = "numpy_gpt.train") -> int:
    """Train on NumPy with the options of the command line; return the exit status"""
    parser = options.parser(name)
    return train(parse(parser, sys.argv[1:] if argv is None else argv), parser, Backend(Trainer))


def train(args: argparse.Namespace, parser: argparse.ArgumentParser, backend: Backend) -> int:
    """Start a run or resume it; return the exit status"""
    fast.tune()
    with uninterrupted():  # Cython discards an exception that a signal's handler raises in this import
        import numpy.random  # noqa: F401
    if not args.out:
        parser.error("--out is missing: give the directory of the run.")
    if backend.processes > 1:
        refuse_pipes(args)
    return (resume_run if args.resume else start_run)(Path(args.out), args, parser, backend)


def start_run(out: Path, args: argparse.Namespace, parser: argparse.ArgumentParser, backend: Backend) -> int:
    s = resolve_options(parser, args)
    check_new_directory(out, args.format or options.FORMATS[0], pretraining.FORMAT)
    with exit_on_signals() as check_signals, locked(out, backend):
        check_no_checkpoint(out)  # another process may have saved one since the first check
        return make_run(out, args, s, None, backend, check_signals).train()


def resume_run(out: Path, args: argparse.Namespace, parser: argparse.ArgumentParser, backend: Backend) -> int:
    if not os.path.isdir(out):
        if os.path.lexists(out):
            raise GPTError(f"{out} is a file or a broken link: give the directory of a run.")
        raise GPTError(f"{out} doesn't exist: leave --resume out to start a run.")
    with exit_on_signals() as check_signals, locked(out, backend):
        previous = load_run(out, args.format)
        s = resolve_options(parser, args, previous.about["settings"])
        if previous.step >= s.steps:
            print_stderr(f"train: {out} has done all of its {previous.step} steps: give a larger --steps to resume it.")
            return 0
        return make_run(out, args, s, previous, backend, check_signals).train()


def resolve_options(
    parser: argparse.ArgumentParser, args: argparse.Namespace, stored: Mapping[str, Any] | None = None
) -> TrainOptions:
    """Return the options of a run; invalid ones exit with the parser's usage and status 2"""
    try:
        return options.resolve(vars(args), stored)
    except CheckpointError:  # the stored options are invalid
        raise
    except GPTError as e:
        parser.error(str(e))


def locked(out: Path, backend: Backend) -> AbstractContextManager[None]:
    """Create and lock the directory of a run, in the leader alone"""
    return run_directory(out) if backend.leader else nullcontext()


def make_run(
    out: Path,
    args: argparse.Namespace,
    s: TrainOptions,
    previous: State | None,
    backend: Backend,
    check_signals: Callable[[], None],
) -> Run:
    """Read the texts, and return a run that starts from the previous state, or from a new one"""
    with readable_texts(s, args, previous) as (readable, cached):
        state = previous or new_state(readable)
        context = resolve_context(s, state.m, is_default=not previous and "context" not in args)
        s, readable = replace(s, context=context), replace(readable, context=context)
        tokenizer = state.m.tokenizer
        keys = [cached.get(name) or token_cache.key(getattr(readable, name), tokenizer) for name in FILES]
        if previous and keys != previous.about["text"]:
            raise GPTError(f"the text isn't the one that {out} was started with: restore it, or start a new run.")
        text = read_split(readable, tokenizer, keys)
    check_signals()
    about = {"settings": asdict(s), "text": keys}
    trainer = backend.make_trainer(state.m, state.moments, s)
    task = Pretraining(trainer, text, s, about, args.format or options.FORMATS[0])
    prepared = Run(out, state.step, trainer, task, schedule_of(s))
    prepared.print(describe(state.m, text))
    return prepared


def describe(m: Model, text: windows.Split) -> str:
    """Return a line about the model's shape and the texts' length"""
    c = m.config
    return (
        f"{c.n_layer} layers, {c.n_head} heads, width {c.n_embd}, context {c.n_ctx}, {c.n_vocab:,} tokens: "
        f"{c.num_parameters():,} parameters; {len(text.train):,} tokens to train on, {len(text.val):,} to validate"
    )


if __name__ == "__main__":
    sys.exit(run("train", main))
