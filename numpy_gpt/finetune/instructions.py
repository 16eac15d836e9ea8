"""Read instructions with their answers, and turn each into the tokens of a training example.

A file is a JSON list of objects, or JSON Lines with an object in each line. The keys are "instruction", "output", and
"input" for a text that the instruction is about, which may be absent or empty.
"""

import codecs
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..errors import GPTError
from ..system.files import JSON_TYPES
from ..text.sources import File, opened, spooled
from ..text.template import Template, render
from ..text.tokenizer import Tokenizer

REQUIRED = ("instruction", "output")
ALLOWED = ("instruction", "input", "output")
NEEDED = 'an entry is an object with the texts "instruction", "output" and, if the instruction has one, "input"'


class Entry(NamedTuple):
    """Hold an instruction and its answer"""

    instruction: str
    input: str  # "" if the instruction has none
    output: str


class Example(NamedTuple):
    """Hold the tokens of a prompt and its response"""

    ids: list[int]
    start: int  # ids[start:] are the response and <|endoftext|>


def read_entries(file: File) -> list[Entry]:
    """Return the entries of a file; raise GPTError, with the number of the entry, if one isn't valid"""
    entries = [entry(place, value) for place, value in values(file, read_text(file))]
    if not entries:
        raise GPTError(f"{file} has no entries: {NEEDED}.")
    return entries


def read_text(file: File) -> str:
    """Return the text of a file, without a byte order mark; raise GPTError if it isn't UTF-8"""
    with spooled([file]) as pipes, opened(pipes.get(file, file)) as f:
        content = f.read().removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode()
    except UnicodeDecodeError as e:
        line = content.count(b"\n", 0, e.start) + 1
        raise GPTError(f"{file} isn't UTF-8 text: line {line} has the byte {content[e.start]:#04x}.") from None


def values(file: File, text: str) -> Iterator[tuple[str, Any]]:
    """Yield the place and the JSON value of each entry"""
    if not text.lstrip().startswith("["):
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        for i, (number, line) in enumerate(lines, 1):
            place = f"{file}, entry {i}"
            yield place, parse(place, line, number)
        return
    for i, value in enumerate(parse(str(file), text, 1), 1):
        yield f"{file}, entry {i}", value


def parse(place: str, text: str, first_line: int) -> Any:
    """Return the value of JSON text, with a tuple of (key, value) for each object"""
    try:
        return json.loads(text, object_pairs_hook=tuple)
    except json.JSONDecodeError as e:
        fault = f"{e.msg} at line {first_line + e.lineno - 1}, column {e.colno}"
    except (ValueError, RecursionError) as e:  # too many digits or brackets
        fault = str(e)
    raise GPTError(f"{place} isn't valid JSON ({fault}): give a JSON list of entries, or one entry per line.")


def entry(place: str, value: Any) -> Entry:
    """Return the entry in a JSON value"""
    if not isinstance(value, tuple):
        raise GPTError(f"{place} is {JSON_TYPES[type(value)]}: {NEEDED}.")
    keys = [key for key, _ in value]
    if len({*keys}) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise GPTError(f"{place} has the key {twice!a:.40} twice: remove one of them.")
    if not {*REQUIRED} <= {*keys} <= {*ALLOWED}:
        found = f"has the keys {', '.join(map(ascii, keys)):.200}" if keys else "has no keys"
        raise GPTError(f"{place} {found}: {NEEDED}.")
    texts = dict(value)
    for key, text in texts.items():
        check_text(place, key, text)
    return Entry(texts["instruction"], texts.get("input", ""), texts["output"])


def check_text(place: str, key: str, text: Any) -> None:
    """Raise GPTError unless a value is a text, which may be empty only as input"""
    if not isinstance(text, str):
        kind = JSON_TYPES.get(type(text), "an object")
        raise GPTError(f'{place} has {kind} under the key "{key}", and a text is needed: put it in quotes.')
    if not text.strip() and key in REQUIRED:
        raise GPTError(f'{place} has an empty "{key}": add the text, or remove the entry.')
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise GPTError(f'{place} has {text[e.start]!a} in "{key}", which is half a character: correct it.') from None


def encode(entry: Entry, template: Template, tokenizer: Tokenizer, context: int) -> Example | None:
    """Return the tokens of an entry, cut at context + 1, or None if no token of the response is left

    Inputs and targets are shifted by one token, so a model of this context can use one token more. The prompt and the
    response are encoded separately, as in generation, which encodes the prompt alone. If the vocabulary lacks
    <|endoftext|>, the example ends with the response, and the model doesn't learn where to end.
    """
    prompt = tokenizer.encode(render(template, entry.instruction, entry.input))
    response = tokenizer.encode(entry.output) + ([] if tokenizer.eot is None else [tokenizer.eot])
    ids = (prompt + response)[: context + 1]
    return Example(ids, len(prompt)) if len(prompt) < len(ids) else None


def split(n: int, seed: int) -> tuple[list[int], list[int]]:
    """Return the indices of the entries to train on and of those to validate with: a tenth, and at least one of each"""
    if n < 2:
        raise GPTError(f"the data have {n} entries: give at least 2, one to train on and one to validate with.")
    order = np.random.default_rng(seed).permutation(n).tolist()
    validation = max(1, n // 10)
    return order[validation:], order[:validation]
