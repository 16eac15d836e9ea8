"""End a sample at a stop id or a stop string; hold back incomplete UTF-8 and the beginning of a stop string."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from ..errors import GPTError
from ..text.tokenizer import Tokenizer
from .options import check_stop


class Text:
    """Holds back what may still become a character, or a text of stop; of that text and what follows nothing is said"""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()):
        self.decoder = tokenizer.decoder()
        self.stop = stop
        self.held = ""
        self.said = ""
        self.stopped = False

    def feed(self, token: int) -> str:
        self.held += self.decoder.feed(token)
        begun = (n for text in self.stop for n in range(1, len(text)) if self.held.endswith(text[:n]))
        return self.say(len(self.held) - max(begun, default=0))

    def end(self) -> str:
        if self.stopped:  # what the decoder may still hold comes after the text of stop
            return ""
        self.held += self.decoder.flush()
        return self.say(len(self.held))

    def say(self, n: int) -> str:
        """The first n characters of those held back, or all before a text of stop"""
        stops = [self.held.index(text) for text in self.stop if text in self.held]
        new = self.held[: min(stops, default=n)]
        self.held = "" if stops else self.held[n:]
        self.said += new
        self.stopped = bool(stops)
        return new


class Ends:
    """Knows the ids and texts of stop; a text may begin in one token and end in another"""

    def __init__(self, stop: Any, tokenizer: Any):
        self.ids, self.texts = check_stop(stop)
        if self.texts and tokenizer is None:
            raise GPTError("stop has a text, and the model has no tokenizer to see it with: give token ids.")
        self.tokenizer = tokenizer
        self.tails: defaultdict[int, bytes] = defaultdict(bytes)  # a prompt's last new bytes, as many as a text has

    def after(self, prompt: int, token: int) -> str | None:
        if token in self.ids:
            return "id"
        if not self.texts:
            return None
        tail = self.tails[prompt] + self.tokenizer.token(token)
        self.tails[prompt] = tail[-max(map(len, self.texts)) :]
        return "text" if any(text in tail for text in self.texts) else None
