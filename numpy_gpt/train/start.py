"""Start a new run, or find the one to resume."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import adamw, checkpoint
from ..checkpoint import openai, verify
from ..checkpoint.destination import check_directory_name
from ..checkpoint.source import find as find_checkpoint
from ..checks import check_tokenizer
from ..config import Config
from ..errors import CheckpointError, GPTError
from ..params import Model, init, tree_map
from ..system.locks import LOCK
from ..text import bpe, token_cache, tokenizer
from ..text.tokenizer import Tokenizer
from . import resume
from .log import CURVE, LOG, is_log
from .options import TrainOptions
from .resume import State


def check_new(out: Path) -> None:
    """Raise if a new run in this directory would replace files that aren't its own"""
    check_directory_name(out)
    if begun(out):
        is_run = os.path.exists(openai.find_prefix(out).parent / resume.STANDING)
        what = "go on with it by --resume" if is_run else f"start from it by --init-from {out} in another directory"
        raise GPTError(f"{out} has a checkpoint: {what}, or choose another --out.")
    of_a_run = os.path.exists(out / LOCK) and is_log(out / LOG)  # of one that ended before its first checkpoint
    for name in (*openai.FILES, *(() if of_a_run else (LOG, CURVE))):
        if os.path.isfile(out / name):
            raise GPTError(f"{out} has {name}, which a new run would replace: choose another --out.")


def begun(out: Path) -> bool:
    return checkpoint.layout(out) is not None


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
    if found is None:
        raise GPTError(f"{source} has no tokenizer: choose another, or bytes, or bpe:1024.")
    return found


def check_fit(s: TrainOptions, m: Model) -> None:
    """Raise if the context is longer than the one of the model that the run starts from"""
    if s.context > m.config.n_ctx:
        model = s.init_from or "the run's model"
        raise GPTError(f"--context is {s.context}, and {model} sees {m.config.n_ctx} tokens: make it smaller.")
