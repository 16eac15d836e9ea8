"""Read a command's options from a TOML file, and check them against its parser."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import GPTError

KINDS = {int: "an integer", float: "a number", str: "a string"}


def read_options(path: str, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Return the options in a TOML file as keyword arguments for parser.set_defaults"""
    actions = {action.dest: action for action in parser._actions}
    values: dict[str, Any] = {}
    for key, value in read_toml(path).items():
        name = key.replace("-", "_")
        if name in values:
            raise GPTError(f"{path}: {key} is given twice, once with - and once with _: remove one of them.")
        if name not in actions and is_table(value):
            raise GPTError(f"{path}: {key} is a table: put the options outside of tables.")
        if name not in actions:
            raise GPTError(f"{path}: {key} is an unknown option{suggestion(name, actions)}.")
        values[name] = convert(f"{path}: {key}", value, actions[name])
    return values


def read_toml(path: str) -> dict[str, Any]:
    """Return the contents of a TOML file, which may begin with a byte order mark"""
    import tomllib  # here, since few commands read a file and the import takes 2 ms

    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as e:
        raise GPTError(f"{path} can't be read: {e.strerror}.") from None
    except (ValueError, RecursionError) as e:  # ValueError also if it isn't UTF-8
        raise GPTError(f"{path} isn't valid TOML: {e}.") from None


def is_table(value: Any) -> bool:
    """Return whether a value is a table or an array of tables"""
    return any(isinstance(item, dict) for item in (value if isinstance(value, list) else [value]))


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a question with the most similar known option, or an empty string"""
    import difflib  # here, since only an error needs it

    similar = difflib.get_close_matches(name, known, 1)
    return f" (did you mean {similar[0].replace('_', '-')}?)" if similar else ""


def convert(place: str, value: Any, action: argparse.Action) -> Any:
    """Return a TOML value as the parser would store it; raise GPTError if it has the wrong type"""
    if action.required or action.dest in ("help", "config"):
        raise GPTError(f"{place} can't come from a file: give it on the command line.")
    if action.nargs == 0:  # store_true and BooleanOptionalAction
        if not isinstance(value, bool):
            raise GPTError(f"{place} is {abbreviate(value)}: it must be true or false.")
        return value
    kind: Any = action.type or str
    if action.nargs != "+" and not isinstance(action, argparse._AppendAction):
        return check(place, value, action, kind, KINDS[kind])
    if value == [] and action.nargs == "+":
        raise GPTError(f"{place} is empty: give at least one value.")
    items = value if isinstance(value, list) else [value]
    return [check(place, item, action, kind, f"{KINDS[kind]} or a list of them") for item in items]


def check(place: str, value: Any, action: argparse.Action, kind: Any, needed: str) -> Any:
    """Return one value as `kind`; raise GPTError if it has another type or isn't one of the action's choices"""
    if isinstance(value, int) and value.bit_length() > 64:
        raise GPTError(f"{place} is an integer of more than 64 bits: make it smaller.")
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise GPTError(f"{place} is {abbreviate(value)}: it must be {needed}.")
    if action.choices is not None and value not in action.choices:
        raise GPTError(f"{place} is {abbreviate(value)}: it must be one of {', '.join(map(str, action.choices))}.")
    return kind(value)


def abbreviate(value: Any) -> str:
    """Return a TOML value as text of at most 40 characters"""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value) if isinstance(value, int | float | str | list) else str(value)  # str(date) is its TOML
    return text if len(text) <= 40 else text[:37] + "..."
