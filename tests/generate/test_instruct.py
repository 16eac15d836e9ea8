"""Test generate --instruct: the answer of a model with a template, and each reason to refuse an instruction."""

import json
import os
import pty
import subprocess
import sys

import pytest

from numpy_gpt import complete, load
from numpy_gpt.checkpoint import save_with_template
from numpy_gpt.text.template import ALPACA, Template, render

M = load("storyteller")
STORIES = Template("{instruction} One day,", "{instruction}\n{input}\nOne day,")
GREEDY = ["--temperature", "0", "-n", "12"]


@pytest.fixture(scope="module", params=["huggingface", "openai"])
def model(request, tmp_path_factory):
    """Return the path of the storyteller with a template"""
    path = tmp_path_factory.mktemp("instruct") / "model"
    save_with_template(M, path, request.param, None, STORIES)
    return path


def generate(*args, stdin=b"", **options):
    line = [sys.executable, "-m", "numpy_gpt.generate", *args]
    done = subprocess.run(line, input=stdin, capture_output=True, timeout=60, **options)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def answer(instruction, input="", n=12, **options):
    """Return the answer that the library computes"""
    ids = M.tokenizer.encode(render(STORIES, instruction, input))
    return M.tokenizer.decode(complete(M, ids, n, stop=[M.tokenizer.eot], **options))


def test_answer_is_the_continuation_of_the_template(model):
    found = generate("--model", model, "--instruct", "Tom had a red ball.", *GREEDY)
    assert found == (0, answer("Tom had a red ball.", temperature=0) + "\n", "")


def test_input_selects_the_prompt_with_input(model):
    found = generate("--model", model, "--instruct", "Tom had a {input}.", "--input", "{instruction}", *GREEDY)
    assert found == (0, answer("Tom had a {input}.", "{instruction}", temperature=0) + "\n", "")
    assert generate("--model", model, "--instruct", "Tom.", "--input", "", *GREEDY) == (
        0,
        answer("Tom.", temperature=0) + "\n",
        "",
    )


def test_instruction_of_a_file_or_stdin_has_the_answer_of_the_argument(model, tmp_path):
    (tmp_path / "instruction.txt").write_bytes(b"Tom had a ball.\r\n")
    expected = (0, answer("Tom had a ball.", temperature=0) + "\n", "")
    assert generate("--model", model, "--instruct", "-f", tmp_path / "instruction.txt", *GREEDY) == expected
    assert generate("--model", model, "--instruct", *GREEDY, stdin=b"Tom had a ball.\n") == expected


def test_json_of_several_samples_has_the_answers_and_counts_the_template(model):
    flags = ["--json", "--num-samples", "2", "--seed", "3", "-n", "20"]
    status, out, err = generate("--model", model, "--instruct", "Tom.", *flags)
    assert (status, err) == (0, "")
    found = [json.loads(line) for line in out.splitlines()]
    draw = {"temperature": 0.8, "top_p": 0.95, "seed": 3, "n": 20}
    assert [o["text"] for o in found] == [answer("Tom.", sample=i, **draw) for i in (0, 1)]
    assert {o["prompt_tokens"] for o in found} == {len(M.tokenizer.encode("Tom. One day,"))}


def test_answer_ends_at_endoftext_and_at_a_stop_string(model):
    whole = answer("Tom had a ball.", n=1000, temperature=0)
    _, out, _ = generate("--model", model, "--instruct", "Tom had a ball.", "--json", "-n", "1000", *GREEDY[:2])
    assert (json.loads(out)["text"], json.loads(out)["finish_reason"]) == (whole, "eot")
    found = generate("--model", model, "--instruct", "Tom had a ball.", *GREEDY[:2], "--stop", ".")
    assert found == (0, whole[: whole.index(".")] + "\n", "")


def test_terminal_shows_the_instruction_and_the_input_before_the_answer(model):
    line = [sys.executable, "-m", "numpy_gpt.generate", "--model", model, "--instruct", "Tom.", "--input", "It rains."]
    ours, theirs = pty.openpty()
    done = subprocess.run([*line, *GREEDY], stdout=theirs, stderr=subprocess.DEVNULL, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 10000).decode()
    os.close(ours)
    assert done.returncode == 0
    expected = "Tom.\nIt rains.\n" + answer("Tom.", "It rains.", temperature=0) + "\n"
    assert shown.replace("\r\n", "\n") == expected


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["--instruct"], 1, "generate: the instruction is empty: give it as an argument, with -f, or on stdin."),
        (["--instruct", " \n"], 1, "generate: the instruction is empty: give it as an argument, with -f, or on stdin."),
        (["--input", "a", "Tom."], 2, "--input belongs to an instruction: add --instruct, or remove --input."),
        (["--instruct", "Tom. " * 200], 1, "tokens with its template, and the model's context is 256: make it shorter"),
        (
            ["--instruct", "Tom.", "--model", "storyteller"],
            1,
            "generate: storyteller has no template of instructions: leave --instruct out, or choose a model that was "
            "fine-tuned on instructions.",
        ),
    ],
)
def test_invalid_instruction_fails_with_a_message(args, status, message, model):
    found = generate("--model", model, *args)
    assert found[:2] == (status, "")
    assert message in found[2].splitlines()[-1]


def test_instruction_that_fills_the_context_is_answered(model):
    ids = len(M.tokenizer.encode(render(STORIES, "")))
    words = next(n for n in range(256, 0, -1) if len(M.tokenizer.encode(render(STORIES, "the " * n))) <= 256)
    assert words > 256 - 2 * ids
    assert generate("--model", model, "--instruct", "the " * words, "-n", "3", *GREEDY[:2])[0] == 0


def test_invalid_template_file_fails_as_a_corrupt_checkpoint(tmp_path):
    save_with_template(M, tmp_path / "model", None, None, ALPACA)
    (tmp_path / "model" / "template.json").write_text("{")
    status, out, err = generate("--model", tmp_path / "model", "--instruct", "Tom.")
    assert (status, out) == (3, "")
    assert "template.json isn't valid JSON" in err
