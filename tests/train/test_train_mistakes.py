"""Does invalid input fail with a message, and leave every file unchanged?"""

import os
import re
from pathlib import Path

import pytest
from training_runs import SHORT, train, trained

from numpy_gpt import save
from numpy_gpt.checkpoint.layouts import LAYOUTS
from parity.inputs import TINY, random_model

DAMAGED = {
    "a log": ("log.jsonl", '{"step": 0}\n', 1, "log.jsonl isn't the log of a run: move it"),
    "a step": ("training.json", '{"step": null}', 3, "lacks the step, the settings or the text"),
    "no settings": (
        "training.json",
        '{"step": 5, "settings": null, "text": []}',
        3,
        "lacks the step, the settings or the text of its run",
    ),
    "odd settings": (
        "training.json",
        '{"step": 5, "settings": {"data": [1]}, "text": []}',
        3,
        "training.json is corrupt: its checksum isn't the one in moments.safetensors",
    ),
    "an odd rate": (
        "training.json",
        '{"step": 5, "settings": {"lr": null}, "text": []}',
        3,
        "training.json is corrupt",
    ),
    "moments": ("moments.safetensors", "", 3, "moments.safetensors isn't a safetensors file"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_resume_of_a_damaged_run_fails_with_a_message(text, damage):
    trained("--data", text, "--out", "run", *SHORT)
    name, content, status, message = DAMAGED[damage]
    content = content.replace('"step": 5', '"step": 6')
    Path("run", name).write_text(content)
    found, _, err = train("--resume", "--out", "run", "--steps", "9")
    assert (found, err.count("\n")) == (status, 1), err
    assert message in err


@pytest.mark.parametrize("format", LAYOUTS)
def test_resume_without_a_vocabulary_fails_with_a_message(format, text):
    trained("--data", text, "--out", "run", "--format", format, *SHORT)
    names = LAYOUTS[format].vocabulary
    for name in names:
        Path("run", name).unlink()
    status, _, err = train("--resume", "--out", "run", "--steps", "9")
    assert (status, err) == (3, f"train: run lacks {names[0]} and {names[1]}: restore them to resume the run.\n")


MISTAKES = {
    "no --out": (["--data", "text.txt"], 2, "--out is missing: give the directory of the run."),
    "no --data": (["--out", "run"], 2, "--data is missing: give the text to train on."),
    "no file": (["--data", "nowhere", "--out", "run"], 1, "nowhere can't be read: No such file or directory."),
    "a directory": (["--data", ".", "--out", "run"], 1, "can't be read: it is neither a file nor a pipe."),
    "a device": (["--data", "/dev/zero", "--out", "run"], 1, "/dev/zero can't be read: it is neither a file nor a"),
    "an empty file": (
        ["--data", "empty", "--out", "run"],
        1,
        "there are 0 tokens to train on, and --context 64 needs at least 65: give more text.",
    ),
    "a short file": (
        ["--data", "short", "--out", "run"],
        1,
        "there are 52 tokens to train on, and --context 64 needs at least 65",
    ),
    "a short validation file": (
        ["--data", "text.txt", "--val-data", "tiny", "--out", "run"],
        1,
        "there are 1 tokens to validate with, and --context 64 needs at least 2",
    ),
    "missing parents": (["--data", "empty", "--out", "new/parent/run"], 1, "there are 0 tokens to train on"),
    "an existing directory": (["--data", "empty", "--out", "folder"], 1, "there are 0 tokens to train on"),
    "a long name": (["--data", "text.txt", "--out", f"new/{'x' * 300}"], 1, "File name too long"),
    "no UTF-8": (["--data", "latin", "--out", "run"], 1, "latin isn't UTF-8 text: byte 3 is 0xe9."),
    "a file as a parent": (
        ["--data", "text.txt", "--out", "text.txt/run"],
        1,
        "text.txt/run can't be written, since text.txt is a file: choose another directory.",
    ),
    "a text as a directory": (
        ["--data", "text.txt", "--out", "text.txt"],
        1,
        "text.txt can't be written, since it is a file: choose another directory.",
    ),
    "a file as a directory": (
        ["--data", "text.txt", "--out", "short"],
        1,
        "short can't be written, since it is a file: choose another directory.",
    ),
    "a read-only directory": (
        ["--data", "text.txt", "--out", "/proc"],
        1,
        "/proc/.lock can't be written",
    ),
    "a directory with a checkpoint": (
        ["--data", "text.txt", "--out", "model"],
        1,
        "model has a checkpoint: start from it with --init-from model in another directory, or choose another --out",
    ),
    "nothing to resume": (["--resume", "--out", "nowhere"], 1, "nowhere doesn't exist: leave --resume out"),
    "a broken link to resume": (["--resume", "--out", "broken"], 1, "broken is a file or a broken link: give the dir"),
    "a loop of links to resume": (["--resume", "--out", "loop"], 1, "loop is a file or a broken link: give the dir"),
    "a file to resume": (["--resume", "--out", "empty"], 1, "empty is a file or a broken link: give the directory"),
    "a run without a checkpoint": (["--resume", "--out", "empty run"], 1, "has no checkpoint yet: leave --resume out"),
    "a NUL in a name": (["--config", "nul.toml"], 1, "can't be made a directory"),
    "a large batch": (
        ["--data", "text.txt", "--out", "run", "--batch-size", "9" * 50],
        2,
        "must be a whole number from 1 to",
    ),
    "a checkpoint without a run": (
        ["--resume", "--out", "model"],
        3,
        "model isn't a training run, since it has no training.json: start from its model with --init-from model",
    ),
    "heads": (["--data", "text.txt", "--out", "run", "--n-head", "3"], 2, "n_embd 128 is not divisible by n_head 3"),
    "no steps": (["--data", "text.txt", "--out", "run", "--steps", "0"], 2, "--steps is 0: it must be a whole number"),
    "a learning rate": (["--data", "text.txt", "--out", "run", "--lr", "nan"], 2, "--lr is nan: it must be a finite"),
    "a beta": (["--data", "text.txt", "--out", "run", "--beta2", "1"], 2, "--beta2 is 1.0: it must be a finite number"),
    "no eps": (
        ["--data", "text.txt", "--out", "run", "--eps", "0"],
        2,
        "--eps 0.0 is too small: in float32 it must be at least 1.2e-37",
    ),
    "an eps beyond float32": (
        ["--data", "text.txt", "--out", "run", "--eps", "1e-50"],
        2,
        "--eps 1e-50 is too small: in float32 it must be at least 1.2e-37",
    ),
    "a seed": (
        ["--data", "text.txt", "--out", "run", "--seed", str(2**64)],
        2,
        "--seed is 18446744073709551616: it must be a whole number from 0 to 2**64 - 1",
    ),
    "rates": (
        ["--data", "text.txt", "--out", "run", "--lr", "1e-4", "--min-lr", "1"],
        2,
        "--min-lr 1.0 is above --lr 0.0001",
    ),
    "a tokenizer": (
        ["--data", "text.txt", "--out", "run", "--tokenizer", "bpe:x"],
        2,
        "--tokenizer 'bpe:x' has no number",
    ),
    "a tokenizer of few tokens": (
        ["--data", "text.txt", "--out", "run", "--tokenizer", "bpe:256"],
        2,
        "--tokenizer bpe:256 is too small: choose at least 257, for the bytes and <|endoftext|>.",
    ),
    "too many tokens": (
        ["--data", "text.txt", "--out", "run", "--tokenizer", "bpe:9999"],
        1,
        "--tokenizer bpe:9999 is more than this text has pairs of tokens for: choose at most bpe:",
    ),
    "no such tokenizer": (["--data", "text.txt", "--out", "run", "--tokenizer", "words"], 3, "words is neither a path"),
    "no such model": (["--data", "text.txt", "--out", "run", "--init-from", "words"], 3, "words is neither a path"),
    "a model without tokenizer": (["--data", "text.txt", "--out", "run", "--init-from", "model"], 1, "no tokenizer"),
    "a shape that is given": (
        ["--data", "text.txt", "--out", "run", "--init-from", "model", "--n-layer", "3"],
        2,
        "--n-layer is for a new model, not for --init-from model: leave one of them out.",
    ),
    "a long context": (
        ["--data", "text.txt", "--out", "run", "--init-from", "storyteller", "--context", "999"],
        1,
        "--context 999 is longer than storyteller allows: choose at most 256.",
    ),
    "no such file of options": (["--config", "nowhere.toml", "--out", "run"], 2, "nowhere.toml can't be read: No such"),
    "no TOML": (["--config", "text.txt", "--out", "run"], 2, "text.txt isn't valid TOML: "),
    "an unknown option in a file": (
        ["--config", "bad.toml", "--out", "run"],
        2,
        "bad.toml: n_layers is an unknown option (did you mean n-layer?).",
    ),
    "an invalid value in a file": (
        ["--config", "odd.toml", "--out", "run"],
        2,
        "odd.toml: steps is 3.5: it must be an integer.",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_train_with_invalid_input_fails_with_a_message_and_changes_no_file(text, mistake):
    args, status, message = MISTAKES[mistake]
    for name, content in {"empty": b"", "short": b"b" * 58, "tiny": b"a", "latin": b"caf\xe9"}.items():
        Path(name).write_bytes(content)
    Path("empty run").mkdir()
    Path("folder").mkdir()
    Path("broken").symlink_to("nowhere")
    Path("loop").symlink_to("loop")
    Path("folder/notes.txt").write_text("notes")
    Path("nul.toml").write_text('data = ["text.txt"]\nout = "a\\u0000b"')
    Path("bad.toml").write_text("n_layers = 3")
    Path("odd.toml").write_text("steps = 3.5")
    save(random_model(TINY), "model")
    before = {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")}
    found, out, err = train(*args)
    assert found == status, err
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    after = {path: path.is_file() and path.read_bytes() for path in Path().rglob("*") if path.parts[0] != "cache"}
    assert after == before


def test_train_in_a_deleted_directory_fails_with_a_message(text):
    Path("deleted").mkdir()
    os.chdir("deleted")
    Path().absolute().rmdir()
    status, out, err = train("--data", "text.txt", "--out", "run")
    assert (status, out) == (2, "")
    assert err.endswith("error: the working directory was deleted: change to another one.\n")


@pytest.mark.parametrize("option", [["--lr", "0.01"], ["--n-layer", "2"], ["--seed", "1"], ["--tokenizer", "bpe:300"]])
def test_resume_with_another_option_is_refused(text, option):
    trained("--data", text, "--out", "run", *SHORT)
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    status, _, err = train("--resume", "--out", "run", "--steps", "9", *option)
    assert status == 2
    differs = (
        rf"{option[0]} {option[1]} differs from \S+, with which the run was started: leave the option out, or start"
    )
    assert re.search(differs, err)
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == before
    assert train("--resume", "--out", "run", *SHORT)[0] == 0  # equal options are accepted


def test_resume_with_another_format_is_refused(text):
    trained("--data", text, "--out", "run", *SHORT)
    status, _, err = train("--resume", "--out", "run", "--steps", "9", "--format", "openai")
    assert (status, err) == (
        1,
        "train: --format is openai, and the run in run is in Hugging Face's layout: leave it out.\n",
    )
    trained("--resume", "--out", "run", "--steps", "9", "--format", "huggingface")
