"""Describe the API as an OpenAPI document."""

from typing import Any

from .. import __version__
from ..text.tokenizer import Tokenizer
from .parameters import Parameter
from .tokens import detokenize_parameters, tokenize_parameters

Schema = dict[str, Any]

STATUS = {
    400: "a parameter is invalid",
    401: "the API key is missing or wrong",
    404: "the model or file doesn't exist",
    408: "the body arrived too slowly",
    413: "the body is too large",
    415: "the content type isn't application/json",
    429: "the queue is full: try again after Retry-After seconds",
    500: "the server failed",
    503: "the server is shutting down, or its memory is full",
    504: "the completion took longer than --timeout",
}
BODY = (400, 401, 408, 413, 415, 500)  # of every endpoint with a body


def describe(
    completion: dict[str, Parameter],
    chat: dict[str, Parameter] | None,
    tokenizer: Tokenizer,
    model: str,
    has_key: bool,
) -> Schema:
    """Return the document

    Arguments:
        completion: the parameters of a completion.
        chat: the parameters of a chat, or None if the model has no template of instructions.
        tokenizer: the tokenizer of the model.
        model: the name of the model.
        has_key: whether requests need an API key.
    """
    tokenize, detokenize = tokenize_parameters(model), detokenize_parameters(tokenizer, model)
    paths = {
        "/v1/completions": post("Continue prompts", inputs(completion), COMPLETION, 404, 429, 503, 504),
        "/v1/chat/completions": post("Refuse a chat: the model has no chat template", {"type": "object"}, None),
        "/v1/models": get("List the model", MODELS, 401),
        "/v1/models/{name}": get("Describe the model", MODEL, 401, 404),
        "/tokenizer_info": get("Return the special tokens", TOKENIZER_INFO, 401),
        "/tokenize": post("Convert text to token ids", inputs(tokenize, "prompt"), record(tokens=IDS), 404),
        "/detokenize": post("Convert token ids to text", inputs(detokenize, "tokens"), record(prompt=STRING), 404),
        "/inspect": post("Compute what the page displays of a prompt", INSPECTION, {}, 429),
        "/health": public("Return whether the server is up", HEALTH, 503),
        "/metrics": get("Return counts for Prometheus", None, 401, text="text/plain"),
        "/openapi.json": public("Return this document", {"type": "object"}),
    }
    if chat:
        body = inputs(chat, "messages")
        paths["/v1/chat/completions"] = post("Answer a conversation", body, CHAT_COMPLETION, 404, 429, 503, 504)
    for path in ("/v1/completions", "/v1/chat/completions") if chat else ("/v1/completions",):
        paths[path]["post"]["responses"]["200"]["content"]["text/event-stream"] = {}
    paths["/v1/models/{name}"]["get"]["parameters"] = [
        {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    ]
    return {
        "openapi": "3.1.0",
        "info": {"title": "numpy-gpt", "version": __version__},
        "paths": paths,
        "components": {"schemas": {"Error": ERROR}, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}] if has_key else [],
    }


def inputs(parameters: dict[str, Parameter], *required: str) -> Schema:
    """Return the schema of a body with these parameters"""
    properties = {name: parameter.schema for name, parameter in parameters.items()}
    return {"type": "object", "properties": properties, "required": [*required], "additionalProperties": False}


def record(**properties: Schema) -> Schema:
    """Return the schema of an object that has all of these properties"""
    return {"type": "object", "properties": properties, "required": [*properties]}


def nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def post(summary: str, body: Schema, result: Schema | None, *errors: int) -> Schema:
    content = {"application/json": {"schema": body}}
    operation = {"summary": summary, "requestBody": {"required": True, "content": content}}
    return {"post": operation | responses(result, "application/json", *BODY, *errors)}


def get(summary: str, result: Schema | None, *errors: int, text: str = "application/json") -> Schema:
    return {"get": {"summary": summary} | responses(result, text, *errors)}


def public(summary: str, result: Schema, *errors: int) -> Schema:
    """Return an operation that needs no API key"""
    return {"get": {"summary": summary, "security": []} | responses(result, "application/json", *errors)}


def responses(result: Schema | None, kind: str, *errors: int) -> Schema:
    """Return the responses of an operation; a result of None has no schema"""
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    found: Schema = {"200": {"description": "done", "content": {kind: {} if result is None else {"schema": result}}}}
    found |= {str(status): {"description": STATUS[status], "content": error} for status in sorted(errors)}
    return {"responses": found}


STRING: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
IDS = array(COUNT)
ERROR = record(error=record(message=STRING, type=STRING, param=nullable(STRING), code=nullable(STRING)))
USAGE = record(prompt_tokens=COUNT, completion_tokens=COUNT, total_tokens=COUNT)
LOGPROBS = record(
    tokens=array(STRING),
    token_logprobs=array(nullable(NUMBER)),
    top_logprobs=array(nullable({"type": "object", "additionalProperties": NUMBER})),
    text_offset=IDS,
)
REASON = {"enum": ["stop", "length", None]}
CHOICE = record(text=STRING, index=COUNT, logprobs=nullable(LOGPROBS), finish_reason=REASON)
COMPLETION = record(
    id=STRING,
    object={"const": "text_completion"},
    created=COUNT,
    model=STRING,
    choices=array(CHOICE),
    usage=USAGE,
)
TOKEN_SCORE = {"token": STRING, "logprob": NUMBER, "bytes": IDS}
TOKEN_SCORES = array(record(**TOKEN_SCORE, top_logprobs=array(record(**TOKEN_SCORE))))
CHAT_CHOICE = record(
    index=COUNT,
    message=record(role={"const": "assistant"}, content=STRING),
    logprobs=nullable(record(content=TOKEN_SCORES)),
    finish_reason=REASON,
)
CHAT_COMPLETION = record(
    id=STRING,
    object={"const": "chat.completion"},
    created=COUNT,
    model=STRING,
    choices=array(CHAT_CHOICE),
    usage=USAGE,
)
MODEL = record(id=STRING, object={"const": "model"}, created=COUNT, owned_by=STRING, max_model_len=COUNT)
MODELS = record(object={"const": "list"}, data=array(MODEL))
TOKENIZER_INFO = record(eos_token=nullable(STRING), bos_token=nullable(STRING))
HEALTH = record(status=STRING, model=STRING, backend=STRING, version=STRING)
INSPECTION = record(view=STRING, prompt={"anyOf": [STRING, IDS]})
