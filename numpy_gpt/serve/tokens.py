"""Answer GET /tokenizer_info, POST /tokenize and POST /detokenize, which evaluation harnesses use."""

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..text.chat import as_jinja
from ..text.tokenizer import EOT, Tokenizer
from .api_error import APIError
from .body import read_json
from .parameters import Parameter, boolean, check_names, read_all, shown, text
from .prompt import encode, ids_schema, read_ids
from .request import model_parameter
from .service import Service


def required_text(name: str, value: Any) -> str:
    if value is None:
        raise APIError(f"{name} is missing: give a text.", name)
    return text(name, value)


def tokenize_parameters(model: str) -> dict[str, Parameter]:
    """Return the parameters of POST /tokenize; model is the model's name"""
    return {
        "model": model_parameter(model),
        "prompt": Parameter({"type": "string"}, required_text),
        "add_special_tokens": boolean("no effect: GPT-2 adds no tokens to a text"),
    }


def detokenize_parameters(tokenizer: Tokenizer, model: str) -> dict[str, Parameter]:
    """Return the parameters of POST /detokenize"""

    def read(name: str, value: Any) -> list[int]:
        if not isinstance(value, list):
            raise APIError(f"{name} is {shown(value)}: it must be a list of token ids.", name)
        return read_ids(name, value, tokenizer)

    return {"model": model_parameter(model), "tokens": Parameter({**ids_schema(tokenizer), "minItems": 0}, read)}


async def tokenizer_info(service: Service, request: Request) -> Response:
    """Return the special tokens, and the template of instructions as a chat template of transformers"""
    eot = None if service.m.tokenizer.eot is None else EOT
    chat_template = service.template and as_jinja(service.template, service.m.tokenizer)
    return JSONResponse({"eos_token": eot, "bos_token": eot, "chat_template": chat_template})


async def tokenize(service: Service, request: Request) -> Response:
    """Return the token ids of a text; <|endoftext|> in it becomes that token"""
    known = tokenize_parameters(service.name)
    values = read_all(check_names(await read_json(request), known), known)
    ids = await run_in_threadpool(encode, service.m.tokenizer, values["prompt"])
    return JSONResponse({"tokens": ids})


async def detokenize(service: Service, request: Request) -> Response:
    """Return the text of token ids"""
    known = detokenize_parameters(service.m.tokenizer, service.name)
    values = read_all(check_names(await read_json(request), known), known)
    return JSONResponse({"prompt": service.m.tokenizer.decode(values["tokens"])})
