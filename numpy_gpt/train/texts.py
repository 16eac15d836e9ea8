"""Read the texts of a run: files, pipes, and tokens from the cache."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ..errors import GPTError
from ..text import sources, token_cache, windows
from ..text.tokenizer import Tokenizer
from .option_checks import FILES, flag
from .options import TrainOptions
from .resume import State


def refuse_pipes(args: argparse.Namespace) -> None:
    """Raise GPTError if a text is a pipe, since several processes would each read another part of it"""
    for file in (file for name in FILES for file in getattr(args, name, ())):
        if sources.is_pipe(file):
            raise GPTError(f"{file} is a pipe, which several processes can't share: give a file.")


@contextmanager
def readable_texts(
    s: TrainOptions, args: argparse.Namespace, previous: State | None
) -> Iterator[tuple[TrainOptions, dict[str, str]]]:
    """Read each pipe into a temporary file; yield the options with these files, and the cached texts' keys

    A text is taken from the token cache if a resumed run can't read it again.
    """
    resumed = [name for name in FILES if previous and name not in args]
    cached = {name: key for name in resumed if previous and (key := cached_key(name, s, previous))}
    with sources.spooled(file for name in FILES if name not in cached for file in getattr(s, name)) as pipes:
        files: dict[str, Any] = {name: tuple(pipes.get(file, file) for file in getattr(s, name)) for name in FILES}
        yield replace(s, **files), cached


def cached_key(name: str, s: TrainOptions, previous: State) -> str | None:
    """Return the key of a resumed run's text in the token cache, or None if all of its files can be read again"""
    unreadable = [file for file in getattr(s, name) if not sources.is_rereadable(file)]
    if not unreadable:
        return None
    recorded = previous.about["text"] if isinstance(previous.about["text"], list) else []
    key = dict(zip(FILES, recorded, strict=False)).get(name)
    if not isinstance(key, str) or not token_cache.is_cached(key, previous.m.tokenizer):
        raise GPTError(
            f"{unreadable[0]} can't be read again, and its tokens aren't in the cache: give the same text with "
            f"{flag(name)}."
        )
    return key


def read_split(s: TrainOptions, tokenizer: Tokenizer, keys: Sequence[str]) -> windows.Split:
    """Return the tokens to train on and to validate with; raise GPTError if there are too few of either"""
    tokens = token_cache.tokenize(s.data, tokenizer, keys[0])
    text = (
        windows.Split(tokens, token_cache.tokenize(s.val_data, tokenizer, keys[1]))
        if s.val_data
        else windows.split(tokens)
    )
    for use, row, least in (("train on", text.train, s.context + 1), ("validate with", text.val, 2)):
        if len(row) < least:
            raise GPTError(
                f"there are {len(row)} tokens to {use}, and --context {s.context} needs at least {least}: give more "
                "text."
            )
    return text
