"""Define a sequence to decode, and the events that the engine emits about it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ...generate.options import DecodingOptions


class Sequence(NamedTuple):
    """Describe what is to be decoded"""

    ids: list[int]  # the prompt, from 1 to n_ctx tokens
    options: DecodingOptions  # max_new_tokens may be 0; the prompt and the new tokens together fit the context
    stop: list[int | str]  # ids and strings
    logit_bias: Mapping[int, float] = MappingProxyType({})  # added to the logits of these ids
    presence_penalty: float = 0.0  # subtracted from the logit of each id that was drawn before
    frequency_penalty: float = 0.0  # subtracted once for each time that the id was drawn before
    logprobs: int | None = None  # score each new token, next to this many of the best ones
    prompt_logprobs: bool = False  # score the tokens of the prompt too


class Score(NamedTuple):
    """Hold log-probabilities of the model's own logits, before bias, penalties and temperature"""

    logprob: float  # of the token
    best: list[tuple[int, float]]  # the best ids and their log-probabilities, best first


class PromptScored(NamedTuple):
    """Report the scores of the prompt, before the first token"""

    scores: list[Score | None]  # one per token; None for the first, and for ids without text, which nothing predicts


class Drawn(NamedTuple):
    """Report a new token"""

    token: int
    end: str | None  # "id": the token is a stop id; "text": it completes a stop string; "length"; None: no end yet
    held: int  # bytes at the end of the new text that belong, or may belong, to a stop string
    score: Score | None


class Finished(NamedTuple):
    """Report the end of a sequence, always as its last event"""

    reason: str  # "done", "cancelled" or "failed"
    error: Exception | None  # of a failed sequence


Event = PromptScored | Drawn | Finished
