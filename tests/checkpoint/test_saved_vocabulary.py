"""Does a directory keep its vocabulary, and does no model get another model's?"""

import os
from dataclasses import replace

import pytest

from numpy_gpt import CheckpointError, GPTError, load, save
from numpy_gpt.text import bpe, tokenizer
from parity.inputs import TINY, random_model

MODEL = random_model(replace(TINY, n_vocab=270))
FORMATS = {"openai": tokenizer.OPENAI, "huggingface": tokenizer.HUGGING_FACE}


@pytest.fixture
def words(tmp_path):
    """Return a tokenizer of 262 tokens"""
    bpe.write(tmp_path / "words", bpe.train(["the cat and the hat"], 262))
    return tokenizer.load(tmp_path / "words")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("there", FORMATS)
def test_save_without_a_tokenizer_keeps_the_vocabulary_of_the_directory(there, format, words, tmp_path):
    place = tmp_path / "model"
    place.mkdir()
    for name, content in zip(FORMATS[there], words.files, strict=True):
        (place / name).write_bytes(content)
    for _ in range(2):
        save(MODEL, place, format)
        assert load(place).tokenizer.files == words.files
    for name, content in zip(FORMATS[there], words.files, strict=True):
        assert (place / name).read_bytes() == content


@pytest.mark.parametrize("format", FORMATS)
def test_save_refuses_a_directory_whose_vocabulary_is_larger_than_n_vocab(format, words, tmp_path):
    place, small = tmp_path / "model", random_model(replace(TINY, n_vocab=261))
    save(MODEL._replace(tokenizer=words), place, format)
    before = {path: path.read_bytes() for path in place.iterdir()}
    with pytest.raises(GPTError, match="has a vocabulary of 262 tokens, too many for the model's n_vocab 261"):
        save(small, place, format)
    assert {path: path.read_bytes() for path in place.iterdir()} == before
    save(small._replace(tokenizer=bpe.tokenizer([])), place, format)  # its own tokenizer replaces it
    assert load(place).tokenizer.n_vocab == 257


@pytest.mark.parametrize("format", FORMATS)
def test_save_without_a_tokenizer_refuses_half_a_vocabulary(format, words, tmp_path):
    (tmp_path / "encoder.json").write_bytes(words.files[0])
    with pytest.raises(CheckpointError, match=r"vocab.bpe can't be read"):
        save(MODEL, tmp_path, format)
    assert sorted(os.listdir(tmp_path)) == ["encoder.json", "words"]


@pytest.mark.parametrize("format", FORMATS)
def test_load_prefers_the_vocabulary_of_the_checkpoints_own_layout(format, words, tmp_path):
    other = bpe.tokenizer(bpe.train(["a dog in a bog"], 262))
    save(MODEL, tmp_path, format)
    for names in FORMATS.values():
        for name, content in zip(names, other.files, strict=True):
            (tmp_path / name).write_bytes(content)
    save(MODEL._replace(tokenizer=words), tmp_path, format)
    assert load(tmp_path).tokenizer.files == words.files


@pytest.mark.parametrize("missing", ["nosuch", "file", 5, None])
def test_tokenizer_load_of_no_directory_raises(missing, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(GPTError, match=r"isn't a directory: give the one that has|directory is (5|None): it must be"):
        tokenizer.load(missing)


@pytest.mark.parametrize("format", FORMATS)
def test_save_refuses_to_replace_a_vocabulary_that_belongs_to_no_checkpoint(format, words, tmp_path):
    place = tmp_path / "lone"
    place.mkdir()
    for name, content in zip(FORMATS[format], words.files, strict=True):
        (place / name).write_bytes(content)
    with pytest.raises(GPTError, match=r"has another vocabulary, .* and no checkpoint: choose another directory"):
        save(MODEL._replace(tokenizer=bpe.tokenizer([])), place, format)
    assert sorted(os.listdir(place)) == sorted(FORMATS[format])
    save(MODEL._replace(tokenizer=words), place, format)  # the same vocabulary
    assert load(place).tokenizer.files == words.files
