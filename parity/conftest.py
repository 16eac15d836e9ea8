import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("parity", derandomize=True, deadline=None)  # a failure on one machine can be seen on another
settings.load_profile("parity")


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="where PyTorch runs: cpu, cuda")


@pytest.fixture(scope="session")
def device(request):
    device = request.config.getoption("--device")
    if device != "cpu":
        torch.zeros(1, device=device)  # a device that isn't there fails here, in PyTorch's words
    return device


@pytest.fixture(scope="session")
def data():
    """Real files: see the docstrings of the tests that use them"""
    if "GPT_TEST_DATA" not in os.environ:
        pytest.skip("GPT_TEST_DATA doesn't say where the real files are")
    return Path(os.environ["GPT_TEST_DATA"])


@pytest.fixture(autouse=True, scope="session")
def float32_is_float32():
    assert torch.get_float32_matmul_precision() == "highest", "TF32 keeps 10 bits of 23: parity can't be judged with it"
