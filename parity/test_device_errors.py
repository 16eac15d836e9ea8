"""Test that full memory and missing GPUs are reported in a sentence."""

import pytest
import torch

import torch_gpt
from numpy_gpt import GPTError
from torch_gpt import generate
from torch_gpt.train.__main__ import check_gpus

from .inputs import TINY


@pytest.mark.parametrize("compiled", [False, True])
def test_full_gpu_memory_while_decoding_is_a_gpt_error(compiled, monkeypatch):
    def out_of_memory(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(generate, "gpt2_next", out_of_memory)
    monkeypatch.setattr("torch_gpt.fast.compiled.gpt2_next", out_of_memory)
    with pytest.raises(GPTError, match="the GPU's memory is full: draw fewer samples or tokens at once"):
        torch_gpt.complete(torch_gpt.init(TINY), [1, 2], compiled=compiled)


def test_full_memory_of_the_host_while_decoding_is_a_memory_error(monkeypatch):
    monkeypatch.setattr(generate, "gpt2_next", lambda *args: torch.empty(2**60))
    with pytest.raises(MemoryError):
        torch_gpt.complete(torch_gpt.init(TINY), [1, 2])


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    message = "4 processes need a GPU each, and this machine has 3: start torchrun with --nproc-per-node 3, or give"
    with pytest.raises(GPTError, match=message):
        check_gpus("cuda")
    check_gpus("cpu")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    check_gpus("cuda")
