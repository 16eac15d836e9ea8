import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data():
    """Real files: see the docstrings of the tests that use them"""
    if "GPT_TEST_DATA" not in os.environ:
        pytest.skip("GPT_TEST_DATA doesn't say where the real files are")
    return Path(os.environ["GPT_TEST_DATA"])


@pytest.fixture(scope="session")
def tf():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return pytest.importorskip("tensorflow", reason="TensorFlow isn't installed: pip install -e '.[test]'")


@pytest.fixture(scope="session")
def st():
    return pytest.importorskip("safetensors.numpy", reason="safetensors isn't installed: pip install -e '.[test]'")
