"""Do both packages and transformers put instructions into the stored template in the same way?"""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from transformers import AutoTokenizer

import numpy_gpt
from numpy_gpt.checkpoint import save_with_template
from numpy_gpt.text import bpe, tokenizer
from numpy_gpt.text.template import ALPACA, Template, render

from .inputs import TINY, random_model

SIGNS = "{{ a }} {% b %} {# c #} \"d\" 'e' \\n \\ \t \r\n \u2028 é 東 👍 <|endoftext|> $ {} \x7f"
TEMPLATES = {
    "alpaca": ALPACA,
    "signs": Template(f"{SIGNS}{{instruction}}{SIGNS}\n", "{instruction}{input}"),
    "twice": Template("\n {instruction} or {instruction}", "{instruction}{input}"),
    "bare": Template("{instruction}", "{instruction}{input}"),
}
CONTENTS = ["What is 2 + 3?", SIGNS, "{instruction} {input}", " a\n", "\n"]


def vocabulary(directory, has_eot):
    if has_eot:
        return bpe.tokenizer([])
    encoder, merges = bpe.tokenizer([]).files
    (directory / "encoder.json").write_text(json.dumps({k: i for k, i in json.loads(encoder).items() if i < 256}))
    (directory / "vocab.bpe").write_bytes(merges)
    return tokenizer.load(directory)


def saved(directory, template, has_eot=True):
    """Return transformers' tokenizer of a model that is saved with a template"""
    ours = vocabulary(directory, has_eot)
    m = random_model(replace(TINY, n_vocab=ours.n_vocab))._replace(tokenizer=ours)
    save_with_template(m, directory / "model", "huggingface", None, template)
    return AutoTokenizer.from_pretrained(directory / "model")


def rendered(theirs, *messages):
    conversation = [{"role": role, "content": content} for role, content in messages]
    return theirs.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)


@pytest.mark.parametrize("name", TEMPLATES)
def test_transformers_renders_an_instruction_as_render_does(name, tmp_path):
    theirs = saved(tmp_path, TEMPLATES[name])
    for content in CONTENTS:
        assert rendered(theirs, ("user", content)) == render(TEMPLATES[name], content)


@pytest.mark.parametrize(("has_eot", "end"), [(True, "<|endoftext|>"), (False, "\n\n")])
def test_transformers_renders_turns_one_after_the_other(has_eot, end, tmp_path):
    theirs = saved(tmp_path, ALPACA, has_eot)
    found = rendered(theirs, ("system", "Be brief."), ("user", "Hi"), ("assistant", "Ho"), ("user", "a"), ("user", "b"))
    assert found == render(ALPACA, "Be brief.\n\nHi") + "Ho" + end + render(ALPACA, "a\n\nb")


def test_model_without_a_template_has_no_chat_template(tmp_path):
    assert saved(tmp_path, None).chat_template is None


def test_save_over_a_checkpoint_of_transformers_removes_its_chat_template(tmp_path):
    theirs = saved(tmp_path, ALPACA)
    theirs.chat_template = "{{ messages }}"
    theirs.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "chat_template.jinja").exists()
    assert rendered(saved(tmp_path, TEMPLATES["bare"]), ("user", "a")) == "a"


@pytest.mark.slow
def test_both_packages_print_the_same_answer(tmp_path):
    template = Template("{instruction} One day,", "{instruction}\n{input}\nOne day,")
    save_with_template(numpy_gpt.load("storyteller"), tmp_path / "model", None, None, template)
    options = ["--instruct", "Tom had a ball.", "--input", "It was red.", "--temperature", "0", "-n", "12"]
    answers = []
    for package in ("numpy_gpt", "torch_gpt"):
        line = [sys.executable, "-m", f"{package}.generate", "--model", tmp_path / "model", *options]
        answers.append(subprocess.run(line, capture_output=True, text=True, check=True, timeout=60).stdout)
    assert answers[0] == answers[1]
    assert len(answers[0]) > 20
    assert "One day" not in answers[0]
