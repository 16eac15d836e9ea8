"""Read the messages of a chat, and turn them into the tokens of a prompt."""

from typing import Any, NamedTuple

from ..text.chat import BLANK_LINE, Turn, encode
from ..text.template import Template
from ..text.tokenizer import Tokenizer
from .api_error import APIError
from .parameters import Parameter, shown, text
from .prompt import longest_token, too_long

ROLES = ("system", "developer", "user", "assistant")
# keys of the answers that clients send back, always without a value here
EMPTY = ("refusal", "annotations", "audio", "function_call", "tool_calls")
PART = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
    "additionalProperties": False,
}
KEYS: dict[str, Any] = {
    "role": {"enum": [*ROLES]},
    "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": PART, "minItems": 1}]},
    "name": {"type": ["string", "null"], "description": "no effect"},
    **{key: {"type": ["array", "null"], "maxItems": 0} for key in EMPTY},
}
MESSAGE = {
    "type": "object",
    "properties": KEYS,
    "required": ["role", "content"],
    "additionalProperties": False,
}
SCHEMA = {
    "description": "the conversation, which ends with a message of the user; all messages between two answers are "
    "joined by blank lines to one instruction",
    "type": "array",
    "items": MESSAGE,
    "minItems": 1,
}


class Message(NamedTuple):
    role: str
    content: str


def messages_parameter(tokenizer: Tokenizer, template: Template, n_ctx: int) -> Parameter:
    """Return the parameter for the messages of a chat, which become token ids"""
    longest = longest_token(tokenizer)

    def read(name: str, value: Any) -> list[int]:
        if not isinstance(value, list) or not value:
            fault = "missing" if value is None else shown(value)
            raise APIError(f"{name} is {fault}: it must be a list of at least one message.", name)
        turns = to_turns([read_message(f"{name}[{i}]", message) for i, message in enumerate(value)], name)
        size = sum(len(part.encode()) for turn in turns for part in turn if part)
        least = max(len(turns), -(-size // longest))
        if least > n_ctx:
            raise too_long(n_ctx, f"at least {least}", name)
        return encode(turns, template, tokenizer)

    return Parameter(SCHEMA, read)


def read_message(name: str, value: Any) -> Message:
    """Return a message; raise APIError if it isn't valid"""
    if not isinstance(value, dict):
        raise APIError(f"{name} is {shown(value)}: it must be an object with role and content.", name)
    for key, found in value.items():
        if key not in KEYS:
            raise APIError(f"{name} has the key {shown(key)}: it may have role, content and name; remove it.", name)
        if key in EMPTY and found not in (None, []):
            raise APIError(f"{name}.{key} is {shown(found)}: the model supports only texts; remove it.", name)
    if value.get("name") is not None:
        text(f"{name}.name", value["name"])
    if value.get("role") not in ROLES:
        fault = shown(value["role"]) if "role" in value else "missing"
        raise APIError(f"{name}.role is {fault}: it must be {', '.join(ROLES[:-1])} or {ROLES[-1]}.", f"{name}.role")
    return Message(value["role"], read_content(f"{name}.content", value.get("content")))


def read_content(name: str, value: Any) -> str:
    """Return the text of a message; the parts of a list become lines"""
    if not isinstance(value, list):
        return text(name, value)
    if not value:
        raise APIError(f"{name} is an empty list: give at least one part.", name)
    for i, part in enumerate(value):
        if not isinstance(part, dict) or part.get("type") != "text" or part.keys() != {"type", "text"}:
            example = '{"type": "text", "text": "..."}'
            raise APIError(f"{name}[{i}] is {shown(part)}: the model reads only texts, such as {example}.", name)
    return "\n".join(text(f"{name}[{i}].text", part["text"]) for i, part in enumerate(value))


def to_turns(messages: list[Message], name: str) -> list[Turn]:
    """Return the instructions with their answers, of which the last is None"""
    turns: list[Turn] = []
    before: list[str] = []  # messages since the last answer
    for i, (role, content) in enumerate(messages):
        place = f"{name}[{i}]"
        if role == "assistant" and not before:
            raise APIError(f"{place} is an answer with no message before it that it answers: remove it.", place)
        if role == "assistant":
            turns.append(Turn(BLANK_LINE.join(before), content))
            before = []
        elif content.strip():
            before.append(content)
        elif role == "user":
            raise APIError(f"{place}.content is empty: write a message.", f"{place}.content")
    if messages[-1].role != "user":
        raise APIError(f"the last message has the role {messages[-1].role}: it must be the user's.", name)
    return [*turns, Turn(BLANK_LINE.join(before), None)]
