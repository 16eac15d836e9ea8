"""The texts that a run reads: pipes, the token cache, and the split for validation."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ..errors import GPTError
from ..text import sources, token_cache, windows
from ..text.tokenizer import Tokenizer
from . import options
from .options import TrainOptions
from .resume import State


def refuse_pipes(args: argparse.Namespace) -> None:
    """Each of several processes would read another part of a pipe"""
    for file in (file for name in options.FILES for file in getattr(args, name, ())):
        if sources.is_pipe(file):
            raise GPTError(f"{file} is a pipe, which several processes can't all read: give a file.")


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
    gone = [file for file in getattr(s, name) if not sources.lasts(file)]
    if not gone:
        return None
    recorded = before.about["text"] if isinstance(before.about["text"], list) else []
    key = dict(zip(options.FILES, recorded, strict=False)).get(name)
    if not isinstance(key, str) or not token_cache.cached(key, before.m.tokenizer):
        raise GPTError(
            f"{gone[0]} can't be read again, and its tokens aren't in the cache: give the same text with "
            f"{options.flag(name)}."
        )
    return key


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
