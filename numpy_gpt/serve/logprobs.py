"""Format log-probabilities as OpenAI's APIs of completions and of chats do."""

import codecs
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..text.tokenizer import Tokenizer
from .engine.sequence import Score


class Token(NamedTuple):
    """Describe a token of a choice"""

    id: int
    offset: int  # index of its first character in the prompt and the text together
    score: Score | None  # None for the first token of a prompt


class Offsets:
    """Count the characters before each token; a token may begin within a character"""

    def __init__(self, tokenizer: Tokenizer, start: int):
        self.tokenizer = tokenizer
        self.utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self.characters = start

    def next(self, token: int) -> int:
        """Return the index of the character that the token's first byte belongs to"""
        new = self.tokenizer.token(token)
        incomplete = self.utf8.getstate()[0]
        offset = self.characters + len((incomplete + new[:1]).decode(errors="replace")) - 1
        self.characters += len(self.utf8.decode(new))
        return offset


def logprobs_object(tokenizer: Tokenizer, tokens: Iterable[Token]) -> dict[str, list[Any]]:
    """Return tokens, token_logprobs, top_logprobs and text_offset"""
    tokens = list(tokens)
    return {
        "tokens": [name(tokenizer, token.id) for token in tokens],
        "token_logprobs": [token.score and token.score.logprob for token in tokens],
        "top_logprobs": [token.score and top(tokenizer, token.id, token.score) for token in tokens],
        "text_offset": [token.offset for token in tokens],
    }


def top(tokenizer: Tokenizer, token: int, score: Score) -> dict[str, float]:
    """Return the logprobs of the token and of the best ones by their names, best first

    If two tokens have the same name, the second one is named by its id.
    """
    found = {name(tokenizer, token): score.logprob}
    for other, logprob in score.best:
        if other != token:
            key = name(tokenizer, other)
            found[f"token_id:{other}" if key in found else key] = logprob
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def chat_logprobs(tokenizer: Tokenizer, tokens: Iterable[Token]) -> dict[str, Any]:
    """Return the tokens of an answer, each with its logprob and the best tokens"""

    def scored(token: int, logprob: float) -> dict[str, Any]:
        return {"token": name(tokenizer, token), "logprob": logprob, "bytes": [*tokenizer.token(token)]}

    content = [
        scored(token.id, token.score.logprob) | {"top_logprobs": [scored(*best) for best in token.score.best]}
        for token in tokens
        if token.score
    ]
    return {"content": content, "refusal": None}


def name(tokenizer: Tokenizer, token: int) -> str:
    r"""Return a token's text, or its bytes as in bytes:\xe2\x80 if they aren't whole characters"""
    raw = tokenizer.token(token)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(chr(b) if 32 <= b < 127 and b != ord("\\") else f"\\x{b:02x}" for b in raw)
