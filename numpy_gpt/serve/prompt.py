"""Read the prompts of a request: text or token ids, or a list of either."""

from typing import Any, NamedTuple

from ..text.tokenizer import EOT, Tokenizer
from .api_error import APIError
from .parameters import Parameter, shown, text, whole

MAX_PROMPTS = 128


class Prompt(NamedTuple):
    ids: list[int]
    echoed: bool = True  # False if the request's prompt is empty, and the model reads <|endoftext|> in its place


def prompt_parameter(tokenizer: Tokenizer, n_ctx: int) -> Parameter:
    """Return the parameter for the prompts of a completion, which become a list of Prompt"""
    longest = longest_token(tokenizer)
    ids = ids_schema(tokenizer)
    schema = {
        "description": "text, token ids, or a list of either; an empty or absent prompt means <|endoftext|>",
        "default": EOT,
        "anyOf": [
            {"type": ["string", "null"]},
            {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_PROMPTS},
            ids,
            {"type": "array", "items": ids, "minItems": 1, "maxItems": MAX_PROMPTS},
        ],
    }

    def read(name: str, value: Any) -> list[Prompt]:
        value = "" if value is None else value
        if not isinstance(value, list):
            return [read_text(name, value)]
        if not value:
            raise APIError(f"{name} is an empty list: give at least one prompt.", name)
        if not isinstance(value[0], str | list):
            return [Prompt(read_ids(name, value, tokenizer))]
        if len(value) > MAX_PROMPTS:
            raise APIError(f"{name} has {len(value)} prompts: send at most {MAX_PROMPTS} in one request.", name)
        one = read_text if isinstance(value[0], str) else read_list
        return [one(f"{name}[{i}]", item) for i, item in enumerate(value)]

    def read_text(name: str, value: Any) -> Prompt:
        size = len(text(name, value).encode())
        if size > n_ctx * longest:
            raise too_long(n_ctx, f"at least {-(-size // longest)}")
        if value:
            return Prompt(encode(tokenizer, value))
        if tokenizer.eot is None:
            raise APIError(f"{name} is empty, and the model has no {EOT} to begin with: give a prompt.", name)
        return Prompt([tokenizer.eot], echoed=False)

    def read_list(name: str, value: Any) -> Prompt:
        if not isinstance(value, list):
            raise APIError(f"{name} is {shown(value)}: it must be a list of token ids, as the first prompt is.", name)
        if not value:
            raise APIError(f"{name} is an empty list: give at least one token id.", name)
        return Prompt(read_ids(name, value, tokenizer))

    return Parameter(schema, read)


def longest_token(tokenizer: Tokenizer) -> int:
    """Return the number of bytes of the longest token"""
    return max(map(len, tokenizer.tokens.values()))


def ids_schema(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the JSON Schema of a list of token ids"""
    return {
        "type": "array",
        "items": {"type": "integer", "minimum": 0, "maximum": tokenizer.n_vocab - 1},
        "minItems": 1,
    }


def read_ids(name: str, value: list[Any], tokenizer: Tokenizer) -> list[int]:
    """Return a list of token ids; raise APIError if one isn't in the vocabulary"""
    last = tokenizer.n_vocab - 1
    return [whole(f"{name}[{i}]", token, 0, last) for i, token in enumerate(value)]


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the token ids of a text; <|endoftext|> in it becomes that token, as in OpenAI's API"""
    if tokenizer.eot is None:
        return tokenizer.encode(text)
    first, *others = text.split(EOT)
    ids = tokenizer.encode(first)
    for part in others:
        ids += [tokenizer.eot, *tokenizer.encode(part)]
    return ids


def too_long(n_ctx: int, tokens: str, name: str = "prompt") -> APIError:
    """Return the error for a prompt that alone is longer than the context; name is its parameter"""
    message = (
        f"This model's maximum context length is {n_ctx} tokens, however there are {tokens} tokens in your {name}. "
        f"Please reduce your {name}."
    )
    return APIError(message, name, code="context_length_exceeded")
