"""Are models found in the right directories, without side effects?"""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import numpy_gpt
from numpy_gpt import RELEASED, CheckpointError, GPTError, load, save
from numpy_gpt.checkpoint import hub
from numpy_gpt.checkpoint.hub import DATA
from numpy_gpt.checkpoint.source import load_tokenizer
from numpy_gpt.download.fetch import download
from parity.inputs import TINY, random_model


@pytest.mark.parametrize("place", ["124M", "gpt2"])
def test_find_looks_in_both_roots_for_both_names(tmp_path, monkeypatch, place):
    # A model is found only if all its weights are there
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


def test_find_returns_a_model_in_hugging_faces_layout(tmp_path, monkeypatch):
    monkeypatch.setenv("GPT2_MODELS", str(tmp_path))
    (tmp_path / "gpt2-xl").mkdir()
    (tmp_path / "gpt2-xl" / "model.safetensors").write_bytes(b"x")
    assert hub.find("1558M") == tmp_path / "gpt2-xl"


def test_download_of_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(
        GPTError, match="gpt3 isn't a released model: choose one of 124M, 355M, 774M, 1558M, gpt2, gpt2-medium"
    ):
        download("gpt3", tmp_path)
    line = [sys.executable, "-m", "numpy_gpt.download", "GPT2"]
    run = subprocess.run(line, capture_output=True, text=True)
    assert run.returncode == 2
    assert re.search(r"invalid choice: 'GPT2' \(choose from '?124M'?, .*gpt2-xl'?\)", run.stderr)


def test_find_imports_no_network_library():
    find = "from numpy_gpt.checkpoint import hub; hub.find('124M')"
    code = f"{find}; import sys; print({{'requests', 'tqdm'}} & {{*sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "set()\n"


def test_load_finds_the_storyteller_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    m = load("storyteller")
    assert m.params.wte.dtype == np.float32
    assert m.tokenizer.n_vocab == m.config.n_vocab


def test_load_prefers_a_checkpoint_of_that_name_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(random_model(TINY), "storyteller")
    assert load("storyteller").config == TINY
    save(random_model(TINY), "124M", "huggingface")
    assert load("124M").config == TINY


@pytest.mark.parametrize("shadow", ["file", "directory"])
def test_load_ignores_other_files_of_a_models_name(shadow, tmp_path, monkeypatch):
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
def test_load_reads_other_names_as_paths(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir(parents=True)
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        load(name)
    save(random_model(TINY), name)
    assert load(name).config == TINY


def test_load_tokenizer_reads_no_weights(tmp_path):
    for name in ("encoder.json", "vocab.bpe"):
        (tmp_path / name).write_bytes((Path(numpy_gpt.__file__).parent / "storyteller" / name).read_bytes())
    assert (
        load_tokenizer(str(tmp_path)).files
        == load_tokenizer("storyteller").files
        == load("storyteller").tokenizer.files
    )


def test_load_tokenizer_of_bytes_has_a_token_per_byte():
    t = load_tokenizer("bytes")
    assert (t.n_vocab, t.decode(t.encode("é")), len(t.encode("é"))) == (257, "é", 2)


def test_load_tokenizer_of_a_model_without_a_vocabulary_is_an_error(tmp_path):
    save(random_model(TINY), tmp_path / "model.safetensors")
    with pytest.raises(GPTError, match="has no tokenizer: choose another model, or bytes"):
        load_tokenizer(str(tmp_path / "model.safetensors"))
