"""Read and write a classifier in Hugging Face's layout: the files of transformers' GPT2ForSequenceClassification."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..config import Config
from ..errors import CheckpointError
from ..params import GPT2, Head, grow, named
from ..system.atomic import read_consistently
from ..system.files import read_json
from . import huggingface, safetensors, verify
from .layouts import WEIGHTS, stage_or_directory
from .stored import floats


class Classifier(NamedTuple):
    """Hold a classifier, whose params.head has a row for each label"""

    config: Config
    params: GPT2
    labels: list[str]
    tokenizer: Any  # None if its files are missing


def fill(directory: Path, m: Classifier) -> None:
    """Write a classifier's files to an empty directory"""
    assert m.params.head is not None
    arrays = {**dict(named(m.params._replace(head=None))), "score.w": m.params.head.w}
    huggingface.fill(directory, m.config, arrays, m.params.wte.dtype, m.tokenizer, more_keys=config_keys(m))


def config_keys(m: Classifier) -> dict[str, Any]:
    """Return the keys that a classifier adds to config.json; transformers finds a text's end by pad_token_id"""
    return {
        "architectures": ["GPT2ForSequenceClassification"],
        "id2label": {str(i): label for i, label in enumerate(m.labels)},
        "label2id": {label: i for i, label in enumerate(m.labels)},
        "problem_type": "single_label_classification",
        "pad_token_id": m.tokenizer.eot if m.tokenizer else None,
    }


def read(path: Path) -> Classifier:
    """Return the classifier in a directory, after comparing its tensors with their checksums"""
    return read_consistently(path, lambda directory: read_directory(stage_or_directory(directory)), huggingface.files)


def read_directory(directory: Path) -> Classifier:
    """Return the classifier in a directory that no process writes to"""
    if not os.path.isfile(directory / WEIGHTS):
        raise CheckpointError(f"{directory} has no {WEIGHTS}: give the directory of a classifier.")
    _, found = safetensors.read(directory / WEIGHTS)
    score = found.pop(huggingface.SCORE, None)
    if score is None:
        raise CheckpointError(f"{directory} isn't a classifier, since it has no {huggingface.SCORE}: train one first.")
    contents = huggingface.contents(directory, directory, {}, found, None)
    labels = read_labels(directory / "config.json")
    if score.shape != (len(labels), contents.config.n_embd):
        raise CheckpointError(
            f"{directory} has {len(labels)} labels in config.json, and {huggingface.SCORE} has the shape "
            f"{score.shape}: restore the directory from a copy."
        )
    tensors = {**contents.tensors, "score.w": score}
    verify.check_intact(directory, tensors, verify.check(tensors))
    dtype = "float64" if score.dtype == "float64" else "float32"
    params = grow(contents.config, lambda name, *_: np.array(floats(tensors[name], dtype)))
    head = Head(np.array(floats(score, dtype)))
    return Classifier(contents.config, params._replace(head=head), labels, contents.tokenizer)


def read_labels(path: Path) -> list[str]:
    """Return the labels in the order of their numbers"""
    labels = read_json(path, limit=1 << 24).get("id2label")
    names: list[Any] = [labels.get(str(i)) for i in range(len(labels))] if isinstance(labels, dict) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{path} has no id2label from 0, 1, ... to labels: restore it from a copy.")
    return names
