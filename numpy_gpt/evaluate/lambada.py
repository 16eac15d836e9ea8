"""Measure how well a model predicts the last word of passages, as lm-evaluation-harness does in task lambada_openai."""

from collections.abc import Iterator
from typing import Any

from ..errors import GPTError
from ..params import Model
from ..text.sources import File, spooled
from ..text.tokenizer import Tokenizer
from .lines import json_object, lines, text_of, unchanged
from .metrics import exp
from .segments import Score, Segment, scored

EXPECTED = 'each line must be an object such as {"text": "The passage."}'


def lambada(m: Model, file: File, score: Score) -> dict[str, Any]:
    """Return the accuracy and the perplexity of the last words of a file's passages"""
    with spooled([file]) as pipes:
        file = pipes.get(file, file)
        count, right, nats, tokens = 0, 0, 0.0, 0
        with unchanged(file):
            total = sum(1 for _ in passages(file))
            if not total:
                raise GPTError(f"{file} has no passages: {EXPECTED}.")
            for segment, logprob, best in scored(segments(m, file), score, total, "passages"):
                count += 1
                right += best
                nats -= logprob
                tokens += segment.scored
    return {"accuracy": right / count, "perplexity": exp(nats / count), "passages": count, "tokens": tokens}


def segments(m: Model, file: File) -> Iterator[Segment]:
    """Yield the last word of each passage as a segment whose context is the passage before it"""
    N = m.config.n_ctx
    for number, text in passages(file):
        context, word = split(text)
        before, after = encode(m.tokenizer, context, word)
        if not before:
            raise GPTError(
                f"{file}, line {number} has a single word, and the model's tokenizer has no <|endoftext|> to begin "
                "with: remove the line."
            )
        if len(after) > N:
            raise GPTError(
                f"{file}, line {number} has a last word of {len(after)} tokens, and the model's context is {N}: remove "
                "the line."
            )
        yield Segment([*before, *after][-(N + 1) :], len(after))


def passages(file: File) -> Iterator[tuple[int, str]]:
    """Yield the number and the passage of each line that isn't blank; raise GPTError if a passage has no last word"""
    for number, line in enumerate(lines(file, EXPECTED), 1):
        if not line.strip():
            continue
        text = text_of(file, number, json_object(file, number, line, EXPECTED), "text", EXPECTED)
        if not split(text)[1].strip():
            raise GPTError(
                f"{file}, line {number}: the passage is empty or ends with a space, so it has no last word: correct it."
            )
        yield number, text


def split(text: str) -> tuple[str, str]:
    """Split a passage before its last space; white space before this space goes to the word too"""
    context = text[: max(0, text.rfind(" "))].rstrip()
    return context, text[len(context) :] if context else " " + text.lstrip()


def encode(tokenizer: Tokenizer, context: str, word: str) -> tuple[list[int], list[int]]:
    """Return the tokens of a context, and those that a word adds to it; <|endoftext|> replaces an empty context"""
    if not context:
        return [] if tokenizer.eot is None else [tokenizer.eot], tokenizer.encode(word)
    before = tokenizer.encode(context)
    return before, tokenizer.encode(context + word)[len(before) :]
