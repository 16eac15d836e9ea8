"""Are released checkpoints looked for where they should be, and is nothing else done on the way?"""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from numpy_gpt import RELEASED, CheckpointError, GPTError, load, save
from numpy_gpt.checkpoint import hub
from numpy_gpt.checkpoint.hub import DATA
from numpy_gpt.download.fetch import download
from parity.inputs import TINY, random_model


@pytest.mark.parametrize("place", ["124M", "gpt2"])
def test_a_model_is_found_in_both_roots_under_both_names(tmp_path, monkeypatch, place):
    """when all its weights are there"""
    monkeypatch.setitem(RELEASED, "124M", TINY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GPT2_MODELS", raising=False)
    cache, models = tmp_path / "cache" / "numpy_gpt", tmp_path / "models"
    assert hub.roots() == [cache]
    found = None
    for root in (cache, models):
        monkeypatch.setenv("GPT2_MODELS", str(models))
        directory = root / place
        directory.mkdir(parents=True)
        for name, lacking in ((f"{DATA}.part", 0), (DATA, 1)):
            (directory / name).write_bytes(bytes(4 * TINY.num_parameters() - lacking))
            assert hub.find("gpt2") == found
        (directory / DATA).write_bytes(bytes(4 * TINY.num_parameters()))
        found = directory
        assert hub.find("gpt2") == hub.find("124M") == found
    assert hub.roots() == [models, cache]


def test_a_model_in_hugging_faces_layout_is_found_too(tmp_path, monkeypatch):
    monkeypatch.setenv("GPT2_MODELS", str(tmp_path))
    (tmp_path / "gpt2-xl").mkdir()
    (tmp_path / "gpt2-xl" / "model.safetensors").write_bytes(b"x")
    assert hub.find("1558M") == tmp_path / "gpt2-xl"


def test_a_name_that_is_none_is_told_with_those_that_are(tmp_path):
    with pytest.raises(
        GPTError, match="gpt3 is no released model: those are 124M, 355M, 774M, 1558M, gpt2, gpt2-medium"
    ):
        download("gpt3", tmp_path)
    line = [sys.executable, "-m", "numpy_gpt.download", "GPT2"]
    run = subprocess.run(line, capture_output=True, text=True)
    assert run.returncode == 2
    assert re.search(r"invalid choice: 'GPT2' \(choose from '?124M'?, .*gpt2-xl'?\)", run.stderr)


def test_finding_a_model_imports_nothing_that_fetches():
    find = "from numpy_gpt.checkpoint import hub; hub.find('124M')"
    code = f"{find}; import sys; print({{'requests', 'tqdm'}} & {{*sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "set()\n"


def test_the_storyteller_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    m = load("storyteller")
    assert m.params.wte.dtype == np.float32
    assert m.tokenizer.n_vocab == m.config.n_vocab


def test_a_checkpoint_of_that_name_in_the_working_directory_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(random_model(TINY), "storyteller")
    assert load("storyteller").config == TINY
    save(random_model(TINY), "124M", "huggingface")
    assert load("124M").config == TINY


@pytest.mark.parametrize("shadow", ["file", "directory"])
def test_other_files_of_a_models_name_do_not_shadow_it(shadow, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPT2_MODELS", str(tmp_path / "models"))
    save(random_model(TINY), "models/gpt2", "huggingface")  # where hub.find looks for the 124M
    for name in ("storyteller", "124M", "gpt2"):
        Path(name).mkdir() if shadow == "directory" else Path(name).write_text("notes")
    assert load("storyteller").tokenizer is not None
    assert load("124M").config == load("gpt2").config == TINY
    with pytest.raises(CheckpointError, match="storyteller"):
        load("./storyteller")


@pytest.mark.parametrize("name", ["other", "./124M", "models/storyteller"])
def test_a_path_that_is_no_models_name_is_read_as_a_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir(parents=True)
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        load(name)
    save(random_model(TINY), name)
    assert load(name).config == TINY
