"""Measure WikiText-2 in two ways: per token of the raw text, and per word of detokenized documents.

The first is that of the guide "Perplexity of fixed-length models" of Hugging Face's transformers. The second is that of
lm-evaluation-harness in task wikitext.
"""

import math
import re
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import GPTError
from ..params import Model
from ..text.sources import File, Spooled, spooled, token_directory
from .detokenizer import detokenized
from .lines import unchanged
from .metrics import exp
from .perplexity import read
from .segments import Score, Segment, blocks, scored, windows
from .wikitext_file import EXPECTED, read_documents, read_lines


def wikitext2(m: Model, file: File, stride: int, score: Score) -> Iterator[dict[str, Any]]:
    """Yield the measures per token, and then those per word"""
    with spooled([file]) as pipes:
        file = pipes.get(file, file)
        with unchanged(file):
            sizes = [(len(re.split(r"\s+", text)), len(text.encode())) for text in read_documents(file)]
            if not sizes:
                raise GPTError(f"{file} has no text: {EXPECTED}.")
            yield per_token(m, file, stride, score)
            nats = -sum(each.logprob for each in scored(segments(m, file), score, len(sizes), "documents"))
        words, nbytes = map(sum, zip(*sizes, strict=True))
        bits = nats / math.log(2) / nbytes
        yield {"word_perplexity": exp(nats / words), "words": words, "bits_per_byte": bits, "documents": len(sizes)}


def per_token(m: Model, file: File, stride: int, score: Score) -> dict[str, Any]:
    """Return the measures of the tokens of the raw text in windows of the model's context"""
    directory = token_directory()
    try:
        with tempfile.TemporaryFile(dir=directory) as f:
            f.writelines(part.encode() for part in joined(read_lines(file)))
            f.flush()
            tokens = read(m, Spooled(str(file), f))
    except OSError as e:
        raise GPTError(f"the lines of {file} can't be joined in {directory}: {e.strerror}.") from None
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
    for document in read_documents(file):
        *others, last = blocks([m.tokenizer.eot, *m.tokenizer.encode(detokenized(document))], m.config.n_ctx)
        yield from others
        yield last._replace(progress=1)


def joined(lines: Iterable[str]) -> Iterator[str]:
    """Yield the text that the guide joins: each line with its line break, or nothing if it is blank, and two between"""
    for number, line in enumerate(lines):
        yield "\n\n" * (number > 0) + (f"{line}\n" if line.strip() else "")
