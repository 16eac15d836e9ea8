"""Does odd input to finetune instruct give a result, or a message of one sentence and no new file?"""

import json
import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from finetune_runs import BASE, COMMAND, failed, finetuned
from instruction_runs import ENTRIES, RUN, held_out, response_losses, write_base, write_files
from training_runs import log

from numpy_gpt import load

ONCE = ["--epochs", "1", "--out", "run"]
ENTRY = {"instruction": "sky", "output": "blue"}
USAGE = "python -m numpy_gpt.finetune instruct: error: "


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """Work in a directory that contains a small model, a template and instructions"""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_files()


DATA = {
    "no entry": ("[]", " has no entries: an entry is an object with the texts"),
    "one entry": (json.dumps([ENTRY]), " has one entry: give at least two, one to train on and one to hold out."),
    "other keys": (
        '[{"prompt": "a", "completion": "b"}]',
        ", entry 1 has the keys 'prompt', 'completion': an entry is",
    ),
    "not JSON": ("sky is blue", ", entry 1 isn't valid JSON (Expecting value at line 1, column 1): give a JSON list"),
    "empty output": (json.dumps([ENTRY, {**ENTRY, "output": ""}]), ', entry 2 has an empty "output": add the text, or'),
    "a list of lists": ("[[]]", ", entry 1 is a list: an entry is an object with the texts"),
}


@pytest.mark.parametrize("name", DATA)
def test_invalid_data_are_refused(name, tmp_path):
    content, message = DATA[name]
    Path("data.json").write_text(content)
    status, line = failed("instruct", *RUN, *ONCE)
    assert status == 1
    assert line.startswith(f"finetune: {tmp_path}/data.json{message}")
    assert not Path("run").exists()


def test_invalid_utf8_is_refused_with_its_line(tmp_path):
    Path("data.json").write_bytes(b'{"instruction": "a", "output": "b"}\n{"instruction": "\xff", "output": "c"}\n')
    message = f"finetune: {tmp_path}/data.json isn't UTF-8 text: line 2 has the byte 0xff."
    assert failed("instruct", *RUN, *ONCE) == (1, message)


def test_prompts_that_fill_the_context_are_refused(tmp_path):
    long = {"instruction": "x" * 40, "output": "y"}
    Path("data.json").write_text(json.dumps([ENTRY, long, long]))
    assert failed("instruct", *RUN, *ONCE) == (
        1,
        f"finetune: the prompts of 2 of the 3 entries in {tmp_path}/data.json fill the context of 32 tokens, and a run "
        "needs two others: shorten the entries or the template, or choose a model with a longer context.",
    )
    assert not Path("run").exists()


def test_two_entries_are_one_to_train_on_and_one_held_out():
    Path("data.json").write_text(json.dumps(ENTRIES[:2]))
    assert finetuned("instruct", *RUN, *ONCE).startswith("1 examples to train on, 1 held out\n")
    assert log("run")[-1]["step"] == 1


def test_json_lines_and_a_list_give_the_same_run():
    finetuned("instruct", *RUN, *ONCE)
    Path("data.json").write_text("".join(json.dumps(entry) + "\n" for entry in ENTRIES))
    finetuned("instruct", *RUN, "--epochs", "1", "--out", "lines")
    assert Path("lines/model.safetensors").read_bytes() == Path("run/model.safetensors").read_bytes()


def test_pipe_gives_the_run_of_a_file_and_a_resumed_run_needs_the_data_again(tmp_path):
    os.mkfifo("pipe")
    args = [*RUN, "--data", "pipe", *ONCE]
    writer = Thread(target=Path("pipe").write_text, args=[json.dumps(ENTRIES)])
    writer.start()
    finetuned("instruct", *args)
    writer.join()
    finetuned("instruct", *RUN, "--epochs", "1", "--out", "file")
    assert Path("file/model.safetensors").read_bytes() == Path("run/model.safetensors").read_bytes()
    message = f"finetune: {tmp_path}/pipe can't be read again: give the same data with --data."
    assert failed("instruct", "--resume", "--out", "run", "--epochs", "2") == (1, message)
    finetuned("instruct", "--resume", "--out", "run", "--epochs", "2", "--data", "data.json")


def test_batch_larger_than_the_data_is_a_step_of_all_of_them():
    finetuned("instruct", *RUN, *ONCE, "--batch-size", "1000")
    assert [(entry["step"], entry["examples"]) for entry in log("run")] == [(0, 0), (1, 6)]


def test_config_file_sets_options_that_the_command_line_overrides():
    Path("settings.toml").write_text('batch_size = 2\nepochs = 3\nlr = 0.01\ndata = "data.json"\nlora = 1\n')
    finetuned("instruct", "--config", "settings.toml", *RUN[:2], *RUN[4:6], *ONCE)
    settings = json.loads(Path("run/training.json").read_text())["settings"]
    found = [settings[name] for name in ("batch_size", "epochs", "lr", "lora")]
    assert found == [2, 1, 0.01, 1]


def test_tokenizer_without_endoftext_trains_on_the_responses_alone():
    encoder = json.loads(Path("base/vocab.json").read_text())
    Path("base/vocab.json").write_text(json.dumps({token: i for token, i in encoder.items() if i < 256}))
    out = finetuned("instruct", *RUN, *ONCE)
    assert "--- step 2\n" in out
    assert load("run").tokenizer.eot is None
    expected = response_losses(load("base"), held_out()[0])[:-1].mean()  # the last is of <|endoftext|>
    assert abs(log("run")[0]["val_loss"] - expected) < 1e-5


def test_model_without_a_vocabulary_is_refused():
    for name in ("vocab.json", "merges.txt"):
        Path("base", name).unlink()
    status, line = failed("instruct", *RUN, *ONCE)
    assert status == 1
    assert "has no tokenizer" in line
    assert not Path("run").exists()


TEMPLATES = {
    "no placeholder": ({"prompt": "Q", "prompt_with_input": "Q"}, "prompt lacks {instruction}: write {"),
    "another key": ({"instruction": "Q"}, "has the key 'instruction', and a template has only prompt and"),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_invalid_template_is_refused(name, tmp_path):
    template, message = TEMPLATES[name]
    Path("short.json").write_text(json.dumps(template))
    status, line = failed("instruct", *RUN, *ONCE)
    assert status == 1
    assert line.startswith(f"finetune: {tmp_path}/short.json")
    assert message in line
    assert not Path("run").exists()


def test_learning_rate_that_overflows_ends_the_run_with_a_message():
    status, line = failed("instruct", *RUN, *ONCE, "--lr", "1e20", "--clip", "0", "--epochs", "10")
    assert status == 1
    assert line.startswith("finetune: after step ")
    assert "lower the learning rate." in line


def test_large_learning_rate_gives_a_result_or_a_message():
    for rate in ("1e9", "1e29"):
        command = [*COMMAND, "instruct", *RUN, "--epochs", "3", "--lr", rate, "--out", rate]
        done = subprocess.run(command, capture_output=True, timeout=60)
        lines = done.stderr.decode().splitlines()
        assert (done.returncode, len(lines)) in ((0, 0), (1, 1)), lines
        assert not lines or "lower the learning rate" in lines[0]


USAGES = {
    "no --data": (["--init-from", "base", *ONCE], "--data is missing: give the file to train on."),
    "no --out": (RUN, "--out is missing: give the directory of the run."),
    "no such part": (
        [*RUN, *ONCE, "--train", "first"],
        "--train first isn't a part of a model: choose all, last, or a",
    ),
    "no block": ([*RUN, *ONCE, "--train", "0"], "--train 0 isn't a part of a model: choose all, last, or a"),
    "alpha alone": ([*RUN, *ONCE, "--lora-alpha", "3"], "--lora-alpha and --lora-targets are for adapters: give their"),
    "alpha 0": ([*RUN, *ONCE, "--lora", "2", "--lora-alpha", "0"], "--lora-alpha 0 multiplies the adapters' product"),
    "no target": (
        [*RUN, *ONCE, "--lora", "2", "--lora-targets", "wte"],
        "argument --lora-targets: invalid choice: 'wte'",
    ),
    "a negative rank": ([*RUN, *ONCE, "--lora", "-1"], "--lora is -1: it must be a whole number from 0 to 2**31 - 1."),
    "no batch": (
        [*RUN, *ONCE, "--batch-size", "0"],
        "--batch-size is 0: it must be a whole number from 1 to 2**31 - 1.",
    ),
    "not a number": ([*RUN, *ONCE, "--lr", "nan"], "--lr is nan: it must be a finite number of at least 0 and less"),
    "of classify": ([*RUN, *ONCE, "--balance"], "unrecognized arguments: --balance"),
}


@pytest.mark.parametrize("name", USAGES)
def test_wrong_usage_exits_with_status_2(name):
    args, message = USAGES[name]
    status, line = failed("instruct", *args)
    assert status == 2
    assert line.startswith(USAGE + message)
    assert not Path("run").exists()


PLACES = {
    "a file": ("data.json", "data.json can't be written, since it is a file: choose another directory."),
    "in a file": (
        "data.json/run",
        "data.json/run can't be written, since data.json is a file: choose another directory.",
    ),
    "a model": ("base", "base has a checkpoint: start from it with --init-from base in another directory, or choose"),
    "a file's name": ("run.bin", "run.bin can't be a checkpoint's directory because .bin is a file's suffix: choose a"),
    "someone's log": ("logs", "logs has log.jsonl, which a new run would replace: choose another --out."),
}


@pytest.mark.parametrize("name", PLACES)
def test_directory_of_other_files_is_refused(name):
    Path("logs").mkdir()
    Path("logs/log.jsonl").write_text("mine")
    out, message = PLACES[name]
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    status, line = failed("instruct", *RUN, "--epochs", "1", "--out", out)
    assert status == 1
    assert line.startswith(f"finetune: {message}")
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_second_run_in_the_same_directory_is_refused():
    finetuned("instruct", *RUN, *ONCE)
    message = "finetune: run has a checkpoint: resume it with --resume, or choose another --out."
    assert failed("instruct", *RUN, *ONCE) == (1, message)


MODELS = {
    "a classifier": ("classifier", 3, "is a classifier: use it with python -m numpy_gpt.finetune predict."),
    "nothing": ("nowhere", 3, "nowhere is neither a path nor a model's name: choose one of storyteller, 124M"),
}


@pytest.mark.parametrize("name", MODELS)
def test_model_that_is_no_language_model_is_refused(name):
    Path("rows.tsv").write_text("ham\thello\nspam\tmoney\n" * 20)
    finetuned("classify", "--init-from", "base", "--data", "rows.tsv", "--epochs", "1", "--out", "classifier")
    source, status, message = MODELS[name]
    found = failed("instruct", *RUN[2:], "--init-from", source, *ONCE)
    assert found[0] == status
    assert message in found[1]
    assert not Path("run").exists()


LIMITS = {
    "blocks": (["--train", "3"], "--train 3 is more than the model's 2 blocks: choose at most 2."),
    "context": (["--context", "33"], "allows: choose at most 32."),
}


@pytest.mark.parametrize("name", LIMITS)
def test_option_beyond_the_model_is_refused(name):
    args, message = LIMITS[name]
    status, line = failed("instruct", *RUN, *ONCE, *args)
    assert status == 1
    assert message in line
    assert not Path("run").exists()


@pytest.mark.parametrize(("redirection", "status"), [(">&-", 0), ("2>&-", 0), (">/dev/full", 1), ("| true", 0)])
def test_run_with_a_closed_or_full_stream_is_complete(redirection, status):
    command = shlex.join([*COMMAND, "instruct", *RUN, *ONCE])
    script = f"set -o pipefail; {command} {redirection}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, timeout=60)
    full = b"finetune: the output can't be written: No space left on device.\n"
    assert (done.returncode, done.stderr) == (status, full if status else b"")
    assert log("run")[-1]["step"] == 2
    assert load("run").config == BASE


def test_longer_answers_than_the_context_are_sampled():
    write_base("base", replace(BASE, n_ctx=10))
    out = finetuned("instruct", *RUN, *ONCE)
    assert "--- step 2\n" in out
