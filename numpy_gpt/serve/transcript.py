"""Turn the events of one sequence into the text and the logprobs of a choice."""

from typing import NamedTuple

from ..text.tokenizer import Tokenizer
from .engine.sequence import Drawn, PromptScored, Score
from .logprobs import Offsets, Token
from .prompt import Prompt


class Piece(NamedTuple):
    """Hold a part of a choice"""

    text: str = ""
    tokens: tuple[Token, ...] = ()
    finish_reason: str | None = None


class Transcript:
    """Decode one sequence; hold back incomplete characters, and text that may belong to a stop string

    A token belongs to the choice if its first byte does. The token <|endoftext|> that ends a text belongs to it too: a
    client that sums token_logprobs needs it.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Prompt, echo: bool):
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.echo = echo and prompt.echoed
        self.decoder = tokenizer.decoder()
        before = 0 if self.echo or not prompt.echoed else len(tokenizer.decode(prompt.ids))
        self.offsets = Offsets(tokenizer, before)
        self.held: list[tuple[int, Token]] = []  # tokens, with the number of bytes before each
        self.size = 0  # bytes of all new tokens
        self.ended = False

    def opening(self) -> Piece:
        """Return the text of the prompt if it is echoed without logprobs"""
        return Piece("".join(map(self.decoder.feed, self.prompt.ids))) if self.echo else Piece()

    def scored(self, event: PromptScored) -> Piece:
        """Return the prompt with its logprobs"""
        pairs = zip(self.prompt.ids, event.scores, strict=True)
        return self.opening()._replace(tokens=tuple(self.token(i, score) for i, score in pairs))

    def drawn(self, event: Drawn) -> Piece:
        """Return the text that a new token completes, and the tokens that begin in it"""
        new = self.token(event.token, event.score)
        self.ended = event.end is not None
        if event.end == "id":
            return Piece(self.decoder.flush(), (*self.release(self.size), new), "stop")
        self.held.append((self.size, new))
        self.size += len(self.tokenizer.token(event.token))
        text = self.decoder.feed(event.token, event.held)
        if event.end == "length":
            return Piece(text + self.decoder.flush(), self.release(self.size), "length")
        released = self.release(self.size - event.held)
        if event.end == "text":
            return Piece(text + self.decoder.flush(drop_held=True), released, "stop")
        return Piece(text, released)

    def end(self) -> Piece:
        """Return the end of the choice, which has been returned already if there was a new token"""
        return Piece() if self.ended else Piece(self.decoder.flush(), finish_reason="length")

    def token(self, i: int, score: Score | None) -> Token:
        return Token(i, self.offsets.next(i), score)

    def release(self, size: int) -> tuple[Token, ...]:
        """Return the held tokens that begin in the first `size` bytes, and drop them"""
        released = tuple(token for start, token in self.held if start < size)
        self.held = self.held[len(released) :]
        return released
