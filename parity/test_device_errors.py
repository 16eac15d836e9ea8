"""Test that full memory and missing GPUs are reported in a sentence."""

import sys
from pathlib import Path

import pytest
import torch

import torch_gpt
from numpy_gpt import GPTError
from numpy_gpt.generate.__main__ import main as generate_main
from numpy_gpt.system.cli import run
from torch_gpt import generate, params
from torch_gpt.generate.__main__ import TORCH
from torch_gpt.params import check_target, explained_memory_errors
from torch_gpt.train import __main__ as train_command

from .inputs import TINY, random_model

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has 1.00 GiB left.")
STEP = ["--n-layer", "1", "--n-head", "2", "--n-embd", "8", "--context", "8", "--batch-size", "2", "--steps", "5"]


def out_of_memory(*args, **options):
    raise FULL


@pytest.mark.parametrize("compiled", [False, True])
def test_full_gpu_memory_while_decoding_is_a_gpt_error(compiled, monkeypatch):
    monkeypatch.setattr(generate, "gpt2_next", out_of_memory)
    monkeypatch.setattr("torch_gpt.fast.compiled.gpt2_next", out_of_memory)
    with pytest.raises(GPTError, match="the GPU's memory is full: draw fewer samples or tokens at once"):
        torch_gpt.complete(torch_gpt.init(TINY), [1, 2], compiled=compiled)


def test_full_memory_of_the_host_while_decoding_is_a_memory_error(monkeypatch):
    monkeypatch.setattr(generate, "gpt2_next", lambda *args: torch.empty(2**60))
    with pytest.raises(MemoryError):
        torch_gpt.complete(torch_gpt.init(TINY), [1, 2])


@pytest.mark.parametrize("step", ["CompiledStep.__init__", "CompiledStep.draw"])
def test_full_gpu_memory_in_a_compiled_step_is_a_gpt_error(step, monkeypatch):
    monkeypatch.setattr(f"torch_gpt.fast.compiled_step.{step}", out_of_memory)
    with pytest.raises(GPTError, match="the GPU's memory is full: draw fewer samples or tokens at once"):
        torch_gpt.complete(torch_gpt.init(TINY), [1, 2], compiled=True)


@pytest.mark.parametrize("flags", [[], ["--compile"]])
def test_generate_exits_1_with_a_sentence_if_the_gpu_memory_is_full(flags, monkeypatch, capsys):
    monkeypatch.setattr(generate, "new_kv", out_of_memory)
    monkeypatch.setattr("torch_gpt.fast.compiled.new_kv", out_of_memory)
    monkeypatch.setattr(sys, "argv", ["generate", "Once", "--seed", "1", "--device", "cpu", *flags])
    assert run("generate", lambda: generate_main(TORCH)) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("generate: the GPU's memory is full: draw fewer samples or tokens at once")


def test_generate_exits_1_with_a_sentence_if_the_weights_do_not_fit_the_gpu(monkeypatch, capsys):
    monkeypatch.setattr(params, "tensor", out_of_memory)
    monkeypatch.setattr(sys, "argv", ["generate", "Once", "--device", "cpu"])
    assert run("generate", lambda: generate_main(TORCH)) == 1
    message = "the GPU's memory is full: choose a smaller model, a smaller dtype or another device."
    assert capsys.readouterr().err == f"generate: {message}\n"


@pytest.mark.parametrize("benchmark", [[], ["--benchmark"]], ids=["training", "benchmark"])
@pytest.mark.parametrize(
    ("place", "remedy"),
    [("torch_gpt.train.step.GPT", "train a smaller model"), ("torch_gpt.train.step.GPT.forward", "give a smaller")],
)
def test_train_exits_1_with_a_sentence_if_the_gpu_memory_is_full(
    place, remedy, benchmark, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("Once upon a time. " * 99)
    monkeypatch.setattr(place, out_of_memory)
    files = benchmark or ["--data", "text.txt", "--out", "run"]
    monkeypatch.setattr(sys, "argv", ["train", *files, *STEP, "--device", "cpu"])
    assert run("train", train_command.main) == 1
    assert f"the GPU's memory is full: {remedy}" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "backend='inductor' raised:\nOutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
    ],
)
def test_full_memory_that_pytorch_reports_as_a_runtime_error_is_a_gpt_error(text):
    with pytest.raises(GPTError, match="the GPU's memory is full: use less"), explained_memory_errors("use less."):
        raise RuntimeError(text)


def test_other_runtime_error_is_not_explained_as_full_memory():
    with pytest.raises(RuntimeError, match="size mismatch"), explained_memory_errors("use less."):
        raise RuntimeError("size mismatch")


def test_full_memory_of_the_host_while_loading_is_a_memory_error(monkeypatch):
    monkeypatch.setattr(params, "tensor", lambda a: torch.empty(2**60))
    with pytest.raises(MemoryError):
        torch_gpt.from_numpy(random_model(TINY))


def test_unusable_device_is_refused_with_the_available_ones(monkeypatch):
    if torch.cuda.is_available():
        torch.cuda.init()  # it would fail with another number of GPUs
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(GPTError, match=r"cuda:99 can't be used: .*\. Available here: cpu, cuda:0, cuda:1\.$"):
        check_target("cuda:99")


def test_invalid_device_ordinal_is_a_gpt_error_of_one_line(monkeypatch):
    def no_such_gpu(*args, **options):
        raise RuntimeError("CUDA error: invalid device ordinal\nGPU device may be out of range")

    monkeypatch.setattr(torch, "zeros", no_such_gpu)
    with pytest.raises(GPTError, match=r"^the device cuda:7 can't be used: CUDA error: invalid device ordinal\. .*\.$"):
        check_target("cuda:7")


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    message = "4 processes need a GPU each, and this machine has 3: start torchrun with --nproc-per-node 3, or give"
    with pytest.raises(GPTError, match=message):
        train_command.check_gpus("cuda")
    train_command.check_gpus("cpu")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    train_command.check_gpus("cuda")


@pytest.mark.parametrize(("given", "missing"), [([], "RANK and LOCAL_RANK"), (["RANK"], "LOCAL_RANK")])
def test_several_processes_without_their_numbers_are_refused(given, missing, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name in given:
        monkeypatch.setenv(name, "0")
    monkeypatch.setattr(sys, "argv", ["train", "--benchmark", "--device", "cpu"])
    assert run("train", train_command.main) == 1
    message = f"the environment sets WORLD_SIZE to 2 without {missing}: start the processes with torchrun"
    assert f"train: {message}" in capsys.readouterr().err
