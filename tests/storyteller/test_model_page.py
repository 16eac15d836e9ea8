"""Are the figures of MODEL.md those of the model that ships?"""

import re
import subprocess
import sys
import tomllib

import pytest

from numpy_gpt import load
from numpy_gpt.checkpoint import read_checkpoint, verify
from numpy_gpt.checkpoint.source import find
from numpy_gpt.evaluate.perplexity import perplexity
from numpy_gpt.storyteller import make, recite, stories
from numpy_gpt.train.start import make_tokenizer

FOLDER = find("storyteller")
PAGE = (FOLDER / "MODEL.md").read_text()
M = load("storyteller")


def test_size_and_settings_equal_those_of_the_model():
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


def test_weights_match_their_checksums():
    contents = read_checkpoint(FOLDER)
    verify.check_intact(FOLDER, contents.tensors, verify.check(contents.tensors))


@pytest.mark.slow
def test_tokenizer_trained_on_the_texts_of_make_equals_that_of_the_model(data, tmp_path):
    # A change of the extraction of stories would result in another model
    texts, books = make.find_texts(data), tmp_path / "books.txt"
    extracted = list(stories.from_files(texts.books))
    make.write_stories(books, extracted)
    assert f"{len(extracted):,} stories, {books.stat().st_size / 1e6:.1f} MB" in PAGE
    made = make_tokenizer(f"bpe:{M.config.n_vocab}", [*make.WEIGHT * texts.tinystories, books])
    assert made.files == M.tokenizer.files


@pytest.mark.slow
@pytest.mark.parametrize("text", ["`valid.txt`", "Wizard of Oz"])
def test_perplexity_of_held_out_text_equals_the_table(text, data, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = make.find_texts(data).validation
    if text == "Wizard of Oz":
        path = tmp_path / "held_out.txt"
        make.write_stories(path, stories.from_file(make.find_texts(data).oz))
    found = perplexity(M, path)
    loss, bits = re.search(rf"{text}.*\| ([\d.]+) \| ([\d.]+) \|", PAGE).groups()
    assert found["loss"] == pytest.approx(float(loss), abs=1e-4)
    assert found["bits_per_byte"] == pytest.approx(float(bits), abs=1e-3)


def test_samples_equal_the_output_of_their_command():
    # Another machine rounds differently, which may change two of them
    command = [sys.executable, "-m", "numpy_gpt.generate", "--seed", "1", "--num-samples", "20"]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    printed = run.stdout.split("\n---\n")
    _, _, shown = PAGE.partition(f"python {' '.join(command[1:])}\n")
    shown = shown.partition("\n```\n")[0].split("\n---\n")
    assert len(printed) == len(shown) == 20
    assert sum(a.strip() == b.strip() for a, b in zip(printed, shown, strict=True)) >= 18


@pytest.mark.slow
def test_longest_recited_run_has_the_length_of_the_page(data, tmp_path, monkeypatch, capsys):
    """Draw 1,000 stories"""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    books = tmp_path / "books.txt"
    texts = make.find_texts(data)
    make.write_stories(books, stories.from_files(texts.books))
    monkeypatch.setattr(sys, "argv", ["recite", *map(str, [*texts.tinystories, books])])
    assert recite.main() == 0
    length = r"the longest run has (\d+) tokens"
    found, stated = (int(re.search(length, text)[1]) for text in (capsys.readouterr().out, PAGE))
    assert abs(found - stated) <= 5  # another machine rounds differently, which may change a story


def test_generate_imports_no_module_of_another_command():
    # The time to the first token is mostly that of imports
    code = """
import runpy, sys
sys.argv = ["generate", "Once", "-n", "1"]
try:
    runpy.run_module("numpy_gpt.generate", run_name="__main__")
except SystemExit:
    print(*(name for name in sys.modules if name.startswith("numpy_gpt.")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rooms = {name.split(".")[1] for name in done.stdout.splitlines()[-1].split()}
    assert "generate" in rooms
    assert not rooms & {"train", "evaluate", "download", "storyteller"}
