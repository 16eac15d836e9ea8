"""End a sequence at a stop id, or at a stop string that its tokens complete."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from ..checks import check_has_tokenizer
from ..text.tokenizer import Tokenizer
from .options import check_stop


class StopMatcher:
    """Find stop strings in the bytes of a sequence, which arrive token by token

    A stop string may begin in one token and end in a later one. `held` contains the last bytes of the sequence, from
    the first complete stop string on; before one is complete, from the first position at which one may have started.
    """

    def __init__(self, strings: Sequence[bytes]):
        self.strings = strings
        self.held = b""

    def feed(self, new: bytes) -> bool:
        """Append the bytes of a token, and return whether a stop string is complete"""
        tail = self.held + new
        complete = [tail.index(string) for string in self.strings if string in tail]
        start = min(complete) if complete else len(tail) - self.partial_match(tail)
        self.held = tail[start:]
        return bool(complete)

    def partial_match(self, tail: bytes) -> int:
        """Return the length of the longest end of tail that a stop string begins with"""
        lengths = (n for s in self.strings for n in range(1, min(len(s), len(tail) + 1)) if tail.endswith(s[:n]))
        return max(lengths, default=0)


class StopConditions:
    """Check each new token of a batch against the stop ids, and the text against the stop strings"""

    def __init__(self, stop: Iterable[int | str], tokenizer: Tokenizer | None):
        self.ids, strings = check_stop(stop)
        advice = "give stop as token ids instead of strings"
        self.token_bytes = check_has_tokenizer(tokenizer, "the model", advice).token if strings else None
        self.matchers: defaultdict[int, StopMatcher] = defaultdict(lambda: StopMatcher(strings))

    def check(self, prompt: int, token: int) -> str | None:
        """Return "id" for a stop id, "text" if the token completes a stop string, else None"""
        if token in self.ids:
            return "id"
        if self.token_bytes is None:
            return None
        return "text" if self.matchers[prompt].feed(self.token_bytes(token)) else None

    def held(self, prompt: int) -> int:
        """Return how many of the last bytes of the prompt's new text belong, or may belong, to a stop string"""
        return len(self.matchers[prompt].held)
