"""Is what MODEL.md says of the model that ships so?"""

import re
import subprocess
import sys
import time
import tomllib

import pytest

from numpy_gpt import load
from numpy_gpt.checkpoint import read, verify
from numpy_gpt.checkpoint.source import find
from numpy_gpt.evaluate.__main__ import perplexity
from numpy_gpt.storyteller import make, recite, stories
from numpy_gpt.train.start import make_tokenizer

FOLDER = find("storyteller")
PAGE = (FOLDER / "MODEL.md").read_text()
M = load("storyteller")


def test_its_size_and_its_settings():
    settings = tomllib.loads(make.SETTINGS.read_text())
    c = M.config
    shape = {"n-layer": c.n_layer, "n-head": c.n_head, "n-embd": c.n_embd, "context": c.n_ctx}
    assert settings | shape | {"tokenizer": f"bpe:{c.n_vocab}"} == settings
    assert f"{c.n_layer} layers, {c.n_head} heads, width {c.n_embd}, context {c.n_ctx}: " in PAGE
    assert f"{c.num_parameters():,} parameters" in PAGE
    assert f"byte-level BPE of {M.tokenizer.n_vocab:,} tokens" in PAGE
    weights = sum(file.stat().st_size for file in FOLDER.glob("model.ckpt*"))
    assert f"{weights / 1e6:.1f} MB as float16" in PAGE
    assert sum(file.stat().st_size for file in FOLDER.iterdir() if file.is_file()) < 8e6


def test_it_is_intact():
    contents = read(FOLDER)
    verify.check_intact(FOLDER, contents.tensors, verify.check(contents.tensors))


def test_its_tokenizer_comes_from_the_texts_that_make_reads(data, tmp_path):
    """A change to how they are read would make another model of them"""
    texts, books = make.find(data), tmp_path / "books.txt"
    told = list(stories.documents(texts.books))
    make.write(books, told)
    assert f"{len(told):,} stories, {books.stat().st_size / 1e6:.1f} MB" in PAGE
    made = make_tokenizer(f"bpe:{M.config.n_vocab}", [*make.WEIGHT * texts.tiny, books])
    assert made.files == M.tokenizer.files


@pytest.mark.parametrize("text", ["`valid.txt`", "Wizard of Oz"])
def test_how_well_it_tells_what_it_has_not_read(text, data, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = make.find(data).valid
    if text == "Wizard of Oz":
        path = tmp_path / "held_out.txt"
        make.write(path, stories.of_file(make.find(data).oz))
    found = perplexity(M, path)
    loss, bits = re.search(rf"{text}.*\| ([\d.]+) \| ([\d.]+) \|", PAGE).groups()
    assert found["loss"] == pytest.approx(float(loss), abs=1e-4)
    assert found["bits_per_byte"] == pytest.approx(float(bits), abs=1e-3)


def test_its_samples_are_unpicked():
    """Two may differ where another machine rounds otherwise"""
    command = [sys.executable, "-m", "numpy_gpt.generate", "--seed", "1", "--num-samples", "20"]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    told = run.stdout.split("\n---\n")
    _, _, shown = PAGE.partition(f"python {' '.join(command[1:])}\n")
    shown = shown.partition("\n```\n")[0].split("\n---\n")
    assert len(told) == len(shown) == 20
    assert sum(a.strip() == b.strip() for a, b in zip(told, shown, strict=True)) >= 18


def test_it_does_not_recite(data, tmp_path, monkeypatch, capsys):
    """In 1,000 stories"""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    books = tmp_path / "books.txt"
    texts = make.find(data)
    make.write(books, stories.documents(texts.books))
    monkeypatch.setattr(sys, "argv", ["recite", *map(str, [*texts.tiny, books])])
    assert recite.main() == 0
    length = r"the longest run has (\d+) tokens"
    found, said = (int(re.search(length, text)[1]) for text in (capsys.readouterr().out, PAGE))
    assert abs(found - said) <= 5  # where another machine rounds otherwise, a story may part


def test_the_first_token_comes_soon():
    """All imports and the weights included"""
    command = [sys.executable, "-m", "numpy_gpt.generate", "Once", "-n", "1"]
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.5
