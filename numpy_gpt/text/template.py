"""Put instructions into the template that a model was fine-tuned with; a checkpoint stores it in template.json."""

import codecs
import json
import os
import re
from pathlib import Path
from typing import NamedTuple

from ..errors import CheckpointError, GPTError
from ..system.files import JSON_TYPES, parse_json, read_bytes

FILE = "template.json"
LARGEST = 1 << 20  # bytes
PLACEHOLDERS = re.compile(r"\{(instruction|input)\}")
FORM = '{"prompt": "... {instruction} ...", "prompt_with_input": "... {instruction} ... {input} ..."}'
ADVICE = f"write {FORM}"


class Template(NamedTuple):
    """Hold the text around an instruction, which the answer follows"""

    prompt: str  # contains {instruction}
    prompt_with_input: str  # contains {instruction} and {input}


ALPACA = Template(
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n"
    "### Response:\n",
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n"
    "### Input:\n{input}\n\n"
    "### Response:\n",
)


def render(template: Template, instruction: str, input: str = "") -> str:
    """Return the prompt of an instruction; placeholders in the instruction and the input are ordinary text"""
    values = {"instruction": instruction, "input": input}
    prompt = template.prompt_with_input if input else template.prompt
    return PLACEHOLDERS.sub(lambda found: values[found[1]], prompt)


def as_json(template: Template) -> bytes:
    """Return the contents of template.json"""
    return json.dumps(template._asdict(), indent=2, ensure_ascii=False).encode() + b"\n"


def load(directory: str | Path) -> Template | None:
    """Return the template of a checkpoint's directory, or None if there is no template.json"""
    path = Path(directory, FILE)
    if not os.path.lexists(path):
        return None
    return parse(path, read_bytes(path, LARGEST), "correct it, or remove it to use the model without a template")


def read(file: str | Path) -> Template:
    """Return the template in a user's JSON file; raise GPTError if it isn't valid"""
    try:
        content = read_bytes(Path(file), LARGEST).removeprefix(codecs.BOM_UTF8)
        if not content.strip():
            raise GPTError(f"{file} is empty: {ADVICE}.")
        return parse(Path(file), content, ADVICE)
    except CheckpointError as e:  # the file belongs to no checkpoint
        raise GPTError(str(e)) from None


def parse(path: Path, content: bytes, advice: str) -> Template:
    """Return the template in the contents of a file; raise CheckpointError with this advice if it isn't valid"""
    values = parse_json(path, content, advice)
    for key in values:
        if key not in Template._fields:
            only = " and ".join(Template._fields)
            raise CheckpointError(f"{path} has the key {key!a:.40}, and a template has only {only}: {advice}.")
    for key in Template._fields:
        if key not in values:
            raise CheckpointError(f"{path} lacks the key {key}: {advice}.")
        check(path, key, values[key], advice)
    return Template(**values)


def check(path: Path, key: str, prompt: object, advice: str) -> None:
    """Raise CheckpointError unless a prompt is a text that contains its placeholders and no others"""
    if not isinstance(prompt, str):
        kind = JSON_TYPES.get(type(prompt), "an object")
        raise CheckpointError(f"{path}: {key} is {kind} instead of a text: {advice}.")
    allowed = ["{instruction}"] if key == "prompt" else ["{instruction}", "{input}"]
    for placeholder in allowed:
        if placeholder not in prompt:
            raise CheckpointError(f"{path}: {key} lacks {placeholder}: {advice}.")
    for found in re.findall(r"\{\w+\}", prompt):
        if found not in allowed:
            raise CheckpointError(
                f"{path}: {key} contains {found:.40}, and its placeholders are {' and '.join(allowed)}: {advice}."
            )
    if re.search("[\ud800-\udfff]", prompt):
        raise CheckpointError(f"{path}: {key} has half of a surrogate pair, which isn't a character: {advice}.")
