import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data():
    """Return the directory of real texts and checkpoints; tests that need it are skipped if GPT_TEST_DATA isn't set"""
    if "GPT_TEST_DATA" not in os.environ:
        pytest.skip("GPT_TEST_DATA isn't set: set it to the directory of the test data")
    return Path(os.environ["GPT_TEST_DATA"])


@pytest.fixture(scope="session")
def tf():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return pytest.importorskip("tensorflow", reason="TensorFlow isn't installed: pip install -e '.[test]'")


@pytest.fixture(scope="session")
def st():
    return pytest.importorskip("safetensors.numpy", reason="safetensors isn't installed: pip install -e '.[test]'")


@pytest.fixture
def text(tmp_path, monkeypatch):
    """Return the path of a small text file, in a working directory and with a cache directory of the test's own"""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "text.txt"
    path.write_text("".join(f"Tom has {i} apples, and {i} times {i} is {i * i}.\n" for i in range(1000))[:5000])
    return str(path)
