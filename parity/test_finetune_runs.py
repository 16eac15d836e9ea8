"""Do the finetune commands of both packages compute the same runs, resume each other's, and predict the same?"""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import numpy_gpt
import numpy_gpt.finetune.step
import torch_gpt.finetune.step
from numpy_gpt.checkpoint import safetensors
from numpy_gpt.checkpoint.training_run import MOMENTS

from .compare import FLOAT64, error
from .finetuning import SHORT, TASKS, base_in_float64
from .running import kill_after

pytestmark = pytest.mark.usefixtures("finetuning_directory")
PACKAGES = ("numpy_gpt", "torch_gpt")
SPEED = re.compile(r"  [\d,.]+ (texts|examples)/s")
MODES = {
    "all": [],
    "last block": ["--train", "last"],
    "adapters": ["--lora", "3", "--lora-alpha", "6"],
}
runs = pytest.mark.parametrize(("task", "mode"), [(task, mode) for task in TASKS for mode in MODES])


@pytest.fixture(autouse=True)
def sigint_not_ignored():
    """Handle SIGINT as a command in a terminal does; a background job starts with SIGINT ignored"""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def interrupt_in_step(step, monkeypatch):
    """Send SIGINT to this process in a step, after which a run saves a checkpoint and ends"""
    for trainer in (numpy_gpt.finetune.step.Trainer, torch_gpt.finetune.step.Trainer):

        def interrupted(self, t, *args, take_step=trainer.step):
            if t == step:
                signal.raise_signal(signal.SIGINT)
            return take_step(self, t, *args)

        monkeypatch.setattr(trainer, "step", interrupted)


def log(directory):
    """Return the entries of a run's log as an array, without the speed and the absent rate before the first step"""
    entries = [json.loads(line) for line in Path(directory, "log.jsonl").read_text().splitlines()]
    return np.array([[v for k, v in entry.items() if k != "lr" and not k.endswith("_per_s")] for entry in entries])


def tensors(directory):
    """Return the tensors of a run's model, and those beside it"""
    stored = {}
    for file in ("model.safetensors", MOMENTS):
        stored |= {name: tensor.array for name, tensor in safetensors.read(Path(directory, file))[1].items()}
    return stored


def assert_same_run(a, b, tolerance):
    np.testing.assert_allclose(log(a), log(b), rtol=tolerance)
    ours, theirs = tensors(a), tensors(b)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert error(name, ours, theirs) <= tolerance, name


def assert_same_bits(a, b):
    assert (log(a) == log(b)).all()
    ours, theirs = tensors(a), tensors(b)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].tobytes() == theirs[name].tobytes(), name


@runs
def test_same_options_give_the_same_run_in_both_packages_in_float64(task, mode, finetune):
    base_in_float64()
    results = [finetune(package, *TASKS[task], *SHORT, *MODES[mode], "--out", package) for package in PACKAGES]
    assert [status for status, _, _ in results] == [0, 0]
    assert_same_run(*PACKAGES, FLOAT64)
    assert abs(log("numpy_gpt")[-1, 2] - log("numpy_gpt")[0, 2]) > 0.01  # the losses of training texts
    ours, theirs = (SPEED.sub("", out) for _, out, _ in results)
    assert ours == theirs
    assert ("test accuracy" if task == "classify" else "--- step 16") in ours


@pytest.mark.parametrize("task", TASKS)
def test_same_options_give_the_same_log_in_float32(task, finetune):
    for package in PACKAGES:
        finetune(package, *TASKS[task], *SHORT, "--out", package)
    np.testing.assert_allclose(log("torch_gpt"), log("numpy_gpt"), rtol=3e-5)


@runs
@pytest.mark.parametrize(("first", "second"), [PACKAGES, PACKAGES[::-1]])
def test_either_package_resumes_a_run_of_the_other(task, mode, first, second, finetune, monkeypatch):
    base_in_float64()
    finetune(first, *TASKS[task], *SHORT, *MODES[mode], "--out", "whole")
    with monkeypatch.context() as m:
        interrupt_in_step(6, m)
        status, _, err = finetune(first, *TASKS[task], *SHORT, *MODES[mode], "--out", "run")
    assert status == 130
    assert "stopped after step 6 of" in err
    assert finetune(second, task, "--resume", "--out", "run")[0] == 0
    assert_same_run("run", "whole", FLOAT64)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("mode", "dtype"), [("all", "float32"), ("last block", "float64"), ("adapters", "float64")])
def test_run_resumed_by_torch_is_bit_identical_in_its_dtype(task, mode, dtype, finetune, monkeypatch):
    """Start from weights in float32, and give the dtype to new runs alone"""
    new = [*TASKS[task], *SHORT, *MODES[mode], "--dtype", dtype]
    finetune("torch_gpt", *new, "--out", "whole")
    with monkeypatch.context() as m:
        interrupt_in_step(6, m)
        assert finetune("torch_gpt", *new, "--out", "run")[0] == 130
    status, _, err = finetune("torch_gpt", task, "--resume", "--out", "run")
    assert (status, err) == (0, "")
    assert {a.dtype.name for a in tensors("run").values()} == {dtype}
    assert_same_bits("run", "whole")


@pytest.mark.slow
def test_run_of_torch_resumed_after_sigkill_is_bit_identical():
    """Start the command itself; the pipe of kill_after holds less than the lines of all steps"""
    new = [*TASKS["classify"], *SHORT, *MODES["adapters"], "--epochs", "20", "--eval-every", "1"]
    command = [sys.executable, "-m", "torch_gpt.finetune"]
    subprocess.run([*command, *new, "--out", "whole"], check=True, stdout=subprocess.DEVNULL, timeout=100)
    kill_after(10, "torch_gpt.finetune", *new, "--out", "run")
    assert 9 <= json.loads(Path("run/training.json").read_text())["step"] < 115  # of 120
    subprocess.run(
        [*command, "classify", "--resume", "--out", "run"], check=True, stdout=subprocess.DEVNULL, timeout=100
    )
    assert_same_bits("run", "whole")


LINES = ["red cat runs", "", "now there", "blue bird " * 20, "dog"]  # an empty one, and one longer than the context


def test_both_packages_predict_the_same_labels_and_probabilities(finetune):
    assert finetune("torch_gpt", *TASKS["classify"], *SHORT, "--out", "run")[0] == 0
    Path("lines.txt").write_text("\n".join(LINES))
    results = []
    for package, more in [("numpy_gpt", []), ("torch_gpt", []), ("torch_gpt", ["--dtype", "float64"])]:
        status, out, err = finetune(package, "predict", "run", "-f", "lines.txt", "--json", *more)
        assert (status, err) == (0, "")
        results.append([json.loads(line) for line in out.splitlines()])
    assert {len(result) for result in results} == {len(LINES)}
    for ours, theirs, wide in zip(*results, strict=True):
        assert ours["label"] == theirs["label"] == wide["label"]
        for label, p in ours["probabilities"].items():
            assert theirs["probabilities"][label] == pytest.approx(p, rel=1e-5)
            assert wide["probabilities"][label] == pytest.approx(p, rel=1e-5)


@pytest.mark.parametrize("command", [*TASKS, "predict"])
def test_torch_finetune_on_an_unusable_device_exits_1_and_writes_nothing(command, finetune):
    finetune("numpy_gpt", *TASKS["classify"], *SHORT, "--out", "spam")
    args = ["predict", "spam", "red"] if command == "predict" else [*TASKS[command], *SHORT, "--out", "run"]
    status, out, err = finetune("torch_gpt", *args, "--device", "abacus")
    assert (status, out) == (1, "")
    assert err.startswith("finetune: the device abacus can't be used: ")
    assert err.count("\n") == 1
    assert not Path("run").exists()


def test_torch_finetune_exits_1_with_a_sentence_if_the_device_lacks_the_dtype(finetune, monkeypatch):
    def tensor(a):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")

    monkeypatch.setattr("torch_gpt.finetune.step.tensor", tensor)
    status, _, err = finetune("torch_gpt", *TASKS["classify"], *SHORT, "--out", "run", "--dtype", "float64")
    assert status == 1
    assert re.fullmatch("finetune: the parameters can't be put on .*: Cannot convert a MPS Tensor to float64 .*\n", err)
    assert not Path("run").exists()


def test_several_processes_of_torch_finetune_are_refused(finetune, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    status, _, err = finetune("torch_gpt", *TASKS["classify"], *SHORT, "--out", "run")
    message = "2 processes can't share a run of finetune: start one, without torchrun."
    assert (status, err) == (1, f"finetune: {message}\n")
    assert not Path("run").exists()


FULL = {
    "weights": ("tensor", "choose a smaller model, or train fewer parameters with --train or --lora."),
    "batch": ("Trainer.to_device", "give a smaller --batch-size or --context."),
    "checkpoint": ("to_numpy", "give a smaller --batch-size or --context."),
}


@pytest.mark.parametrize("place", FULL)
def test_torch_finetune_exits_1_with_a_sentence_if_the_gpu_memory_is_full(place, finetune, monkeypatch):
    name, remedy = FULL[place]
    monkeypatch.setattr(f"torch_gpt.finetune.step.{name}", out_of_memory)
    status, _, err = finetune("torch_gpt", *TASKS["instruct"], *SHORT, "--out", "run")
    assert status == 1
    assert f"the GPU's memory is full: {remedy}" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["tensor", "Trainer.to_device"])
def test_torch_predict_exits_1_with_a_sentence_if_the_gpu_memory_is_full(name, finetune, monkeypatch):
    finetune("numpy_gpt", *TASKS["classify"], *SHORT, "--out", "run")
    monkeypatch.setattr(f"torch_gpt.finetune.step.{name}", out_of_memory)
    status, out, err = finetune("torch_gpt", "predict", "run", "red cat")
    assert (status, out, err) == (1, "", "finetune: the GPU's memory is full: give --device cpu.\n")


def out_of_memory(*args, **options):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
