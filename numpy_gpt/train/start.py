"""Make the state that a run starts from: a new model, other weights, or the run to resume."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import adamw, checkpoint
from ..checkpoint import verify
from ..checkpoint.destination import check_can_be_directory, check_directory_name, check_no_adapter
from ..checkpoint.layouts import LAYOUTS, TRAINING, check_single_layout, home, layout
from ..checkpoint.source import find as find_checkpoint
from ..checkpoint.source import load_tokenizer
from ..checks import check_tokenizer
from ..config import Config
from ..errors import CheckpointError, GPTError
from ..params import Model, init, tree_map
from ..system.locks import RUN_LOCK
from ..text import bpe, token_cache
from ..text.tokenizer import Tokenizer
from . import resume
from .log import LOG, LogFormat, is_log
from .options import TrainOptions, bpe_size
from .resume import State


def has_checkpoint(out: Path) -> bool:
    return layout(out) is not None


def check_new_directory(out: Path, format: str, log: LogFormat, others: Sequence[str] = ()) -> None:
    """Raise GPTError if a new run in this directory would replace another's files: a model, a log, or these others"""
    check_can_be_directory(out)
    check_directory_name(out, "choose a name without it")
    if has_checkpoint(out):
        is_run = os.path.exists(home(out) / resume.PROGRESS)
        advice = "resume it with --resume" if is_run else f"start from it with --init-from {out} in another directory"
        raise GPTError(f"{out} has a checkpoint: {advice}, or choose another --out.")
    check_no_adapter(out)
    # a run that ended before its first checkpoint leaves these files
    restarted = os.path.exists(out / RUN_LOCK) and is_log(out / LOG, log)
    names = (*LAYOUTS[format].files, *LAYOUTS[format].obsolete, *TRAINING)
    for name in (*names, *(() if restarted else (*log.files, *others))):
        if os.path.isfile(out / name):
            raise GPTError(f"{out} has {name}, which a new run would replace: choose another --out.")


def check_no_checkpoint(out: Path) -> None:
    if has_checkpoint(out):
        raise GPTError(f"{out} has a checkpoint: choose another --out.")


def load_run(out: Path, format: str | None) -> State:
    """Return the state of the run in a directory, or raise GPTError if it can't be resumed"""
    found = layout(out)
    if not found:
        raise GPTError(f"{out} has no checkpoint yet: leave --resume out to start a run.")
    check_single_layout(out)
    if format not in (None, found):
        raise GPTError(f"--format is {format}, and the run in {out} is in {LAYOUTS[found].title} layout: leave it out.")
    state = resume.load(out)
    if state.m.tokenizer is None:
        raise CheckpointError(f"{out} lacks {' and '.join(LAYOUTS[found].vocabulary)}: restore them to resume the run.")
    check_tokenizer(state.m.tokenizer, state.m.config, out)
    return state


def new_state(s: TrainOptions) -> State:
    """Return step 0 of a run: a new model or the one of --init-from, and AdamW's moments"""
    if s.init_from:
        m = load_initial(s.init_from, s.dropout)
    else:
        tokens = make_tokenizer(s.tokenizer or "", s.data)
        config = Config(tokens.n_vocab, s.context, s.n_embd, s.n_head, s.n_layer, s.dropout)
        m = init(config, s.seed)._replace(tokenizer=tokens)
    return State(m, adamw.moments(m.params), 0, {})


def load_initial(source: str, dropout: float) -> Model:
    """Return a copy of a model that training may write to; its checksums are compared first"""
    path = find_checkpoint(source)
    contents = checkpoint.read_checkpoint(path)
    check_tokenizer(contents.tokenizer, contents.config, source)
    verify.check_checksums(path, contents.tensors)
    m = checkpoint.to_model(contents)
    return Model(replace(m.config, dropout=dropout), tree_map(np.array, m.params), m.tokenizer)


def make_tokenizer(source: str, files: Sequence[str]) -> Tokenizer:
    """Return the tokenizer that --tokenizer names: bytes, a new one learned from the files, or a model's"""
    if size := bpe_size(source):
        with token_cache.progress(files, "vocabulary") as bar:
            texts = (text for text in token_cache.pieces(files, bar.update) if text is not None)
            try:
                return bpe.tokenizer(bpe.train(texts, size))
            except bpe.TooFewPairs as e:
                raise GPTError(
                    f"--tokenizer {source} is more than this text has pairs of tokens for: choose at most "
                    f"bpe:{e.largest}, or give more text."
                ) from None
    return load_tokenizer(source)


def resolve_context(s: TrainOptions, m: Model, is_default: bool) -> int:
    """Return --context, or the model's own if the default is longer; raise GPTError if a given one is longer"""
    if s.context > m.config.n_ctx and not is_default:
        model = s.init_from or "the run's model"
        raise GPTError(f"--context {s.context} is longer than {model} allows: choose at most {m.config.n_ctx}.")
    return min(s.context, m.config.n_ctx)
