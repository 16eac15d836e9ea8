"""Answer POST /v1/completions."""

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, Response

from .body import read_json
from .cancellation import time_limit, until_disconnect
from .decoding import Decoding
from .logprobs import logprobs_object
from .request import read_request
from .service import Service
from .stream import EventStream
from .transcript import Piece


async def completions(service: Service, http: HTTPRequest) -> Response:
    """Return the completions of a request, at once or as a stream"""
    body = await read_json(http)
    request = await run_in_threadpool(read_request, body, service.parameters, service.m.config.n_ctx)
    completion = Completion(service, Decoding(service, request))
    if request.stream:
        return EventStream(completion.chunks(), completion.decoding.cancel, service.timeout)
    try:
        return JSONResponse(await until_disconnect(http.receive, completion.whole()))
    finally:
        completion.decoding.cancel()


class Completion:
    """Format the results of a request as OpenAI does"""

    def __init__(self, service: Service, decoding: Decoding):
        self.service = service
        self.decoding = decoding
        self.request = decoding.request
        self.header = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": service.name,
        }

    async def whole(self) -> dict[str, Any]:
        """Return the response when all sequences have ended"""
        pieces: list[list[Piece]] = [[] for _ in self.decoding.transcripts]
        async with time_limit(self.service.timeout):
            async for index, piece in self.decoding.pieces():
                pieces[index].append(piece)
        returned = [index for candidates in self.candidates() for index in self.decoding.best(candidates)]
        choices = [self.choice(i, joined(pieces[index])) for i, index in enumerate(returned)]
        return {**self.header, "choices": choices, "usage": self.decoding.usage()}

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """Yield a part of the response for every piece, and then the usage if it was requested"""
        no_usage = {"usage": None} if self.request.include_usage else {}
        async for index, piece in self.decoding.pieces():
            if piece != Piece():
                yield {**self.header, "choices": [self.choice(index, piece)], **no_usage}
        if self.request.include_usage:
            yield {**self.header, "choices": [], "usage": self.decoding.usage()}

    def candidates(self) -> list[range]:
        """Return the indices of each prompt's sequences"""
        n = self.request.candidates
        return [range(start, start + n) for start in range(0, n * len(self.request.prompts), n)]

    def choice(self, index: int, piece: Piece) -> dict[str, Any]:
        scored = self.request.logprobs is not None
        logprobs = logprobs_object(self.service.m.tokenizer, piece.tokens) if scored else None
        return {"text": piece.text, "index": index, "logprobs": logprobs, "finish_reason": piece.finish_reason}


def joined(pieces: list[Piece]) -> Piece:
    """Return the pieces of a choice as one"""
    text = "".join(piece.text for piece in pieces)
    tokens = tuple(token for piece in pieces for token in piece.tokens)
    return Piece(text, tokens, next(piece.finish_reason for piece in pieces if piece.finish_reason))
