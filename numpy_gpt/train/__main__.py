"""python -m numpy_gpt.train: from text to a model"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import adamw, checkpoint
from ..checkpoint import openai, verify
from ..checkpoint.destination import check_directory_name
from ..checkpoint.source import find as find_checkpoint
from ..checks import check_has_tokenizer, check_tokenizer
from ..config import Config
from ..errors import CheckpointError, GPTError
from ..fast import memory
from ..params import Model, init, tree_map
from ..system.cli import parse, print_stderr, run
from ..system.locks import RUN_LOCK, run_directory
from ..text import bpe, sources, token_cache, tokenizer, windows
from ..text.tokenizer import Tokenizer
from . import options, resume
from .log import CURVE, LOG, is_log
from .loop import Run
from .options import TrainOptions
from .resume import State
from .step import Trainer


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
    with run_directory(out) if leader else nullcontext():
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


def refuse_pipes(args: argparse.Namespace) -> None:
    """Each of several processes would read another part of a pipe"""
    for file in (file for name in options.FILES for file in getattr(args, name, ())):
        if sources.is_pipe(file):
            raise GPTError(f"{file} is a pipe, which several processes can't all read: give a file.")


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


@contextmanager
def texts(s: TrainOptions, args: argparse.Namespace, before: State | None) -> Iterator[tuple[Any, dict[str, str]]]:
    """Read the pipes among the texts; yield the settings with what was read, and the keys of texts only in the cache"""
    known = {name: key for name in options.FILES if before and name not in args and (key := lost(name, s, before))}
    with sources.spooled(file for name in options.FILES if name not in known for file in getattr(s, name)) as pipes:
        read: dict[str, Any] = {
            name: tuple(pipes.get(file, file) for file in getattr(s, name)) for name in options.FILES
        }
        yield replace(s, **read), known


def lost(name: str, s: TrainOptions, before: State) -> str | None:
    """Return the key of a text that the run to resume can't read again, or None if it can"""
    gone = [file for file in getattr(s, name) if not sources.is_rereadable(file)]
    if not gone:
        return None
    recorded = before.about["text"] if isinstance(before.about["text"], list) else []
    key = dict(zip(options.FILES, recorded, strict=False)).get(name)
    if not isinstance(key, str) or not token_cache.is_cached(key, before.m.tokenizer):
        raise GPTError(
            f"{gone[0]} can't be read again, and its tokens aren't in the cache: give the same text with "
            f"{options.flag(name)}."
        )
    return key


def begun(out: Path) -> bool:
    return checkpoint.layout(out) is not None


def check_new(out: Path) -> None:
    """Raise if a new run in this directory would replace files that aren't its own"""
    check_directory_name(out)
    if begun(out):
        is_run = os.path.exists(openai.find_prefix(out).parent / resume.STANDING)
        what = "go on with it by --resume" if is_run else f"start from it by --init-from {out} in another directory"
        raise GPTError(f"{out} has a checkpoint: {what}, or choose another --out.")
    of_a_run = os.path.exists(out / RUN_LOCK) and is_log(out / LOG)  # of one that ended before its first checkpoint
    for name in (*openai.FILES, *(() if of_a_run else (LOG, CURVE))):
        if os.path.isfile(out / name):
            raise GPTError(f"{out} has {name}, which a new run would replace: choose another --out.")


def find(out: Path, resuming: bool) -> State | None:
    """Return the run to resume, or None for a new one"""
    if not resuming:
        if begun(out):  # by another process, since check_new
            raise GPTError(f"{out} has a checkpoint: choose another --out.")
        return None
    if not begun(out):
        raise GPTError(f"{out} has no checkpoint yet: leave --resume out to begin a run.")
    found = resume.load(out)
    if found.m.tokenizer is None:
        raise CheckpointError(f"{out} has lost encoder.json and vocab.bpe: get them back to resume.")
    check_tokenizer(found.m.tokenizer, found.m.config, out)
    return found


def begin(s: TrainOptions) -> State:
    if s.init_from:
        path = find_checkpoint(s.init_from)
        contents = checkpoint.read(path)
        check_tokenizer(contents.tokenizer, contents.config, s.init_from)
        verify.check_checksums(path, contents.tensors)
        m = checkpoint.to_model(contents)
        m = Model(replace(m.config, dropout=s.dropout), tree_map(np.array, m.params), m.tokenizer)
    else:
        words = vocabulary(s.tokenizer or "", s.data)
        config = Config(words.n_vocab, s.context, s.n_embd, s.n_head, s.n_layer, s.dropout)
        m = init(config, s.seed)._replace(tokenizer=words)
    return State(m, adamw.moments(m.params), 0, {})


def vocabulary(source: str, files: Sequence[str]) -> Tokenizer:
    if source == "bytes":
        return bpe.tokenizer([])
    if source.startswith("bpe:"):
        size = source.removeprefix("bpe:")
        if not size.isdecimal() or len(size) > 9:
            raise GPTError(f"--tokenizer is {source[:40]!r}: say how many tokens, as in bpe:1024.")
        with token_cache.progress(files, "vocabulary") as bar:
            texts = (text for text in token_cache.pieces(files, bar.update) if text is not None)
            return bpe.tokenizer(bpe.train(texts, int(size)))
    path = find_checkpoint(source)
    found = (tokenizer.load(path) if os.path.isdir(path) else None) or checkpoint.read(path).tokenizer
    return check_has_tokenizer(found, source, "choose another model, or bytes, or bpe:1024")


def check_fit(s: TrainOptions, m: Model) -> None:
    """Raise if the context is longer than the one of the model that the run starts from"""
    if s.context > m.config.n_ctx:
        model = s.init_from or "the run's model"
        raise GPTError(f"--context is {s.context}, and {model} sees {m.config.n_ctx} tokens: make it smaller.")


def read(s: TrainOptions, words: Tokenizer, names: Sequence[str]) -> windows.Split:
    """What is to be learned and what is to be told, long enough for a window, and for a token to follow another"""
    tokens = token_cache.tokenize(s.data, words, names[0])
    text = (
        windows.Split(tokens, token_cache.tokenize(s.val_data, words, names[1]))
        if s.val_data
        else windows.split(tokens)
    )
    for what, row, least in (("train on", text.train, s.context + 1), ("validate with", text.val, 2)):
        if len(row) < least:
            raise GPTError(
                f"there are {len(row)} tokens to {what}, and --context {s.context} takes {least}: give more text."
            )
    return text


def describe(m: Model, text: windows.Split) -> str:
    c = m.config
    return (
        f"{c.n_layer} layers, {c.n_head} heads, width {c.n_embd}, context {c.n_ctx}, {c.n_vocab:,} tokens: "
        f"{c.num_parameters():,} parameters; {len(text.train):,} tokens to train on, {len(text.val):,} to validate"
    )


if __name__ == "__main__":
    sys.exit(run("train", main))
