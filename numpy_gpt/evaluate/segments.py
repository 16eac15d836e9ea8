"""Score segments of text in batches. A segment is a context and the tokens after it whose log-probabilities count."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

TOKENS = 2048  # in a batch, or one segment if it is longer
READ_AHEAD = 1024  # segments that are sorted by length, so that a batch has little padding

# tokens (B,T), positions (R,) in the flattened tokens, targets (R,) -> log-probabilities (R,), is the best token (R,)
Score = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class Segment(NamedTuple):
    """Hold the tokens of a context, at least one, and then those to score"""

    ids: Sequence[int] | np.ndarray
    scored: int  # the number of tokens to score, the last ones of ids
    progress: int = 1  # how far the progress bar moves when the segment is scored


class Scored(NamedTuple):
    """Hold the results of a segment"""

    segment: Segment
    logprob: float  # the sum over its scored tokens
    best: bool  # whether the model gives each scored token the highest probability


def scored(segments: Iterable[Segment], score: Score, total: int, unit: str) -> Iterator[Scored]:
    """Yield the results of all segments, in any order; show a progress bar on a terminal"""
    segments, quiet = iter(segments), None if sys.stderr else True  # None disables the bar unless stderr is a terminal
    with tqdm(total=total, unit=f" {unit}", leave=False, disable=quiet) as bar:
        while some := sorted(islice(segments, READ_AHEAD), key=lambda segment: len(segment.ids), reverse=True):
            while some:
                B = max(1, TOKENS // len(some[0].ids))
                batch, some = some[:B], some[B:]
                yield from score_batch(batch, score)
                bar.update(sum(segment.progress for segment in batch))


def score_batch(batch: list[Segment], score: Score) -> list[Scored]:
    """Return the results of a batch of segments, the longest first

    Shorter segments are padded on the right. A position attends only to positions before it, so the padding can't
    change the results.
    """
    T = len(batch[0].ids) - 1
    tokens = np.zeros((len(batch), T), np.int64)
    positions, targets = [], []
    for i, (ids, n, _) in enumerate(batch):
        tokens[i, : len(ids) - 1] = ids[:-1]
        positions.append(i * T + np.arange(len(ids) - 1 - n, len(ids) - 1))
        targets.append(np.asarray(ids[len(ids) - n :], np.int64))
    logprobs, best = score(tokens, np.concatenate(positions), np.concatenate(targets))
    starts = np.cumsum([0, *(segment.scored for segment in batch)])[:-1]
    sums, all_best = np.add.reduceat(logprobs, starts), np.logical_and.reduceat(best, starts)
    return [Scored(*each) for each in zip(batch, sums.tolist(), all_best.tolist(), strict=True)]


def windows(tokens: np.ndarray, length: int, stride: int) -> Iterator[Segment]:
    """Yield windows of `length` tokens that begin every `stride` tokens, up to the first that reaches the end

    A window scores its tokens that no earlier window scored. Its first token has no context and isn't scored.
    """
    end = 0  # of the window before
    for start in range(0, len(tokens) - 1, stride):
        ids = tokens[start : start + length]
        n = start + len(ids) - max(end, start + 1)
        if n > 0:
            yield Segment(ids, n, n)
        end = start + len(ids)
        if end == len(tokens):
            return


def blocks(ids: Sequence[int], context: int) -> Iterator[Segment]:
    """Yield segments that score each of ids except the first once, in blocks of `context` tokens

    The context of a block begins with the token before it. The last block may be shorter; earlier tokens fill up its
    context, so that its last token is predicted from `context` tokens if there are so many.
    """
    for start in range(1, len(ids), context):
        end = min(start + context, len(ids))
        yield Segment(ids[max(0, end - context - 1) : end], end - start, 0)
