"""Does a new run leave files alone that aren't its own?"""

import json
import os
import shutil
from pathlib import Path

import pytest
from training_runs import SHORT, log, train, trained

from numpy_gpt import load, save
from numpy_gpt.checkpoint import adapter
from numpy_gpt.checkpoint.adapter import LoraAdapters
from numpy_gpt.lora import new_adapters
from parity.inputs import TINY, random_model


def contents(directory):
    return {path: path.read_bytes() for path in Path(directory).rglob("*") if path.is_file()}


def shard(directory):
    """Write a model in Hugging Face's layout with its weights in a shard that an index names"""
    save(random_model(TINY), directory, "huggingface")
    weights = directory / "model.safetensors"
    header = weights.read_bytes()[8:]
    names = [name for name in json.JSONDecoder().raw_decode(header.decode("latin-1"))[0] if name != "__metadata__"]
    weights.rename(directory / "model-00001-of-00001.safetensors")
    index = {"weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


LAYOUTS = {
    "OpenAI's": lambda path: save(random_model(TINY), path, "openai"),
    "Hugging Face's": lambda path: save(random_model(TINY), path, "huggingface"),
    "Hugging Face's with shards": shard,
}


def test_resume_of_a_run_beside_a_checkpoint_in_the_other_layout_is_refused(text):
    trained("--data", text, "--out", "run", *SHORT)
    save(random_model(TINY), "other", "openai")
    for file in Path("other").iterdir():
        shutil.copy(file, "run")
    status, out, err = train("--resume", "--out", "run", "--steps", "9")
    assert (status, out) == (1, "")
    assert err.startswith(
        "train: run has a checkpoint in OpenAI's layout and another in Hugging Face's, and only one of"
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_train_refuses_a_directory_with_a_checkpoint(layout, text):
    LAYOUTS[layout](Path("model"))
    assert load("model").config == TINY
    before = contents("model")
    status, out, err = train("--data", text, "--out", "model", *SHORT)
    assert (status, out) == (1, "")
    assert err.startswith("train: model has a checkpoint: start from it with --init-from model")
    status, out, err = train("--resume", "--out", "model", *SHORT)
    assert (status, out) == (3, "")
    assert "model isn't a training run, since it has no training.json" in err
    assert contents("model").keys() - before.keys() <= {Path("model", ".lock")}
    assert {path: content for path, content in contents("model").items() if path.name != ".lock"} == before


OF_A_RUN = ("log.jsonl", "loss.svg", "moments.safetensors", "training.json")
FOREIGN = [
    *(("huggingface", name) for name in (*OF_A_RUN, "config.json", "vocab.json", "merges.txt", "tokenizer.json")),
    *(("openai", name) for name in ("log.jsonl", "moments.safetensors", "encoder.json", "vocab.bpe", "hparams.json")),
]


@pytest.mark.parametrize(("format", "name"), FOREIGN)
def test_train_refuses_a_directory_with_a_file_that_it_would_replace(format, name, text):
    Path("notes").mkdir()
    Path("notes", name).write_text("mine")
    status, out, err = train("--data", text, "--out", "notes", "--format", format, *SHORT)
    assert (status, out) == (1, "")
    assert err == f"train: notes has {name}, which a new run would replace: choose another --out.\n"
    assert contents("notes") == {Path("notes", name): b"mine"}


def test_train_refuses_the_directory_of_an_adapter(text):
    adapter.write(Path("adapter"), LoraAdapters(new_adapters(TINY, 2), 2, 1.0), TINY)
    before = contents("adapter")
    status, out, err = train("--data", text, "--out", "adapter", *SHORT)
    assert (status, out) == (1, "")
    assert err.startswith("train: adapter has a LoRA adapter, which transformers would apply to the model: choose")
    assert contents("adapter") == before


def test_train_restarts_in_the_directory_of_a_run_without_a_checkpoint(text):
    trained("--data", text, "--out", "whole", *SHORT)
    Path("run").mkdir()
    for name in (".lock", "log.jsonl", "loss.svg"):  # left by a run that was killed before its first checkpoint
        shutil.copy(Path("whole", name), "run")
    trained("--data", text, "--out", "run", *SHORT)
    assert [entry["step"] for entry in log("run")] == [0, 2, 4, 6]
    Path("run", "model.safetensors").unlink()
    status, _, err = train("--data", text, "--out", "run", *SHORT)
    assert status == 1
    assert "run has config.json, which a new run would replace" in err


def test_train_refuses_a_foreign_log_beside_a_lock(text):
    Path("notes").mkdir()
    Path("notes", ".lock").touch()
    Path("notes", "log.jsonl").write_text("mine")
    status, _, err = train("--data", text, "--out", "notes", *SHORT)
    assert (status, err) == (
        1,
        "train: notes has log.jsonl, which a new run would replace: choose another --out.\n",
    )
    assert Path("notes", "log.jsonl").read_text() == "mine"


def test_train_accepts_a_directory_name_that_is_not_utf_8(text):
    out = os.fsdecode(b"run\xff")
    trained("--data", text, "--out", out, *SHORT)
    assert "run\\udcff: loss" in Path(out, "loss.svg").read_text()


def test_train_leaves_other_files_of_the_directory_alone(text):
    Path("run").mkdir()
    Path("run", "notes.txt").write_text("mine")
    trained("--data", text, "--out", "run", *SHORT)
    assert Path("run", "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["run.pt", "run.safetensors", "run.bin"])
def test_train_refuses_a_directory_with_the_suffix_of_a_file(name, text):
    status, out, err = train("--data", text, "--out", name, *SHORT)
    assert (status, out) == (1, "")
    assert f"{name} can't be a checkpoint's directory" in err
    assert err.endswith("is a file's suffix: choose a name without it.\n")
    assert not Path(name).exists()
