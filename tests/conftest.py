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


@pytest.fixture
def text(tmp_path, monkeypatch):
    """A small file, in a directory and with a cache for this test alone"""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "text.txt"
    path.write_text("".join(f"Tom has {i} apples, and {i} times {i} is {i * i}.\n" for i in range(1000))[:5000])
    return str(path)
