"""Measure WikiText-2 in two ways: per token of the raw text, and per word of detokenized documents.

The first is that of the guide "Perplexity of fixed-length models" of Hugging Face's transformers. The second is that of
lm-evaluation-harness in task wikitext.
"""

import math
import re
import tempfile
from collections.abc import Iterator
from itertools import chain
from typing import Any

from ..errors import GPTError
from ..params import Model
from ..text.sources import File, Spooled, spooled, token_directory
from .lines import json_object, lines, text_of
from .metrics import exp
from .perplexity import read
from .segments import Score, Segment, blocks, scored, windows

EXPECTED = 'give wiki.test.raw, or JSON Lines whose objects have a line of it under "text" or a document under "page"'

# Rules of the detokenizer, in this order: SPACES, PAIRS, SPACES_AFTERWARDS. The harness has one more, which replaces a
# digit by a pattern if slashes and a quote surround it. WikiText-2 has no such digit.
SPACES = [("s '", "s'"), (" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", "."), *((f" {c} ", f"{c} ") for c in ":;.!?,")]
PAIRS = (("(", ")"), ("[", "]"), ("{", "}"), ('"', '"'), ("'", "'"))  # without space inside
DEGREE = "\N{DEGREE SIGN}"
SPACES_AFTERWARDS = [
    *(("= = = =", "===="), ("= = =", "==="), ("= =", "=="), (f" {DEGREE} ", DEGREE)),
    *((" \n", "\n"), ("\n ", "\n"), (" N ", " 1 "), (" 's", "'s")),
]


def wikitext2(m: Model, file: File, stride: int, score: Score) -> Iterator[dict[str, Any]]:
    """Yield the measures per token, and then those per word"""
    with spooled([file]) as pipes:
        file = pipes.get(file, file)
        sizes = [(len(re.split(r"\s+", text)), len(text.encode())) for text in documents(wikitext_lines(file))]
        if not sizes:
            raise GPTError(f"{file} has no text: {EXPECTED}.")
        yield per_token(m, file, stride, score)
        words, nbytes = map(sum, zip(*sizes, strict=True))
        nats = -sum(each.logprob for each in scored(segments(m, file), score, len(sizes), "documents"))
        bits = nats / math.log(2) / nbytes
        yield {"word_perplexity": exp(nats / words), "words": words, "bits_per_byte": bits, "documents": len(sizes)}


def per_token(m: Model, file: File, stride: int, score: Score) -> dict[str, Any]:
    """Return the measures of the tokens of the raw text in windows of the model's context"""
    directory = token_directory()
    with tempfile.TemporaryFile(dir=directory) as f:
        try:
            f.writelines(part.encode() for part in joined(wikitext_lines(file)))
            f.flush()
        except OSError as e:
            raise GPTError(f"the lines of {file} can't be joined in {directory}: {e.strerror}.") from None
        tokens = read(m, Spooled(str(file), f))
    nats, count = 0.0, 0
    for segment, logprob, _ in scored(windows(tokens, m.config.n_ctx, stride), score, len(tokens), "tokens"):
        nats -= logprob
        count += segment.scored
    if not count:
        raise GPTError("the model's context is 1, and a window needs two tokens: use another model.")
    return {"loss": nats / count, "perplexity": exp(nats / count), "tokens": count, "stride": stride}


def segments(m: Model, file: File) -> Iterator[Segment]:
    """Yield the blocks of each detokenized document, which begins after <|endoftext|>"""
    if m.tokenizer.eot is None:
        raise GPTError(
            "the model's tokenizer has no <|endoftext|>, with which each document begins: measure `perplexity` instead."
        )
    for document in documents(wikitext_lines(file)):
        *others, last = blocks([m.tokenizer.eot, *m.tokenizer.encode(detokenized(document))], m.config.n_ctx)
        yield from others
        yield last._replace(progress=1)


def detokenized(document: str) -> str:
    """Remove the spaces that WikiText has before punctuation, inside of brackets and quotes, and around line breaks"""
    for old, new in SPACES:
        document = document.replace(old, new)
    for left, right in PAIRS:
        pattern = rf"{re.escape(left)}\s*([^{re.escape(right)}]*?)\s*{re.escape(right)}"
        document = re.sub(pattern, rf"{left}\1{right}", document)
    for old, new in SPACES_AFTERWARDS:
        document = document.replace(old, new)
    return document


def wikitext_lines(file: File) -> Iterator[str]:
    """Yield the lines of WikiText without line breaks, as wiki.test.raw has them"""
    rest, start = lines(file, EXPECTED), []
    for line in rest:
        start.append(line)
        if line.strip():
            break
    if not start or not start[-1].startswith("{"):
        yield from chain(start, rest)
        return
    for number, line in enumerate(chain(start, rest), 1):
        if line.strip():
            value = json_object(file, number, line, EXPECTED)
            key = "page" if "page" in value else "text"
            text = text_of(file, number, value, key, EXPECTED)
            yield from (text.removesuffix("\n") or " ").split("\n")


def joined(lines: Iterator[str]) -> Iterator[str]:
    """Yield the text that the guide joins: each line with its line break, or nothing if it is blank, and two between"""
    for number, line in enumerate(lines):
        yield "\n\n" * (number > 0) + (f"{line}\n" if line.strip() else "")


def documents(lines: Iterator[str]) -> Iterator[str]:
    """Yield the documents of WikiText. A line with one = at each end begins a document."""
    document: list[str] = []
    for line in lines:
        heading = line.replace("= = =", "===").replace("= =", "==").strip()
        if heading.startswith("= ") and heading.endswith(" ="):
            if "".join(document).strip():
                yield "\n".join(document)
            document = []
        document.append(line)
    if "".join(document).strip():
        yield "\n".join([*document, ""])
