"""Do both packages and transformers read the same weights and tokens from one checkpoint, in every format?"""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import numpy_gpt
import torch_gpt
from numpy_gpt import GPTError, named
from numpy_gpt.checkpoint import read_checkpoint
from numpy_gpt.text import bpe, tokenizer

from .inputs import TINY, VARIANTS, random_batch, random_model

PLACES = {"openai": "openai", "huggingface": "huggingface", "safetensors": "model.safetensors", "llmc-v3": "m.bin"}
WORDS = "the cat and the hat and the bat"
PAIRS = 2 * "".join(f" {a}{b}" for a in "abcdefghijklm" for b in "nopqrstuvwxyz")


def store(package, m, directory, format):
    """Save a model in a format; return the path"""
    path = directory / PLACES[format]
    package.save(m, path, None if format == "safetensors" else format)
    return path


@pytest.mark.parametrize("format", PLACES)
def test_each_package_loads_the_others_checkpoint(format, device, tmp_path):
    m = random_model(TINY)
    twin = torch_gpt.load(store(numpy_gpt, m, tmp_path, format), device)
    assert twin.config == m.config
    back = numpy_gpt.load(store(torch_gpt, twin, tmp_path / "back", format))
    for (name, a), (_, t), (_, b) in zip(named(m.params), named(twin.params), named(back.params), strict=True):
        assert t.device.type == device
        np.testing.assert_array_equal(t.cpu().numpy(), a, err_msg=name, strict=True)
        np.testing.assert_array_equal(b, a, err_msg=name, strict=True)


@pytest.mark.parametrize("format", PLACES)
def test_tensors_on_the_cpu_share_the_mapped_memory_and_leave_the_file_unchanged(format, tmp_path, monkeypatch):
    m = random_model(TINY)
    path = store(numpy_gpt, m, tmp_path, format)
    mapped = numpy_gpt.load(path)
    monkeypatch.setattr(numpy_gpt, "load", lambda source, n_head: mapped)
    twin = torch_gpt.load(path)
    for (name, a), (_, t) in zip(named(mapped.params), named(twin.params), strict=True):
        assert t.data_ptr() == a.ctypes.data, name
        t.zero_()
        assert not a.any()
    monkeypatch.undo()
    np.testing.assert_array_equal(numpy_gpt.load(path).params.wte, m.params.wte)


def test_twin_loads_and_saves_in_the_given_precision(device, tmp_path):
    numpy_gpt.save(random_model(TINY), tmp_path)
    m = torch_gpt.load(tmp_path, device, torch.bfloat16)
    assert {t.dtype for _, t in named(m.params)} == {torch.bfloat16}
    torch_gpt.save(m, tmp_path)  # as float32, which represents every bfloat16
    np.testing.assert_array_equal(numpy_gpt.load(tmp_path).params.wte, m.params.wte.float().cpu().numpy(), strict=True)
    half = torch_gpt.load(tmp_path, device, torch.float16)
    torch_gpt.save(half, tmp_path, dtype=torch.float16)
    assert {stored.dtype for stored in read_checkpoint(tmp_path).tensors.values()} == {"float16"}
    np.testing.assert_array_equal(
        numpy_gpt.load(tmp_path).params.wte, half.params.wte.float().cpu().numpy(), strict=True
    )
    with pytest.raises(GPTError, match=r"dtype is torch\.int64: it must be one of torch\.float32"):
        torch_gpt.load(tmp_path, device, torch.int64)


@pytest.mark.parametrize("package", [numpy_gpt, torch_gpt])
@pytest.mark.parametrize("variant", VARIANTS)
def test_transformers_computes_the_logits_of_a_saved_model(variant, package, tmp_path):
    m = random_model(VARIANTS[variant])
    package.save(m if package is numpy_gpt else torch_gpt.from_numpy(m), tmp_path)
    assert_same_logits(m, tmp_path)


def assert_same_logits(m, directory):
    """Compare a model's logits with those of transformers, which must find all weights and no others"""
    model, report = AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
    assert not any(report.values()), report
    tokens, _ = random_batch(m.config, 2, m.config.n_ctx)
    theirs = model.eval()(torch.from_numpy(tokens)).logits.detach().numpy()
    np.testing.assert_allclose(theirs, numpy_gpt.forward(m, tokens), rtol=1e-4, atol=1e-4)


def without_endoftext(directory):
    """Return a tokenizer whose vocabulary has no <|endoftext|>"""
    bpe.write(directory, bpe.train([WORDS], 270))
    encoder = directory / "encoder.json"
    ids = json.loads(encoder.read_text())
    del ids[tokenizer.EOT]
    encoder.write_text(json.dumps(ids))
    return tokenizer.load(directory)


TOKENIZERS = {
    "bytes": lambda directory, data: bpe.tokenizer([]),
    "bpe": lambda directory, data: bpe.tokenizer(bpe.train([WORDS], 270)),
    "released": lambda directory, data: tokenizer.load(data / "tokenizer"),
    "without endoftext": lambda directory, data: without_endoftext(directory),
}
TEXTS = [
    "Hello world! the cat and the hat",
    "the cat<|endoftext|>the hat <|endoftext|> and",
    "it's IT'S don't we'll  a   b\n\n c\t\r\n  ",
    "我喜欢机器学习。東京タワー 👩‍👩‍👧‍👦 e\u0301 3.14 ½ !?",
    "",
]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_transformers_loads_the_tokenizer_of_a_saved_model(name, tmp_path, request):
    (tmp_path / "words").mkdir()
    ours = TOKENIZERS[name](tmp_path / "words", name == "released" and request.getfixturevalue("data"))
    m = random_model(replace(TINY, n_vocab=ours.n_vocab))._replace(tokenizer=ours)
    numpy_gpt.save(m, tmp_path / "model")
    assert_same_tokenizer(ours, tmp_path / "model")
    assert_same_logits(m, tmp_path / "model")


def assert_same_tokenizer(ours, directory):
    """Compare a tokenizer with the one that transformers loads, on texts with and without <|endoftext|>"""
    theirs = AutoTokenizer.from_pretrained(directory)
    assert (len(theirs), theirs.eos_token_id, theirs.bos_token_id) == (ours.n_vocab, ours.eot, ours.eot)
    for text in TEXTS:
        assert theirs.encode(text) == ours.encoding.encode(text, allowed_special="all")
        assert theirs.encode(text, split_special_tokens=True) == ours.encode(text)
        assert theirs.decode(ours.encode(text)) == text


@pytest.mark.slow
@pytest.mark.parametrize("package", ["numpy_gpt", "torch_gpt"])
def test_transformers_loads_a_training_run(package, tmp_path):
    (tmp_path / "text.txt").write_text(f"{WORDS} {TEXTS[2]} {TEXTS[3]}\n" * 100)
    sizes = ["--n-layer", "2", "--n-head", "2", "--n-embd", "16", "--context", "8", "--batch-size", "2"]
    options = ["--data", "text.txt", "--out", "run", "--steps", "3", "--tokenizer", "bpe:300", "--sample-every", "0"]
    line = [sys.executable, "-m", f"{package}.train", *options, *sizes]
    subprocess.run(line, cwd=tmp_path, capture_output=True, check=True, timeout=300)
    m = numpy_gpt.load(tmp_path / "run")
    assert_same_tokenizer(m.tokenizer, tmp_path / "run")
    assert_same_logits(m, tmp_path / "run")


@pytest.mark.parametrize("variant", ["as released", "untied"])
@pytest.mark.parametrize("shards", ["one file", "several"])
def test_load_of_a_checkpoint_saved_by_transformers(variant, shards, tmp_path):
    ours = bpe.tokenizer(bpe.train([WORDS], 270))
    m = random_model(replace(VARIANTS[variant], n_vocab=270))._replace(tokenizer=ours)
    numpy_gpt.save(m, tmp_path / "ours")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    model.save_pretrained(tmp_path / "theirs", max_shard_size="100GB" if shards == "one file" else "50KB")
    AutoTokenizer.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > (shards == "several")
    loaded = numpy_gpt.load(tmp_path / "theirs")
    assert loaded.config == m.config
    for (name, a), (_, b) in zip(named(loaded.params), named(m.params), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
    assert loaded.tokenizer.vocabulary == ours.vocabulary


@pytest.mark.parametrize("shards", ["one file", "several"])
def test_transformers_loads_a_model_saved_over_one_of_its_own(shards, tmp_path):
    """Replace a checkpoint of 400 tokens that transformers wrote, with all the files that it obeys"""
    large, small = bpe.tokenizer(bpe.train([PAIRS], 400)), bpe.tokenizer([])
    for name, ours in (("large", large), ("small", small)):
        m = random_model(replace(TINY, n_vocab=ours.n_vocab))._replace(tokenizer=ours)
        numpy_gpt.save(m, tmp_path / name)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "large")
    model.save_pretrained(tmp_path / "theirs", max_shard_size="100GB" if shards == "one file" else "50KB")
    AutoTokenizer.from_pretrained(tmp_path / "large").save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "special_tokens_map.json").write_text('{"eos_token": "a"}')
    (tmp_path / "theirs" / "added_tokens.json").write_text('{"<|pad|>": 400}')
    (tmp_path / "theirs" / "notes.txt").write_text("mine")
    assert model.generation_config.eos_token_id == large.eot
    numpy_gpt.save(m, tmp_path / "theirs")
    names = {"config.json", "model.safetensors", "tokenizer_config.json", "vocab.json", "merges.txt", "notes.txt"}
    assert {path.name for path in (tmp_path / "theirs").iterdir()} == names
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "theirs").generation_config.eos_token_id == small.eot
    assert_same_tokenizer(small, tmp_path / "theirs")
    assert_same_logits(m, tmp_path / "theirs")


def test_a_model_without_qkv_bias_keeps_the_biases_that_transformers_trains(tmp_path):
    m = random_model(VARIANTS["no qkv bias"])
    numpy_gpt.save(m, tmp_path / "ours")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    model.save_pretrained(tmp_path / "unchanged")
    assert numpy_gpt.load(tmp_path / "unchanged").config == m.config
    with torch.no_grad():
        model.transformer.h[1].attn.c_attn.bias[5] = 1
    model.save_pretrained(tmp_path / "trained")
    trained = numpy_gpt.load(tmp_path / "trained")
    assert trained.config.qkv_bias
    assert_same_logits(trained, tmp_path / "trained")
