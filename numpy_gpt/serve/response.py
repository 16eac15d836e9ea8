"""Decode the sequences of a request, and respond with their texts, at once or as a stream."""

import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, Response

from ..text.tokenizer import Tokenizer
from .cancellation import time_limit, until_disconnect
from .decoding import Decoding
from .request import Request
from .service import Service
from .stream import EventStream
from .transcript import Piece

Fields = dict[str, Any]


class Format(NamedTuple):
    """Bundle the parts of a response that differ between OpenAI's endpoints"""

    id: str  # begins the ids
    whole: str  # the type of a response
    chunk: str  # the type of an event of a stream
    opening: Fields | None  # of the first event of each choice of a stream
    choice: Callable[[Tokenizer, Piece, bool], Fields]  # tokenizer, piece, whether it has logprobs -> fields
    delta: Callable[[Tokenizer, Piece, bool], Fields]  # the same for an event of a stream


async def respond(service: Service, http: HTTPRequest, request: Request, format: Format) -> Response:
    """Return the texts of a request in the format of an endpoint"""
    completion = Completion(service, Decoding(service, request), format)
    if request.stream:
        return EventStream(completion.chunks(), completion.decoding.cancel, service.timeout)
    try:
        return JSONResponse(await until_disconnect(http.receive, completion.whole()))
    finally:
        completion.decoding.cancel()


class Completion:
    """Format the results of a request as OpenAI does"""

    def __init__(self, service: Service, decoding: Decoding, format: Format):
        self.service = service
        self.decoding = decoding
        self.request = decoding.request
        self.format = format
        self.id = f"{format.id}-{uuid.uuid4().hex}"
        self.created = int(time.time())

    def header(self, kind: str) -> Fields:
        """Return the fields of every response or event"""
        return {"id": self.id, "object": kind, "created": self.created, "model": self.service.name}

    async def whole(self) -> Fields:
        """Return the response when all sequences have ended"""
        pieces: list[list[Piece]] = [[] for _ in self.decoding.transcripts]
        async with time_limit(self.service.timeout):
            async for index, piece in self.decoding.pieces():
                pieces[index].append(piece)
        returned = [index for candidates in self.candidates() for index in self.decoding.best(candidates)]
        choices = [self.choice(i, joined(pieces[index]), self.format.choice) for i, index in enumerate(returned)]
        return {**self.header(self.format.whole), "choices": choices, "usage": self.decoding.usage()}

    async def chunks(self) -> AsyncIterator[Fields]:
        """Yield a part of the response for every piece, and then the usage if it was requested"""
        header = self.header(self.format.chunk)
        no_usage = {"usage": None} if self.request.include_usage else {}
        if self.format.opening:
            for index in range(len(self.decoding.transcripts)):
                yield {**header, "choices": [{"index": index, **self.format.opening}], **no_usage}
        async for index, piece in self.decoding.pieces():
            if piece != Piece():
                yield {**header, "choices": [self.choice(index, piece, self.format.delta)], **no_usage}
        if self.request.include_usage:
            yield {**header, "choices": [], "usage": self.decoding.usage()}

    def candidates(self) -> list[range]:
        """Return the indices of each prompt's sequences"""
        n = self.request.candidates
        return [range(start, start + n) for start in range(0, n * len(self.request.prompts), n)]

    def choice(self, index: int, piece: Piece, fields: Callable[[Tokenizer, Piece, bool], Fields]) -> Fields:
        found = fields(self.service.m.tokenizer, piece, self.request.logprobs is not None)
        return {"index": index, **found, "finish_reason": piece.finish_reason}


def joined(pieces: list[Piece]) -> Piece:
    """Return the pieces of a choice as one"""
    text = "".join(piece.text for piece in pieces)
    tokens = tuple(token for piece in pieces for token in piece.tokens)
    return Piece(text, tokens, next(piece.finish_reason for piece in pieces if piece.finish_reason))
