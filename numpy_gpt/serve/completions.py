"""Answer POST /v1/completions."""

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from ..text.tokenizer import Tokenizer
from .body import read_json
from .logprobs import logprobs_object
from .request import read_request
from .response import Format, respond
from .service import Service
from .transcript import Piece


async def completions(service: Service, http: HTTPRequest) -> Response:
    """Return the completions of a request, at once or as a stream"""
    body = await read_json(http)
    request = await run_in_threadpool(read_request, body, service.parameters, service.m.config.n_ctx)
    return await respond(service, http, request, FORMAT)


def choice(tokenizer: Tokenizer, piece: Piece, has_logprobs: bool) -> dict[str, Any]:
    """Return the text and the logprobs of a choice, or of an event"""
    return {"text": piece.text, "logprobs": logprobs_object(tokenizer, piece.tokens) if has_logprobs else None}


FORMAT = Format(id="cmpl", whole="text_completion", chunk="text_completion", opening=None, choice=choice, delta=choice)
