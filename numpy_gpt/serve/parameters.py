"""Check one value of a request's body, and describe the valid values in JSON Schema."""

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from .api_error import APIError


class Parameter(NamedTuple):
    """Describe a parameter: its JSON Schema, and a function that checks the value of a name"""

    schema: dict[str, Any]
    read: Callable[[str, Any], Any]  # name, value -> the checked value


def integer(description: str, low: int, high: int | None = None, default: int | None = None) -> Parameter:
    """Return a parameter for a whole number; null means the default"""

    def read(name: str, value: Any) -> int | None:
        return default if value is None else whole(name, value, low, high)

    return Parameter(schema(description, "integer", low, high, default), read)


def number(description: str, low: float, high: float, default: float) -> Parameter:
    """Return a parameter for a number; null means the default"""

    def read(name: str, value: Any) -> float:
        return default if value is None else real(name, value, low, high)

    return Parameter(schema(description, "number", low, high, default), read)


def boolean(description: str) -> Parameter:
    """Return a parameter that is true or false; null means false"""

    def read(name: str, value: Any) -> bool:
        if value is not None and not isinstance(value, bool):
            raise APIError(f"{name} is {shown(value)}: it must be true or false.", name)
        return bool(value)

    return Parameter({"type": ["boolean", "null"], "default": False, "description": description}, read)


def string(description: str) -> Parameter:
    """Return a parameter for a text or null"""

    def read(name: str, value: Any) -> str | None:
        return None if value is None else text(name, value)

    return Parameter({"type": ["string", "null"], "description": description}, read)


def schema(description: str, kind: str, low: float, high: float | None, default: float | None) -> dict[str, Any]:
    """Return the JSON Schema of a number or null"""
    limits = {"minimum": low} if high is None else {"minimum": low, "maximum": high}
    return {"type": [kind, "null"], **limits, "default": default, "description": description}


def whole(name: str, value: Any, low: int, high: int | None) -> int:
    """Return a whole number from low to high; 3.0 is one in JSON"""
    valid = is_number(value) and value == math.floor(value) and value >= low and (high is None or value <= high)
    if not valid:
        limits = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise APIError(f"{name} is {shown(value)}: it must be a whole number {limits}.", name)
    return int(value)


def real(name: str, value: Any, low: float, high: float) -> float:
    if not is_number(value) or not low <= value <= high:
        raise APIError(f"{name} is {shown(value)}: it must be a number from {low:g} to {high:g}.", name)
    return float(value)


def is_number(value: Any) -> bool:
    """Return whether a value of JSON is a finite number: Python reads 1e999 as inf"""
    return type(value) is int or (type(value) is float and math.isfinite(value))


def text(name: str, value: Any) -> str:
    """Return a string that can be encoded as UTF-8: JSON can contain half of a surrogate pair"""
    if not isinstance(value, str):
        raise APIError(f"{name} is {shown(value)}: it must be a string.", name)
    try:
        value.encode()
    except UnicodeEncodeError as e:
        code = f"U+{ord(value[e.start]):04X}"
        raise APIError(
            f"{name} has {code} at character {e.start}, half of a surrogate pair: send the whole character.", name
        ) from None
    return value


def shown(value: Any) -> str:
    """Return the beginning of a value as JSON, for error messages"""
    written = json.dumps(value)
    return written if len(written) <= 60 else written[:57] + "..."


def check_names(body: Any, known: dict[str, Parameter], refused: dict[str, str] | None = None) -> dict[str, Any]:
    """Return body, an object of known parameters; raise APIError for another one, with the reason if it is `refused`"""
    if not isinstance(body, dict):
        raise APIError(f"the body is {shown(body)}: it must be a JSON object.")
    for name in body:
        if refused and name in refused:
            raise APIError(refused[name], name, code="unsupported_parameter")
        if name not in known:
            message = f"{shown(name)} isn't a parameter of this request{similar(name, known)}: remove it."
            param = name.encode(errors="backslashreplace").decode()  # JSON can contain half of a surrogate pair
            raise APIError(message, param, code="unknown_parameter")
    return body


def similar(name: str, known: dict[str, Parameter]) -> str:
    """Return a question with the most similar known parameter, or an empty string"""
    import difflib  # here, since only an error needs it

    matches = difflib.get_close_matches(name[:64], known, 1)
    return f" (did you mean {matches[0]}?)" if matches else ""


def read_all(body: dict[str, Any], known: dict[str, Parameter]) -> dict[str, Any]:
    """Return the checked value of every parameter; an absent one gets its default"""
    return {name: parameter.read(name, body.get(name)) for name, parameter in known.items()}
