"""Does finetune merge write the model with its adapters, and leave all files as they are after a mistake?"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from numpy_gpt import CheckpointError, GPTError, load, named, save
from numpy_gpt.checkpoint import adapter, save_with_template
from numpy_gpt.checkpoint.adapter import LoraAdapters
from numpy_gpt.finetune import merge
from numpy_gpt.lora import new_adapters
from numpy_gpt.params import tree_map
from numpy_gpt.text import bpe, template
from numpy_gpt.text.template import ALPACA, Template
from parity.inputs import TINY, random_model

CONFIG = replace(TINY, n_vocab=270)
MODEL = random_model(CONFIG)._replace(tokenizer=bpe.tokenizer(bpe.train(["the cat and the hat and the bat"], 270)))


def write_adapter(path, base="", config=CONFIG, head=None):
    """Write random adapters, and return them"""
    rng = np.random.default_rng(0)
    adapters = tree_map(lambda a: rng.standard_normal(a.shape).astype(np.float32), new_adapters(config, 2, first=1))
    lora = LoraAdapters(adapters, 2, 4.0, head, base)
    adapter.write(Path(path), lora, config)
    return lora


@pytest.fixture
def lora(tmp_path, monkeypatch):
    """Work in a directory that contains a model and its adapters; return the adapters"""
    monkeypatch.chdir(tmp_path)
    save(MODEL, "model")
    return write_adapter("adapter", "model")


def files():
    """Return the contents of all files"""
    return {str(file): file.read_bytes() for file in Path().rglob("*") if file.is_file()}


def assert_merged(path, lora):
    found = load(path)
    assert found.tokenizer.vocabulary == MODEL.tokenizer.vocabulary
    for (name, a), (_, b) in zip(named(found.params), named(adapter.merge(MODEL, lora).params), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name, strict=True)


@pytest.mark.parametrize("model", [[], ["--model", "model"], ["--model", "model/model.safetensors"]])
def test_merge_writes_the_merged_model(model, lora, capsys):
    before = files()
    for _ in range(2):  # the second replaces the first
        assert merge.main(["adapter", "--out", "merged", *model]) == 0
        assert capsys.readouterr() == ("merged\n", "")
        assert_merged("merged", lora)
    assert {name: content for name, content in files().items() if not name.startswith("merged/")} == before


def test_format_openai_writes_openais_layout_and_a_second_merge_keeps_it(lora):
    for options in (["--format", "openai"], []):
        merge.main(["adapter", "--out", "merged", *options])
        assert_merged("merged", lora)
        assert "model.ckpt.index" in os.listdir("merged")
        assert "config.json" not in os.listdir("merged")


def test_merge_keeps_the_template_of_instructions(lora):
    save_with_template(MODEL, "model", None, None, ALPACA)
    merge.main(["adapter", "--out", "merged"])
    assert template.load("merged") == ALPACA


@pytest.mark.parametrize("other", [None, Template("{instruction}", "{instruction}{input}")])
def test_template_of_the_adapters_replaces_that_of_the_model(other, lora):
    save_with_template(MODEL, "model", None, None, other)
    adapter.write(Path("adapter"), lora._replace(template=ALPACA), CONFIG)
    merge.main(["adapter", "--out", "merged"])
    assert template.load("merged") == ALPACA


def test_adapter_beside_the_weights_of_a_model_without_a_run_is_merged(lora):
    write_adapter("model/adapter", "model")
    merge.main(["model/adapter", "--out", "merged"])
    assert_merged("merged", lora)


def test_name_of_a_released_model_at_hugging_face_means_that_model(lora, monkeypatch):
    os.renames("model", "models/gpt2-xl")
    monkeypatch.setenv("GPT2_MODELS", "models")
    write_adapter("released", "openai-community/gpt2-xl")
    merge.main(["released", "--out", "merged"])
    assert_merged("merged", lora)


REFUSED = {
    "no base": (["nameless"], CheckpointError, "nameless doesn't name its model: give it with --model"),
    "missing base": (
        ["lost"],
        CheckpointError,
        "lost needs the model no/such, which isn't found: give it with --model",
    ),
    "missing model": (["adapter", "--model", "no"], CheckpointError, "no is neither a path nor a model's name"),
    "missing adapter": (["no"], CheckpointError, "no doesn't exist: give the directory of a LoRA adapter"),
    "a model": (["model"], CheckpointError, r"model has no adapter_config\.json: give the directory of a LoRA adapter"),
    "a file": (["adapter/adapter_config.json"], CheckpointError, "isn't a directory: give"),
    "the adapter as model": (["adapter", "--model", "adapter"], CheckpointError, "is a LoRA adapter without its model"),
    "another width": (["wide"], CheckpointError, r"is \(2, 96\) and should be \(2, 48\) .*: give the model that"),
    "a classifier": (["classifier"], GPTError, "classifier has a classifier's head, and adapters don't contain the la"),
    "merged already": (
        ["trained/adapter", "--model", "trained"],
        GPTError,
        "trained has these adapters merged",
    ),
    "onto the model": (["adapter", "--out", "model"], GPTError, "--out model has the unmerged model"),
    "through a link": (["adapter", "--out", "link/model"], GPTError, "--out link/model has the unmerged model"),
    "beside a model file": (
        ["adapter", "--model", "model/model.safetensors", "--out", "model"],
        GPTError,
        "has the unmerged",
    ),
    "onto the adapter": (["adapter", "--out", "adapter"], GPTError, "adapter has a LoRA adapter, which transformers"),
    "onto a run": (["adapter", "--out", "run"], GPTError, "run is a training run's directory"),
    "onto a file": (["adapter", "--out", "text"], GPTError, "text can't be written, since it is a file"),
    "the name of a file": (["adapter", "--out", "m.safetensors"], GPTError, r"\.safetensors is a file's suffix"),
    "another layout": (
        ["adapter", "--out", "other", "--format", "openai"],
        GPTError,
        "in Hugging Face's layout: write",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_merge_refuses_a_mistake_and_changes_no_file(case, lora):
    arguments, error, message = REFUSED[case]
    write_adapter("nameless")
    write_adapter("lost", "no/such")
    write_adapter("wide", "model", replace(CONFIG, n_embd=96))
    write_adapter("classifier", "model", head=np.ones((2, 48), np.float32))
    save(MODEL, "other")
    save(MODEL, "trained")
    write_adapter("trained/adapter", "model")
    Path("trained", "training.json").write_text("{}")
    os.symlink(".", "link")
    Path("run").mkdir()
    Path("run", "training.json").write_text("{}")
    Path("text").write_text("mine")
    before = files()
    with pytest.raises(error, match=message) as raised:
        merge.main([*arguments, *(() if "--out" in arguments else ("--out", "new"))])
    assert raised.type is error
    assert files() == before
    assert not Path("new").exists()


@pytest.mark.parametrize("change", [lambda w: w.fill(np.nan), None])
def test_merge_refuses_a_damaged_model(change, lora):
    if change:
        m = random_model(CONFIG)
        change(m.params.h[0].ln_1.g)
        save(m, "model")
    else:
        content = bytearray(Path("model/model.safetensors").read_bytes())
        content[-9] ^= 1
        Path("model/model.safetensors").write_bytes(content)
    message = "has a NaN or an infinity" if change else "is corrupt: its checksum"
    with pytest.raises(CheckpointError, match=rf"model: the tensor \S+ {message}"):
        merge.main(["adapter", "--out", "new"])
    assert not Path("new").exists()


USAGE = {
    "no out": ["adapter"],
    "no adapter": ["--out", "new"],
    "unknown format": ["adapter", "--out", "new", "--format", "bin"],
    "empty out": ["adapter", "--out", ""],
    "empty adapter": ["", "--out", "new"],
    "empty model": ["adapter", "--out", "new", "--model", ""],
}


@pytest.mark.parametrize("arguments", USAGE.values(), ids=USAGE)
def test_wrong_usage_exits_with_status_2(arguments, lora, capsys):
    before = files()
    with pytest.raises(SystemExit) as raised:
        merge.main(arguments)
    assert raised.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m numpy_gpt.finetune merge [-h]")
    assert files() == before
