"""Test a complete download, and the directories that it refuses."""

from types import SimpleNamespace

import numpy as np
import pytest
from sources import Request, command, contents
from terminal import shown_on_a_terminal

from numpy_gpt import GPTError, adamw, load, save
from numpy_gpt.checkpoint import hub
from numpy_gpt.checkpoint.hub import DATA
from numpy_gpt.download import fetch
from numpy_gpt.download.fetch import download
from numpy_gpt.train import resume
from parity.inputs import TINY, random_model


def test_download_into_a_training_runs_directory_is_refused(tmp_path):
    m, *moments = (random_model(TINY, seed=seed) for seed in range(3))
    run = tmp_path / "124M"
    resume.save(
        run, resume.State(m, adamw.Moments(*(moment.params for moment in moments)), 7, {"settings": {}, "text": []})
    )
    before = {path: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(GPTError, match="is a training run's directory"):
        download("124M", tmp_path)
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_download_over_a_model_of_another_shape_is_refused(tmp_path):
    save(random_model(TINY), tmp_path / "124M", "openai")
    before = {path: path.read_bytes() for path in (tmp_path / "124M").iterdir()}
    with pytest.raises(GPTError, match=r"has another model, Config\(n_vocab=61.*: choose another place"):
        download("124M", tmp_path)
    assert {path: path.read_bytes() for path in (tmp_path / "124M").iterdir()} == before


def test_download_of_all_files_gives_a_model(server, files, model, tmp_path):
    place = download("gpt2", tmp_path)
    assert place == tmp_path / "124M"
    assert contents(place) == files
    assert server.requests == [Request("one", file, 0) for file in hub.sizes("124M")]
    np.testing.assert_array_equal(load(place).params.wte, model.params.wte)


def test_full_disk_is_reported_before_the_first_request(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: SimpleNamespace(free=240_000))
    with pytest.raises(GPTError, match=f"too little space for {DATA}: 384 more bytes are needed"):
        download("124M", tmp_path)
    assert server.requested() == []


def test_directory_that_cannot_be_created_is_named(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(GPTError, match="file/124M can't be written to: Not a directory"):
        download("124M", tmp_path / "file")


def test_terminal_shows_the_progress_of_every_file(server, tmp_path):
    shown, out = shown_on_a_terminal(lambda stderr: command(tmp_path, server, stderr=stderr))
    assert out == f"{tmp_path / '124M'}\n"
    for file in hub.sizes("124M"):
        assert f"{file}: 100%" in shown


def test_load_downloads_a_missing_model_once(server, model, tmp_path, monkeypatch):
    monkeypatch.setenv("GPT2_MODELS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    np.testing.assert_array_equal(load("gpt2").params.wpe, model.params.wpe)
    assert hub.find("gpt2") == tmp_path / "124M"
    server.requests.clear()
    load("124M")
    assert server.requests == []
