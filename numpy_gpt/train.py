"""python -m numpy_gpt.train: from text to a model"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from . import adamw, bpe, checkpoint, data, memory, options, state, tokenizer
from .command import parse, run, tell
from .config import Config
from .errors import GPTError
from .files import alone, make_directory
from .options import Settings
from .params import Model, init, tree_map
from .state import State
from .tokenizer import Tokenizer
from .trainer import Trainer
from .training import Run


def main(
    name: str = "numpy_gpt.train",
    add_arguments: Callable[[argparse.ArgumentParser], Any] = lambda parser: None,
    trainer: Callable[..., Any] = lambda args, *rest: Trainer(*rest),
    leader: bool = True,
) -> int:
    """What torch_gpt.train does in another way comes in as arguments; of several processes one leads"""
    memory.keep_freed()
    parser = options.parser(name)
    add_arguments(parser)
    args = parse(parser)
    if not args.out:
        parser.error("--out is missing: say where the run is to be kept.")
    out = Path(args.out)
    before = find(out, args.resume)
    try:
        settings = options.settle(vars(args), before and before.about.get("settings", {}))
    except GPTError as e:
        parser.error(str(e))
    if before and before.step >= settings.steps:
        tell(f"train: {out} has all of its {before.step} steps: give it more with --steps.")
        return 0
    make_directory(out)
    with alone(out) if leader else nullcontext():
        begun = before or begin(settings)
        text = read(settings, begun, out)
        training = Run(out, begun.step, trainer(args, begun.m, begun.moments, settings), text, settings, begun.about)
        training.say(describe(begun.m, text))
        return training.go()


def find(out: Path, resume: bool) -> State | None:
    """The run to resume; nothing is written over that isn't"""
    if resume:
        if not os.path.exists(out):
            raise GPTError(f"{out} isn't there: leave --resume out to begin a run.")
        return state.load(out)
    if any(os.path.exists(out / name) for name in ("checkpoint", "model.ckpt.index", "model.safetensors")):
        raise GPTError(f"{out} has a checkpoint: go on with it by --resume, or choose another --out.")
    return None


def begin(settings: Settings) -> State:
    s = settings
    if s.init_from:
        m = checkpoint.load(s.init_from)
        if m.tokenizer is None:
            raise GPTError(f"{s.init_from} has no tokenizer: put OpenAI's encoder.json and vocab.bpe beside it.")
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
        if not source[4:].isdecimal():
            raise GPTError(f"--tokenizer is {source!r}: say how many tokens, as in bpe:1024.")
        with data.progress(files, "vocabulary") as bar:
            texts = (text for text in data.pieces(files, bar.update) if text is not None)
            return bpe.tokenizer(bpe.train(texts, int(source[4:])))
    path = checkpoint.find(source)
    found = (tokenizer.load(path) if os.path.isdir(path) else None) or checkpoint.read(path).tokenizer
    if found is None:
        raise GPTError(f"{source} has no tokenizer: choose another, or bytes, or bpe:1024.")
    return found


def read(s: Settings, begun: State, out: Path) -> data.Split:
    """Both texts, long enough, and in a resumed run those of before"""
    config, words = begun.m.config, begun.m.tokenizer
    names = [data.key(files, words) for files in (s.data, s.val_data)]
    if begun.step and names != begun.about.get("text"):
        raise GPTError(f"the text isn't what the run in {out} began with: get it back, or begin another run.")
    begun.about.update(settings=asdict(s), text=names)
    if s.context > config.n_ctx:
        raise GPTError(f"--context is {s.context}, and {s.init_from} sees {config.n_ctx} tokens: make it smaller.")
    if words.n_vocab > config.n_vocab:
        raise GPTError(f"{s.init_from} has {config.n_vocab} tokens, and its tokenizer {words.n_vocab}: get it again.")
    tokens = data.tokenize(s.data, words)
    text = data.Split(tokens, data.tokenize(s.val_data, words)) if s.val_data else data.split(tokens)
    for flag, tokens, least in (("--data", text.train, s.context + 1), ("--val-data", text.val, 2)):
        if len(tokens) < least:
            raise GPTError(
                f"there are {len(tokens)} tokens of {flag}, and {least} are the least for a --context of {s.context}: "
                "give more text."
            )
    return text


def describe(m: Model, text: data.Split) -> str:
    c = m.config
    return (
        f"{c.n_layer} layers, {c.n_head} heads, width {c.n_embd}, context {c.n_ctx}, {c.n_vocab:,} tokens: "
        f"{c.num_parameters():,} parameters; {len(text.train):,} tokens to train on, {len(text.val):,} to validate"
    )


if __name__ == "__main__":
    sys.exit(run("train", main))
