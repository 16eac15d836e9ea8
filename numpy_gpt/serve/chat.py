"""Answer POST /v1/chat/completions: the model's template turns the messages into a prompt."""

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from ..params import Model
from ..text.template import Template
from ..text.tokenizer import Tokenizer
from .api_error import APIError
from .body import read_json
from .logprobs import chat_logprobs
from .messages import messages_parameter
from .parameters import Parameter, boolean, check_names, integer, read_all
from .prompt import Prompt
from .request import Request, check_length, check_stream_options, to_request
from .response import Format, respond
from .service import Service
from .transcript import Piece

MAX_TOP_LOGPROBS = 20
NOT_OF_CHATS = ("prompt", "best_of", "echo")
TEXT_ALONE = "isn't supported: the model answers with text alone; remove it."
REFUSED = {name: f"{name} {TEXT_ALONE}" for name in ("tools", "tool_choice", "functions", "function_call")}
REFUSED |= {name: f"{name} {TEXT_ALONE}" for name in ("response_format", "modalities", "audio")}


def chat_parameters(completion: dict[str, Parameter], m: Model, template: Template) -> dict[str, Parameter]:
    """Return the parameters of a chat by name: those of a completion, and those that only a chat has"""
    most = "largest number of tokens to draw; by default, as many as the context has room for"
    shared = {name: parameter for name, parameter in completion.items() if name not in NOT_OF_CHATS}
    return {
        **shared,
        "messages": messages_parameter(m.tokenizer, template, m.config.n_ctx),
        "max_tokens": integer(most, 1),
        "max_completion_tokens": integer("the newer name of max_tokens", 1),
        "logprobs": boolean("return the logprob of each token"),
        "top_logprobs": integer("return this many of the best tokens too", 0, MAX_TOP_LOGPROBS),
    }


async def chat_completions(service: Service, http: HTTPRequest) -> Response:
    """Return the answers to a conversation, at once or as a stream; refuse it if the model has no template"""
    body = await read_json(http)
    if service.chat is None:
        raise APIError(
            f"{service.name} has no chat template: it continues text and was not trained to chat; use /v1/completions.",
            "model",
            code="no_chat_template",
        )
    request = await run_in_threadpool(read_chat, body, service.chat, service.m.config.n_ctx)
    return await respond(service, http, request, FORMAT)


def read_chat(body: Any, known: dict[str, Parameter], n_ctx: int) -> Request:
    """Return the checked parameters in the body of a chat; raise APIError if they are invalid"""
    v = read_all(check_names(body, known, REFUSED), known)
    check_stream_options(v)
    if v["top_logprobs"] is not None and not v["logprobs"]:
        raise APIError("top_logprobs needs logprobs: set logprobs to true, or remove top_logprobs.", "top_logprobs")
    ids, most = v["messages"], max_tokens(v)
    check_length(len(ids), most or 1, n_ctx, "messages")
    chat = {"prompt": [Prompt(ids)], "max_tokens": most or n_ctx - len(ids), "best_of": None, "echo": False}
    return to_request(v | chat | {"logprobs": (v["top_logprobs"] or 0) if v["logprobs"] else None})


def max_tokens(v: dict[str, Any]) -> int | None:
    """Return the largest number of new tokens, which has two names"""
    old, new = v["max_tokens"], v["max_completion_tokens"]
    if None not in (old, new) and old != new:
        message = f"max_tokens is {old} and max_completion_tokens {new}: give one of them."
        raise APIError(message, "max_completion_tokens")
    return old if new is None else new


def choice(tokenizer: Tokenizer, piece: Piece, has_logprobs: bool) -> dict[str, Any]:
    """Return the message and the logprobs of a choice"""
    message = {"role": "assistant", "content": piece.text, "refusal": None}
    return {"message": message, "logprobs": logprobs(tokenizer, piece, has_logprobs)}


def delta(tokenizer: Tokenizer, piece: Piece, has_logprobs: bool) -> dict[str, Any]:
    """Return the new text and its logprobs"""
    text = {"content": piece.text} if piece.text else {}
    return {"delta": text, "logprobs": logprobs(tokenizer, piece, has_logprobs)}


def logprobs(tokenizer: Tokenizer, piece: Piece, has_logprobs: bool) -> dict[str, Any] | None:
    """Return the logprobs of a piece without <|endoftext|>, which isn't in the message"""
    tokens = (token for token in piece.tokens if token.id != tokenizer.eot)
    return chat_logprobs(tokenizer, tokens) if has_logprobs else None


FORMAT = Format(
    id="chatcmpl",
    whole="chat.completion",
    chunk="chat.completion.chunk",
    opening={"delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None},
    choice=choice,
    delta=delta,
)
