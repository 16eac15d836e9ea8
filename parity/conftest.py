import os
import sys
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import settings

import numpy_gpt.finetune.__main__
import torch_gpt.finetune.__main__
from numpy_gpt.system.cli import run

from .finetuning import write_files
from .running import README

settings.register_profile("parity", derandomize=True, deadline=None)  # failures can be reproduced elsewhere
settings.load_profile("parity")
THREADS = torch.get_num_threads()


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="PyTorch's device: cpu, cuda")


def pytest_configure(config):
    if config.getoption("--device") == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported: kernels run on the CPU


@pytest.fixture(scope="session")
def device(request):
    device = request.config.getoption("--device")
    if device != "cpu":  # a missing device fails here, with PyTorch's message
        x = torch.ones(2, 2, device=device, requires_grad=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # autograd's thread has no CUDA context before its first matmul
            (x @ x).sum().backward()
    return device


@pytest.fixture(scope="session")
def data():
    """Return the directory of real files that some tests read"""
    if "GPT_TEST_DATA" not in os.environ:
        pytest.skip("$GPT_TEST_DATA isn't set to the directory of real files")
    return Path(os.environ["GPT_TEST_DATA"])


@pytest.fixture(autouse=True)
def one_thread_for_small_tensors(request):
    """Limit PyTorch to one thread, except in slow tests: its threads and OpenBLAS's would wait for each other"""
    torch.set_num_threads(THREADS if request.node.get_closest_marker("slow") else 1)


@pytest.fixture(autouse=True, scope="session")
def float32_is_float32():
    assert torch.get_float32_matmul_precision() == "highest", "TF32 keeps 10 bits of 23, too few for these tests"


@pytest.fixture
def text_directory(monkeypatch, tmp_path):
    """Work in a directory of its own with a text to train on, and with a cache of its own"""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(README.read_text())


@pytest.fixture
def finetuning_directory(monkeypatch, tmp_path):
    """Work in a directory of its own with a tiny model and data to fine-tune it on"""
    monkeypatch.chdir(tmp_path)
    write_files()


@pytest.fixture
def finetune(finetuning_directory, monkeypatch, capsys, device):
    """Return a function that runs a package's finetune command, and returns its status, stdout and stderr"""

    def call(package, *args):
        extra = ["--device", device] if package == "torch_gpt" and "--device" not in args else []
        monkeypatch.setattr(sys, "argv", ["finetune", *args, *extra])
        module = numpy_gpt if package == "numpy_gpt" else torch_gpt
        status = run("finetune", module.finetune.__main__.main)
        return status, *capsys.readouterr()

    return call
