"""Write documents to one file, each followed by <|endoftext|>, and count their tokens."""

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO

from ..text.token_cache import LAST_CUT, PIECE
from ..text.tokenizer import EOT, Tokenizer

END = f"\n{EOT}\n"
HARMLESS_EOT = "<| endoftext |>"  # training would take the mark in a text for the end of the document


class Documents:
    """Append documents to a file; count them, their tokens and the refused ones

    tokens is the number that train reads from the file with the same tokenizer.
    """

    def __init__(self, file: BinaryIO, tokenizer: Tokenizer, wanted: int | None):
        self.file, self.tokenizer, self.wanted = file, tokenizer, wanted
        self.count = self.tokens = 0
        self.refused: Counter[str] = Counter()
        self.digests: set[bytes] = set()
        self.bar = progress_bar(wanted)

    @property
    def full(self) -> bool:
        """Return whether there are as many tokens as wanted"""
        return self.wanted is not None and self.tokens >= self.wanted

    def add(self, text: str) -> bool:
        """Append a document, or return False if it is empty or equal to an earlier one"""
        text = text.replace("\r\n", "\n").replace("\r", "\n").strip().replace(EOT, HARMLESS_EOT)
        content = text.encode()
        digest = hashlib.sha256(content).digest()
        if not text or digest in self.digests:
            self.refused["repeated" if text else "empty"] += 1
            return False
        self.file.write(content + END.encode())
        self.digests.add(digest)
        self.count_tokens(text)
        return True

    def count_tokens(self, text: str) -> None:
        """Count a document, its tokens, and the mark between it and the document before"""
        separators = int(self.count > 0 and self.tokenizer.eot is not None)
        new = sum(len(self.tokenizer.encode(piece)) for piece in pieces(text)) + separators
        self.count += 1
        self.tokens += new
        self.bar.update(new if self.wanted is None else max(0, min(new, self.wanted - self.bar.n)))

    def summary(self, noun: str) -> str:
        """Return a sentence with the counts"""
        refused = ", ".join(f"{n:,} {reason}" for reason, n in sorted(self.refused.items()))
        return f"{self.count:,} {noun}, {self.tokens:,} tokens" + (f"; skipped: {refused}" if refused else "")


def pieces(text: str) -> Iterator[str]:
    """Yield a text in pieces that have the same tokens; those of a large text wouldn't fit in memory"""
    start = 0
    for end in range(PIECE, len(text), PIECE):
        cut = LAST_CUT.search(text, start, end)
        if cut and cut.start() > start:
            yield text[start : cut.start()]
            start = cut.start()
    yield text[start:]


def progress_bar(total: int | None):
    """Return a progress bar of tokens, which only a terminal shows"""
    from tqdm import tqdm

    disable = None if sys.stderr else True  # None: unless stderr is a terminal
    return tqdm(total=total, unit=" tokens", unit_scale=True, disable=disable, leave=False)
