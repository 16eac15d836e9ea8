"""Is an interrupted run of finetune instruct resumed bit by bit, and is every other resumption refused?"""

import json
import signal
from pathlib import Path

import pytest
from finetune_runs import COMMAND, assert_same, failed, finetune, finetuned
from instruction_runs import ENTRIES, RUN, SHORT, write_files
from training_runs import kill_after, train

from numpy_gpt import load, named, save
from numpy_gpt.checkpoint import read_checkpoint
from numpy_gpt.finetune import run_files

LONG = [*RUN, "--epochs", "60", "--eval-every", "1", "--save-every", "10", "--sample-every", "50"]
STEPS = 120  # 6 entries to train on in batches of 3
KINDS = {"all": [], "last": ["--train", "last", "--dropout", "0.2"], "lora": ["--lora", "2", "--lora-alpha", "5"]}

SIGNALS = [(kind, signal.SIGKILL, -9) for kind in KINDS] + [(kind, signal.SIGINT, 130) for kind in ("all", "lora")]


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """Work in a directory that contains a small model, a template and instructions"""
    monkeypatch.chdir(tmp_path)
    write_files()


def step_of(run):
    return json.loads(Path(run, "training.json").read_text())["step"]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "number", "status"), SIGNALS)
def test_resume_after_a_signal_is_bit_identical(kind, number, status):
    finetuned("instruct", *LONG, *KINDS[kind], "--out", "whole")
    args = ["instruct", *LONG, *KINDS[kind], "--out", "run"]
    found, err = kill_after(25, *args, number=number, command=COMMAND)
    assert found == status
    assert 20 <= step_of("run") < STEPS
    if number == signal.SIGINT:
        assert f"finetune: stopped after step {step_of('run')} of {STEPS}. The checkpoint of step" in err
        assert err.endswith(" is in run, for --resume or generate --instruct.\n")
    finetuned("instruct", "--resume", "--out", "run")
    assert_same("run", "whole")


@pytest.mark.parametrize("kind", KINDS)
def test_resume_with_more_epochs_continues_with_the_weights_and_the_moments(kind):
    """Cut a run after its second step by a schedule of two steps, whose learning rate is constant"""
    rates = ["--lr", "0.01", "--min-lr", "0.01", "--warmup", "0", "--eval-every", "2", "--save-every", "2"]
    args = [*RUN, *KINDS[kind], *rates, "--sample-every", "2"]
    finetuned("instruct", *args, "--epochs", "3", "--out", "whole")
    finetuned("instruct", *args, "--epochs", "1", "--out", "run")
    assert step_of("run") == 2
    finetuned("instruct", "--resume", "--out", "run", "--epochs", "3")
    assert_same("run", "whole")


def test_complete_run_prints_a_note_and_stays_as_it_is():
    finetuned("instruct", *RUN, "--epochs", "1", "--lora", "2", "--out", "run")
    before = contents("run")
    assert finetune("instruct", "--resume", "--out", "run") == (
        0,
        "",
        "finetune: run has done all of its 2 steps: give more --epochs to resume it.\n",
    )
    assert contents("run") == before


def contents(run):
    return {path: path.read_bytes() for path in Path(run).rglob("*") if path.is_file()}


@pytest.fixture
def run():
    """Make a run with adapters, which reads its base again when it is resumed"""
    finetuned("instruct", *RUN, "--epochs", "1", "--lora", "2", "--lr", "0.01", "--out", "run")


def test_resume_accepts_moved_files_with_the_same_contents(run, tmp_path):
    for name in ("base", "data.json", "short.json"):
        Path(name).rename(f"moved-{name}")
    moved = ["--data", "moved-data.json", "--template", "moved-short.json", "--init-from", "moved-base"]
    finetuned("instruct", "--resume", "--out", "run", "--epochs", "2", *moved)
    assert step_of("run") == 4
    finetuned("instruct", "--resume", "--out", "run", "--epochs", "3")
    assert step_of("run") == 6


def test_resume_in_another_directory_finds_the_files_of_a_run(run, tmp_path, monkeypatch):
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    finetuned("instruct", "--resume", "--out", "../run", "--epochs", "2")
    finetuned("merge", "../run/adapter", "--out", "merged")
    merged = dict(named(load("merged").params))
    assert all((p == merged[name]).all() for name, p in named(load("../run").params))


def test_resume_needs_neither_the_template_nor_the_base_of_a_run_without_adapters():
    finetuned("instruct", *RUN, "--epochs", "1", "--out", "run")
    for path in Path("base").iterdir():
        path.unlink()
    Path("short.json").unlink()
    finetuned("instruct", "--resume", "--out", "run", "--epochs", "2")
    assert read_checkpoint(Path("run")).template == SHORT


CHANGES = {
    "data": ("data.json", json.dumps(ENTRIES[1:]), ["--data", "data.json"], "the data in {0}/data.json isn't the one"),
    "stored data": ("data.json", json.dumps(ENTRIES[1:]), [], "the data in {0}/data.json isn't the one that run was"),
    "template": (
        "short.json",
        json.dumps({"prompt": "{instruction}", "prompt_with_input": "{instruction}{input}"}),
        ["--template", "short.json"],
        "the template in {0}/short.json isn't the one that run was started with: restore it, or start a new run.",
    ),
    "base": (
        None,
        "",
        ["--init-from", "other"],
        "the model {0}/other isn't the one that run was started with: restore",
    ),
    "released base": (None, "", ["--init-from", "storyteller"], "the model storyteller isn't the one that run was"),
    "lost data": ("data.json", None, [], "{0}/data.json can't be read again: give the same data with --data."),
    "moved base": (
        "base",
        None,
        [],
        "{0}/base, the model that the run was started from, doesn't exist: give its new path with --init-from.",
    ),
    "lost adapter": (
        "run/adapter/adapter_model.safetensors",
        None,
        [],
        "run/adapter has adapter_config.json, and no adapter that it belongs to: remove it, or choose another",
    ),
    "lost base": ("base/model.safetensors", None, [], "{0}/base has no checkpoint"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_resume_with_a_changed_file_is_refused(name, run, tmp_path):
    file, content, args, message = CHANGES[name]
    m = load("base")
    m.params.ln_f.g[0] = 2
    save(m, "other")
    if file and content is None:
        Path(file).rename("moved")
    elif file:
        Path(file).write_text(content)
    before = contents("run")
    _, line = failed("instruct", "--resume", "--out", "run", "--epochs", "2", *args)
    assert message.format(tmp_path) in line
    assert contents("run") == before


OPTIONS = {
    "--train last": "all",
    "--lora 0": "2",
    "--lora-alpha 3.0": "2.0",
    "--lora-targets attn.c_attn": "attn.c_attn attn.c_proj mlp.c_fc mlp.c_proj",
    "--context 8": "32",
    "--batch-size 4": "3",
    "--lr 0.5": "0.01",
    "--seed 1": "0",
}


@pytest.mark.parametrize("option", OPTIONS)
def test_resume_with_another_option_is_refused(option, run):
    line = failed("instruct", "--resume", "--out", "run", "--epochs", "2", *option.split())
    assert line == (
        2,
        f"python -m numpy_gpt.finetune instruct: error: {option} differs from {OPTIONS[option]}, with which the run "
        "was started: leave the option out, or start a new run.",
    )


def test_resume_without_adapters_refuses_another_base():
    finetuned("instruct", *RUN, "--epochs", "1", "--out", "run")
    status, line = failed("instruct", "--resume", "--out", "run", "--epochs", "2", "--init-from", "storyteller")
    assert status == 2
    assert "--init-from storyteller differs from" in line


def test_resume_of_a_run_of_another_command_is_refused():
    Path("rows.tsv").write_text("ham\thello\nspam\tmoney\n" * 20)
    finetuned("classify", "--init-from", "base", "--data", "rows.tsv", "--epochs", "1", "--out", "classifier")
    finetuned("instruct", *RUN, "--epochs", "1", "--out", "run")
    Path("text.txt").write_text("hello " * 500)
    small = ["--init-from", "base", "--context", "8", "--steps", "1"]
    assert train("--data", "text.txt", *small, "--out", "trained")[::2] == (0, "")
    message = "{} has a run of python -m numpy_gpt.{}: resume it with that command."
    for command, out, right in (
        ("instruct", "classifier", "finetune classify"),
        ("classify", "run", "finetune instruct"),
        ("instruct", "trained", "train"),
    ):
        before = contents(out)
        assert failed(command, "--resume", "--out", out) == (1, "finetune: " + message.format(out, right))
        assert contents(out) == before
    for out, right in (("classifier", "finetune classify"), ("run", "finetune instruct")):
        status, _, err = train("--resume", "--out", out)
        assert (status, err) == (1, f"train: {message.format(out, right)}\n")


PLACES = {
    "nowhere": "nowhere doesn't exist: leave --resume out to start a run.",
    "data.json": "data.json is a file or a broken link: give the directory of a run.",
    "base": "base has no checkpoint of a run yet: leave --resume out to start one.",
}


@pytest.mark.parametrize("place", PLACES)
def test_resume_of_no_run_is_refused(place):
    assert failed("instruct", "--resume", "--out", place) == (1, f"finetune: {PLACES[place]}")


@pytest.mark.parametrize("file", ["model.safetensors", "moments.safetensors", "training.json"])
def test_resume_of_a_damaged_run_is_refused(file, run):
    finetuned("instruct", *RUN, "--epochs", "1", "--out", "run2")
    for out in ("run", "run2"):
        content = bytearray(Path(out, file).read_bytes())
        content[-9] ^= 1
        Path(out, file).write_bytes(content)
    status, line = failed("instruct", "--resume", "--out", "run2", "--epochs", "2")
    assert status == 3
    assert "is corrupt" in line
    if file != "model.safetensors":  # with adapters, the merged weights aren't read
        assert failed("instruct", "--resume", "--out", "run", "--epochs", "2")[0] == 3


def test_run_killed_after_its_last_save_has_its_last_adapters(monkeypatch):
    args = [*RUN, "--lora", "2", "--epochs", "2", "--sample-every", "0"]
    finetuned("instruct", *args, "--out", "whole")
    save, saves = run_files.save, []

    def interrupted(*args):
        save(*args)
        saves.append(args)
        if len(saves) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_files, "save", interrupted)
        assert finetune("instruct", *args, "--out", "run")[0] == 130
    assert step_of("run") == 4
    assert_same("run", "whole")
