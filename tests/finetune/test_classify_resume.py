"""Is a classification run resumed bit by bit, and is every other resumption refused with a message?"""

import json
import signal
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import pytest
from finetune_runs import assert_same, failed, finetune, finetuned, write_base, write_rows
from signals import not_ignored
from training_runs import log

from numpy_gpt import Config, init, save
from numpy_gpt.checkpoint import safetensors
from numpy_gpt.text import bpe

RUN = ["--init-from", "base", "--data", "rows.tsv", "--batch-size", "8", "--epochs", "2"]
STEPS = 12
EVERY = ["--eval-every", "2", "--save-every", "5"]

SIGNAL_AFTER = """
import os, sys
from numpy_gpt.finetune import __main__ as command
from numpy_gpt.{module} import {owner} as owner

function, calls = owner.{name}, 0
last, number = map(int, sys.argv[1:3])

def with_signal(*args):
    global calls
    result = {before}
    calls += 1
    if calls == last:
        os.kill(os.getpid(), number)
    return result or function(*args)

owner.{name} = with_signal
sys.argv[1:] = sys.argv[3:]
sys.exit(command.run("finetune", command.main))
"""


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    """Work in a directory that contains a small model and a table of texts"""
    monkeypatch.chdir(tmp_path)
    write_base("base")
    write_rows("rows.tsv")


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """Return the directory of a complete run"""
    directory = tmp_path_factory.mktemp("complete")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        write_base("base")
        write_rows("rows.tsv")
        finetuned("classify", *RUN, "--out", "run")
    return directory / "run"


def interrupted(script, calls, number, *args):
    """Start a run that sends itself a signal at this call of a function; return its exit status and stderr"""
    command = [sys.executable, "-c", script, str(calls), str(int(number)), "classify", *args]
    done = subprocess.run(command, capture_output=True, preexec_fn=not_ignored(number), timeout=60)
    return done.returncode, done.stderr.decode()


STEP = SIGNAL_AFTER.format(module="train.loop", owner="Run", name="advance", before="function(*args) or True")
SAVE = SIGNAL_AFTER.format(module="finetune", owner="run_files", name="save", before="None")
slow = pytest.mark.slow
PARTS = [
    ["--train", "last"],
    ["--lora", "2", "--dropout", "0.1"],
    pytest.param([], marks=slow),
    pytest.param(["--train", "head"], marks=slow),
    pytest.param(["--lora", "2", "--train", "1", "--lora-targets", "mlp.c_fc"], marks=slow),
]


def step(run):
    return json.loads(Path(run, "training.json").read_text())["step"]


@pytest.mark.parametrize("options", PARTS)
def test_resume_after_sigkill_is_bit_identical(options):
    finetuned("classify", *RUN, *EVERY, *options, "--out", "whole")
    assert interrupted(STEP, 8, signal.SIGKILL, *RUN, *EVERY, *options, "--out", "run") == (-9, "")
    assert step("run") == 5
    assert log("run")[-1]["step"] == 6
    out = finetuned("classify", "--resume", "--out", "run")
    assert [line.split()[1] for line in out.splitlines() if line.startswith("step ")] == ["6", "8", "10", "12"]
    assert_same("whole", "run")


@pytest.mark.slow
def test_lora_run_that_is_killed_between_adapters_and_model_is_resumed_bit_by_bit():
    args = [*RUN, *EVERY, "--lora", "2"]
    finetuned("classify", *args, "--out", "whole")
    for calls in (1, 3):  # the first checkpoint, and the last one
        assert interrupted(SAVE, calls, signal.SIGKILL, *args, "--out", "run") == (-9, "")
        assert Path("run/adapter/adapter_model.safetensors").exists()
        assert Path("run/model.safetensors").exists() == (calls > 1)
        if calls == 1:
            assert failed("classify", "--resume", "--out", "run") == (1, f"finetune: run {NO_RUN}")
    assert step("run") == 10
    finetuned("classify", "--resume", "--out", "run")
    assert_same("whole", "run")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_signal_ends_run_with_a_checkpoint_of_its_last_step(number, status):
    finetuned("classify", *RUN, *EVERY, "--out", "whole")
    found, err = interrupted(STEP, 7, number, *RUN, *EVERY, "--out", "run")
    assert found == status
    notice, ended = err.splitlines()
    assert notice.startswith("finetune: saving a checkpoint after this step")
    place = "The checkpoint of step 7 is in run, for --resume or predict."
    assert ended == f"finetune: stopped after step 7 of {STEPS}. {place}"
    assert finetuned("predict", "run", "pear").count("\n") == 1
    finetuned("classify", "--resume", "--out", "run")
    assert_same("whole", "run")


@pytest.mark.parametrize("epochs", [[], ["--epochs", "1"]])
@pytest.mark.parametrize("options", [[], pytest.param(["--lora", "2"], marks=slow)])
def test_resume_of_a_complete_run_prints_its_report_again(options, epochs):
    first = finetuned("classify", *RUN, *options, "--out", "run")
    before = {path: path.read_bytes() for path in Path("run").iterdir() if path.is_file()}
    status, out, err = finetune("classify", "--resume", "--out", "run", *epochs)
    assert (status, err) == (0, "finetune: run has done all of its 12 steps: give more --epochs to resume it.\n")
    assert out.splitlines() == [line for line in first.splitlines() if not line.startswith("step ")]
    assert {path: path.read_bytes() for path in Path("run").iterdir() if path.is_file()} == before
    status, out, _ = finetune("classify", "--resume", "--out", "run", "--json")
    assert f"test accuracy {json.loads(out)['test']['accuracy']:.3f}" == first.splitlines()[-1]


def test_resume_with_more_epochs_continues_the_log(complete):
    copytree(complete, "run")
    out = finetuned("classify", "--resume", "--out", "run", "--epochs", "3")
    assert out.splitlines()[-1].startswith("test accuracy ")
    assert [entry["step"] for entry in log("run")] == [0, 6, 12, 18]
    assert step("run") == 18


@pytest.mark.parametrize("options", [["--lora", "2"], []])
def test_resume_accepts_moved_files(options, monkeypatch):
    finetuned("classify", *RUN, "--out", "run", *options)
    Path("rows.tsv").rename("moved.tsv")
    Path("base").rename("moved")
    Path("other").mkdir()
    monkeypatch.chdir("other")
    base = ["--init-from", "../moved"] if options else []  # other runs don't read it again
    finetuned("classify", "--resume", "--out", "../run", "--epochs", "3", "--data", "../moved.tsv", *base)
    assert step("../run") == 18
    finetuned("classify", "--resume", "--out", "../run", "--epochs", "4")
    assert step("../run") == 24


def test_lora_run_is_resumed_in_another_working_directory(monkeypatch):
    finetuned("classify", *RUN, "--out", "run", "--lora", "2")
    Path("other").mkdir()
    monkeypatch.chdir("other")
    finetuned("classify", "--resume", "--out", "../run", "--epochs", "3")
    assert step("../run") == 18


NO_RUN = "has no checkpoint of a run yet: leave --resume out to start one."
DIFFERS = ", with which the run was started: leave the option out, or start a new run."
CLASSIFY = "has a run of python -m numpy_gpt.finetune classify: resume it with that command."


@pytest.mark.parametrize(
    ("options", "status", "line"),
    [
        (["--lr", "0.5"], 2, "--lr 0.5 differs from 0.00725" + DIFFERS),
        (["--train", "last"], 2, "--train last differs from all" + DIFFERS),
        (["--lora", "2"], 2, "--lora 2 differs from 0" + DIFFERS),
        (["--seed", "1"], 2, "--seed 1 differs from 0" + DIFFERS),
        (["--context", "5"], 2, "--context 5 differs from 32" + DIFFERS),
        (["--init-from", "storyteller"], 2, "/base" + DIFFERS),
        (
            ["--data", "other.tsv"],
            1,
            "/other.tsv isn't the one that run was started with: restore it, or start a new run.",
        ),
        (["--data", "nowhere.tsv"], 1, "/nowhere.tsv can't be read: No such file or directory."),
        (["--epochs", "0"], 2, "--epochs is 0: it must be a whole number from 1 to 2**31 - 1."),
    ],
)
def test_resume_with_another_option_is_refused(options, status, line, complete):
    copytree(complete, "run")
    write_rows("other.tsv", 58)
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    found, last = failed("classify", "--resume", "--out", "run", "--epochs", "3", *options)
    assert found == status
    assert last.endswith(line)
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == before


@pytest.mark.parametrize("change", ["a weight", "the shape", "a word embedding's sign"])
def test_lora_run_is_refused_if_its_base_model_changed(change):
    finetuned("classify", *RUN, "--out", "run", "--lora", "2")
    config = Config(n_vocab=257, n_ctx=32, n_embd=8 if change == "the shape" else 16, n_head=2, n_layer=2)
    m = init(config, 3)._replace(tokenizer=bpe.tokenizer([]))
    if change == "a weight":
        m.params.h[1].mlp.c_fc.w[3, 5] += 1e-6
    elif change == "a word embedding's sign":
        m.params.wte[7, 7] *= -1
    save(m, "base")
    status, line = failed("classify", "--resume", "--out", "run", "--epochs", "3")
    assert status == 1
    assert line.endswith("/base isn't the one that run was started with: restore it, or start a new run.")


@pytest.mark.parametrize(
    ("out", "line"),
    [
        ("nowhere", "nowhere doesn't exist: leave --resume out to start a run."),
        ("rows.tsv", "rows.tsv is a file or a broken link: give the directory of a run."),
        ("base", f"base {NO_RUN}"),
    ],
)
def test_resume_without_a_run_is_refused(out, line):
    assert failed("classify", "--resume", "--out", out) == (1, f"finetune: {line}")


@pytest.mark.slow
def test_run_is_resumed_by_its_own_command_alone(complete):
    copytree(complete, "run")
    assert failed("instruct", "--resume", "--out", "run", "--epochs", "3") == (1, f"finetune: run {CLASSIFY}")
    command = [sys.executable, "-m", "numpy_gpt.train", "--resume", "--out", "run", "--steps", "99"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, f"train: run {CLASSIFY}\n")
    args = ["--data", "rows.tsv", "--tokenizer", "bytes", "--n-layer", "1", "--n-head", "1", "--n-embd", "4"]
    command = [sys.executable, "-m", "numpy_gpt.train", *args, "--steps", "1", "--out", "pretrained"]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    line = "pretrained has a run of python -m numpy_gpt.train: resume it with that command."
    assert failed("classify", "--resume", "--out", "pretrained") == (1, f"finetune: {line}")


@pytest.mark.parametrize("name", ["model.safetensors", "moments.safetensors", "training.json"])
def test_resume_from_a_corrupt_file_is_refused(name, complete):
    copytree(complete, "run")
    content = bytearray(Path("run", name).read_bytes())
    content[-3] ^= 1
    Path("run", name).write_bytes(content)
    status, line = failed("classify", "--resume", "--out", "run", "--epochs", "3")
    assert status == 3
    assert "run" in line


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_resume_without_a_vocabulary_is_refused(name, complete):
    copytree(complete, "run")
    Path("run", name).unlink()
    _, line = failed("classify", "--resume", "--out", "run", "--epochs", "3")
    assert line.startswith("finetune: run has no tokenizer: put the vocabulary")


def test_resume_without_a_moment_is_refused(complete):
    copytree(complete, "run")
    path = Path("run/moments.safetensors")
    metadata, found = safetensors.read(path)
    arrays = {name: stored.array.copy() for name, stored in found.items() if name != "v.head.w"}
    del metadata[safetensors.CHECKSUMS]
    with open(path, "wb") as f:
        safetensors.write(f, arrays, "float32", metadata)
    status, line = failed("classify", "--resume", "--out", "run", "--epochs", "3")
    assert status == 3
    assert "run/moments.safetensors has no tensor v.head.w of the shape (2, 16) in float32: restore" in line
