"""Is an instruction put into its template unchanged, and is each fault of a template's file explained?"""

import json
import os

import pytest

from numpy_gpt import CheckpointError, GPTError
from numpy_gpt.text import template
from numpy_gpt.text.template import ALPACA, Template, render

BRACES = Template('{"a": {instruction}}\n{{}} %s $x \\n é 👍', "{input}|{instruction}|{input}")
VALID = {"prompt": "Q: {instruction}\nA: ", "prompt_with_input": "Q: {instruction}\n{input}\nA: "}
VALID_TEMPLATE = Template(**VALID)


def test_alpaca_prompt_without_input_is_the_published_one():
    assert render(ALPACA, "Name a colour.") == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n"
        "\n### Instruction:\nName a colour.\n\n### Response:\n"
    )


def test_alpaca_prompt_with_input_is_the_published_one():
    assert render(ALPACA, "Translate.", "le chat") == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n"
        "\n### Instruction:\nTranslate.\n\n### Input:\nle chat\n\n### Response:\n"
    )


def test_render_puts_placeholders_of_the_user_in_unchanged():
    assert render(VALID_TEMPLATE, "{input} {instruction} {0} {{", "{instruction}\\1") == (
        "Q: {input} {instruction} {0} {{\n{instruction}\\1\nA: "
    )


def test_render_leaves_other_braces_of_the_template():
    assert render(BRACES, "x") == '{"a": x}\n{{}} %s $x \\n é 👍'
    assert render(BRACES, "x", "y") == "y|x|y"


@pytest.mark.parametrize("written", [ALPACA, BRACES, VALID_TEMPLATE])
def test_load_returns_the_template_of_as_json(written, tmp_path):
    (tmp_path / template.FILE).write_bytes(template.as_json(written))
    assert template.load(tmp_path) == written


def test_load_of_a_directory_without_a_template_is_none(tmp_path):
    assert template.load(tmp_path) is None


def test_read_returns_the_template_of_a_file_with_a_byte_order_mark(tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps(VALID), encoding="utf-8-sig")
    assert template.read(str(tmp_path / "mine.json")) == VALID_TEMPLATE


FAULTS = {
    "empty": ("", "is empty: write"),
    "spaces": (" \n", "is empty: write"),
    "text": ("Q: {instruction}", r"isn't valid JSON \(.*\): write"),
    "cut": ('{"prompt": "a', r"isn't valid JSON \(.*\): write"),
    "list": (json.dumps([VALID]), "contains a list instead of an object: write"),
    "twice": ('{"prompt": "{instruction}", "prompt": "{instruction}"}', r"isn't valid JSON \(a name occurs twice\)"),
    "nothing": ("{}", "lacks the key prompt: write"),
    "one": (json.dumps({"prompt": VALID["prompt"]}), "lacks the key prompt_with_input: write"),
    "other": (json.dumps({**VALID, "system": ""}), "has the key 'system', and a template has only prompt and prompt_"),
    "null": (json.dumps({**VALID, "prompt": None}), "prompt is null instead of a text: write"),
    "object": (json.dumps({**VALID, "prompt": {}}), "prompt is an object instead of a text: write"),
    "number": (json.dumps({**VALID, "prompt_with_input": 3}), "prompt_with_input is a number instead of a text"),
    "no text": (json.dumps({**VALID, "prompt": ""}), "prompt lacks {instruction}: write"),
    "capital": (json.dumps({**VALID, "prompt": "{Instruction}"}), "prompt lacks {instruction}: write"),
    "no input": (json.dumps({**VALID, "prompt_with_input": "{instruction}"}), "prompt_with_input lacks {input}: write"),
    "unknown": (
        json.dumps({**VALID, "prompt": "{instruction} {output}"}),
        "prompt contains {output}, and its placeholders are {instruction}: write",
    ),
    "input": (
        json.dumps({**VALID, "prompt": "{instruction} {input}"}),
        "prompt contains {input}, and its placeholders are {instruction}: write",
    ),
    "surrogate": (json.dumps({**VALID, "prompt": "{instruction}\ud83d"}), "prompt has half of a surrogate pair"),
    "nested": ("[" * 100_000, r"isn't valid JSON \(.*recursion"),
    "large": (" " * (1 << 20) + "{}", r"has 1,048,578 bytes, and a valid one has at most 1,048,576"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_read_of_an_invalid_file_raises_one_sentence(name, tmp_path):
    text, fault = FAULTS[name]
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(GPTError, match=rf"^{path}:? {fault}") as caught:
        template.read(str(path))
    assert not isinstance(caught.value, CheckpointError)
    assert str(caught.value).count("\n") == 0


def test_read_of_an_unreadable_file_raises(tmp_path):
    (tmp_path / "latin.json").write_bytes('{"prompt": "é"}'.encode("latin-1"))
    for name, fault in [("no.json", "can't be read"), (".", "is a directory"), ("latin.json", "isn't valid JSON")]:
        with pytest.raises(GPTError, match=fault):
            template.read(tmp_path / name)


def test_load_of_an_invalid_template_raises_checkpoint_error(tmp_path):
    (tmp_path / template.FILE).write_text('{"name": "another program"}')
    with pytest.raises(CheckpointError, match=r"template.json has the key 'name', .*: correct it, or remove it to use"):
        template.load(tmp_path)


def test_load_of_a_broken_link_raises_checkpoint_error(tmp_path):
    os.symlink("nowhere", tmp_path / template.FILE)
    with pytest.raises(CheckpointError, match=r"template.json can't be read: No such file"):
        template.load(tmp_path)
