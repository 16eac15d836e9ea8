"""Measure the perplexity of a text: per token, per word, and in bits per byte."""

import codecs
import math
from typing import Any

import numpy as np

from ..errors import GPTError
from ..params import Model
from ..text import token_cache
from ..text.sources import File
from ..text.tokenizer import Tokenizer
from .metrics import exp, token_lengths
from .scoring import scorer
from .segments import Score, scored, windows

READ = 1 << 16  # tokens whose words are counted at a time


def perplexity(m: Model, file: File, stride: int | None = None, score: Score | None = None) -> dict[str, Any]:
    """Return the measures of all tokens of a file except the first, in windows that begin every `stride` tokens

    By default, the stride is the model's context and NumPy computes.
    """
    tokens, N = read(m, file), m.config.n_ctx
    nbytes, nats, size = token_lengths(m.tokenizer, m.config.n_vocab), 0.0, 0
    segments = windows(tokens, N + 1, stride or N)
    for (ids, n, _), logprob, _ in scored(segments, score or scorer(m), len(tokens) - 1, "tokens"):
        nats -= logprob
        size += int(nbytes[ids[-n:]].sum())
    count, words = len(tokens) - 1, count_words(tokens[1:], m.tokenizer)
    return {
        "loss": nats / count,
        "perplexity": exp(nats / count),
        "bits_per_byte": nats / math.log(2) / size if size else None,
        "tokens": count,
        "word_perplexity": exp(nats / words) if words else None,
        "words": words,
        "stride": stride or N,
    }


def read(m: Model, file: File) -> np.ndarray:
    """Return the tokens of a file, mapped from the token cache; raise GPTError if there are less than two"""
    tokens = token_cache.tokenize([file], m.tokenizer)
    if len(tokens) < 2:
        raise GPTError(f"{file} has {len(tokens)} tokens, and a loss needs at least two: give more text.")
    return tokens


def count_words(tokens: np.ndarray, tokenizer: Tokenizer) -> int:
    """Return the number of words in the text of tokens, which white space and <|endoftext|> separate"""
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")
    words, inside = 0, False  # whether the text so far ends inside of a word
    for start in range(0, len(tokens), READ):
        ids = tokens[start : start + READ].tolist()
        text = utf8.decode(b"".join(b"\n" if i == tokenizer.eot else tokenizer.token(i) for i in ids))
        if text:
            words += len(text.split()) - (inside and not text[0].isspace())
            inside = not text[-1].isspace()
    return words
