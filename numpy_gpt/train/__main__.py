"""python -m numpy_gpt.train: from text to a model"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, GPTError
from ..fast import memory
from ..params import Model
from ..system.cli import parse, print_stderr, run
from ..system.locks import claimed
from ..text import token_cache, windows
from . import options
from .loop import Run
from .options import TrainOptions
from .start import begin, check_fit, check_new, find
from .step import Trainer
from .texts import read, refuse_pipes, texts


def main(
    name: str = "numpy_gpt.train",
    add_arguments: Callable[[argparse.ArgumentParser], Any] = lambda parser: None,
    trainer: Callable[..., Any] = lambda args, *rest: Trainer(*rest),
    leader: bool = True,
    processes: int = 1,
    words: Sequence[str] | None = None,
    instead: Callable[[argparse.Namespace, argparse.ArgumentParser], int | None] = lambda *_: None,
) -> int:
    """What torch_gpt.train does in another way comes in as arguments; of several processes one leads

    words: of a command line, where it isn't the one that was typed
    instead: runs another task if the options ask for it, and returns its status, or None to train
    """
    memory.keep_freed()
    parser = options.parser(name)
    add_arguments(parser)
    args = parse(parser, sys.argv[1:] if words is None else words)
    status = instead(args, parser)
    if status is not None:
        return status
    if not args.out:
        parser.error("--out is missing: say where the run is to be kept.")
    if processes > 1:
        refuse_pipes(args)
    out = Path(args.out)
    if not args.resume:
        resolve_options(parser, args)  # complains before anything is made
        check_new(out)
    elif not os.path.isdir(out):
        raise GPTError(f"{out} isn't there: leave --resume out to begin a run.")
    with claimed(out) if leader else nullcontext():
        training = prepare(out, args, parser, trainer)
        return training.go() if training else 0


def resolve_options(
    parser: argparse.ArgumentParser, args: argparse.Namespace, before: dict[str, Any] | None = None
) -> TrainOptions:
    try:
        return options.resolve(vars(args), before)
    except CheckpointError:
        raise
    except GPTError as e:
        parser.error(str(e))


def prepare(out: Path, args: argparse.Namespace, parser: argparse.ArgumentParser, trainer) -> Run | None:
    """A run to go on with or to begin; None if it is done"""
    before = find(out, args.resume)
    settings = resolve_options(parser, args, before and before.about["settings"])
    if before and before.step >= settings.steps:
        print_stderr(f"train: {out} has all of its {before.step} steps: give it more with --steps.")
        return None
    with texts(settings, args, before) as (s, known):
        start = before or begin(s)
        check_fit(s, start.m)
        names = [known.get(name) or token_cache.key(getattr(s, name), start.m.tokenizer) for name in options.FILES]
        if before and names != before.about["text"]:
            raise GPTError(f"the text isn't what {out} was begun with: get it back, or begin another run.")
        text = read(s, start.m.tokenizer, names)
    about = {"settings": asdict(settings), "text": names}
    training = Run(out, start.step, trainer(args, start.m, start.moments, settings), text, settings, about)
    training.say(describe(start.m, text))
    return training


def describe(m: Model, text: windows.Split) -> str:
    c = m.config
    return (
        f"{c.n_layer} layers, {c.n_head} heads, width {c.n_embd}, context {c.n_ctx}, {c.n_vocab:,} tokens: "
        f"{c.num_parameters():,} parameters; {len(text.train):,} tokens to train on, {len(text.val):,} to validate"
    )


if __name__ == "__main__":
    sys.exit(run("train", main))
