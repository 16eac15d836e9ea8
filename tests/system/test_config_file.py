"""Test options from --config FILE.toml, and unknown options on the command line."""

import subprocess
import sys
from pathlib import Path

import pytest
from training_runs import SHORT, train, trained

from numpy_gpt.generate import __main__ as generate
from numpy_gpt.system.cli import parse
from numpy_gpt.train import options, resume


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def to_generate(monkeypatch, *arguments, toml=None):
    if toml is not None:
        Path("run.toml").write_bytes(toml if isinstance(toml, bytes) else toml.encode())
        arguments = ("--config", "run.toml", *arguments)
    monkeypatch.setattr(sys, "argv", ["generate", *arguments])
    return generate.parse(generate.NUMPY)[0]


def to_train(*arguments, toml):
    Path("run.toml").write_text(toml)
    return vars(parse(options.parser("numpy_gpt.train"), ["--config", "run.toml", *arguments]))


def test_config_key_prompt_sets_the_prompt(monkeypatch):
    args = to_generate(monkeypatch, toml='prompt = "Once upon a time"')
    assert args.prompt == "Once upon a time"
    assert to_generate(monkeypatch, "Tom", toml='prompt = "Once upon a time"').prompt == "Tom"


def test_config_list_for_stop_gives_several_stop_strings(monkeypatch):
    args = to_generate(monkeypatch, toml='stop = ["one", "two words"]')
    assert (args.stop, args.prompt) == (["one", "two words"], None)
    assert to_generate(monkeypatch, toml='stop = "one"').stop == ["one"]


def test_command_line_adds_to_a_repeated_option_of_config(monkeypatch):
    args = to_generate(
        monkeypatch, "--stop", "two", "--seed", "3", toml='stop = ["one"]\nseed = 1\ntop-k = 5\ntop_p = 1'
    )
    assert (args.stop, args.seed, args.top_k, args.top_p) == (["one", "two"], 3, 5, 1.0)
    assert isinstance(args.top_p, float)


def test_config_with_byte_order_mark_is_read(monkeypatch):
    assert to_generate(monkeypatch, toml=b"\xef\xbb\xbfseed = 7").seed == 7


def test_config_list_for_data_is_replaced_by_the_command_line():
    toml = 'data = ["a.txt", "b.txt"]\nval-data = "v.txt"\nlr = 1'
    args = to_train(toml=toml)
    assert (args["data"], args["val_data"], args["lr"]) == (["a.txt", "b.txt"], ["v.txt"], 1.0)
    assert to_train("--data", "c.txt", toml=toml)["data"] == ["c.txt"]


@pytest.mark.parametrize("value", ["true", "false"])
def test_config_boolean_sets_the_option_or_its_negation(value):
    args = to_train(toml=f"checkpointing = {value}\nresume = {value}")
    assert (args["checkpointing"], args["resume"]) == (value == "true", value == "true")
    assert to_train("--no-checkpointing", toml="checkpointing = true")["checkpointing"] is False
    assert "checkpointing" not in to_train(toml="seed = 1")  # a resumed run keeps its own value


@pytest.mark.parametrize("value", [True, False])
def test_config_checkpointing_applies_to_a_resumed_run(text, value):
    trained("--data", text, "--out", "run", *SHORT, *([] if value else ["--checkpointing"]))
    Path("run.toml").write_text(f"checkpointing = {str(value).lower()}")
    trained("--resume", "--out", "run", "--steps", "7", "--config", "run.toml")
    assert resume.load(Path("run")).about["settings"]["checkpointing"] is value


ERRORS = {
    "stpo = 'x'": "run.toml: stpo is an unknown option (did you mean stop?).",
    "max_new_token = 3": "run.toml: max_new_token is an unknown option (did you mean max-new-tokens?).",
    "[generate]\nseed = 1": "run.toml: generate is a table: put the options outside of tables.",
    "[[generate]]\nseed = 1": "run.toml: generate is a table: put the options outside of tables.",
    "[stop]\nseed = 1": "run.toml: stop is a table: it must be a string or a list of them.",
    "stop = ['a', 1]": "run.toml: stop is 1: it must be a string or a list of them.",
    "prompt = ['a', 'b']": "run.toml: prompt is ['a', 'b']: it must be a string.",
    "model = 2020-01-01": "run.toml: model is 2020-01-01: it must be a string.",
    "seed = '1'": "run.toml: seed is '1': it must be an integer.",
    "seed = 1.0": "run.toml: seed is 1.0: it must be an integer.",
    "seed = true": "run.toml: seed is true: it must be an integer.",
    f"seed = 0x{'f' * 5000}": "run.toml: seed is an integer of more than 64 bits: make it smaller.",
    "temperature = false": "run.toml: temperature is false: it must be a number.",
    f"temperature = 1{'0' * 400}": "run.toml: temperature is an integer of more than 64 bits: make it smaller.",
    "json = 1": "run.toml: json is 1: it must be true or false.",
    "help = true": "run.toml: help can't come from a file: give it on the command line.",
    "config = 'other.toml'": "run.toml: config can't come from a file: give it on the command line.",
    "top-k = 1\ntop_k = 1": "run.toml: top_k is given twice, once with - and once with _: remove one of them.",
    "seed = ": "run.toml isn't valid TOML: ",
    "top_p = 2": "top_p is 2.0: it must be a probability from 0 to 1",
}


@pytest.mark.parametrize("toml", ERRORS, ids=lambda toml: toml[:30])
def test_config_error_names_the_key(monkeypatch, capsys, toml):
    with pytest.raises(SystemExit, match="2"):
        to_generate(monkeypatch, toml=toml)
    assert f"error: {ERRORS[toml]}" in capsys.readouterr().err


def test_config_with_an_empty_list_of_files_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        to_train(toml="data = []")
    assert "run.toml: data is empty: give at least one value." in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--stpo=The end", "--stpo The end", "-- The end"])
def test_unknown_option_with_a_space_is_not_taken_as_the_prompt(monkeypatch, capsys, option):
    with pytest.raises(SystemExit, match="2"):
        to_generate(monkeypatch, option)
    hint = " (did you mean --stop?)" if "stpo" in option else ""
    message = f"unrecognized argument {option!r}{hint}: put -- before a prompt that starts with --."
    assert message in capsys.readouterr().err
    assert to_generate(monkeypatch, "--seed", "1", "--", option).prompt == option


@pytest.mark.parametrize("stop", [["--stop", "-- the end"], ["--sto", "-- the end"], ["--stop=-- the end"]])
def test_option_value_may_start_with_dashes(monkeypatch, stop):
    args = to_generate(monkeypatch, *stop, "Tom")
    assert (args.stop, args.prompt) == (["-- the end"], "Tom")


@pytest.mark.parametrize("arguments", [["--data", "--stpo=The end"], ["--data", "a.txt", "--stpo=The end"]])
def test_unknown_option_with_a_space_is_not_taken_as_a_data_file(arguments):
    status, _, err = train(*arguments, "--out", "run")
    assert status == 2
    assert err.endswith(
        "unrecognized argument '--stpo=The end' (did you mean --steps?): put ./ before a file that starts with --.\n"
    )
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--modle storyteller"], "unrecognized argument '--modle storyteller' (did you mean --model?): put -- before"),
        (["a.txt", "--config", "run.toml"], "run.toml: file can't come from a file: give it on the command line."),
    ],
)
def test_evaluate_refuses_an_unknown_option_and_a_file_name_in_config(arguments, message):
    Path("run.toml").write_text("file = 'b.txt'")
    command = [sys.executable, "-m", "numpy_gpt.evaluate", "perplexity", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr
