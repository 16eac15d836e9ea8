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
from ..text.tokenizer import EOT
from . import huggingface, safetensors, verify
from .huggingface import TOKENIZER_CONFIG
from .layouts import LAYOUTS, WEIGHTS, layout, stage_or_directory
from .stored import Contents, floats

HEAD = "head.w"  # the name in the tree of parameters


class Classifier(NamedTuple):
    """Hold a classifier, whose params.head has a row for each label"""

    config: Config
    params: GPT2
    labels: list[str]
    tokenizer: Any  # None if its files are missing
    context: int  # tokens; longer texts are cut


def fill(directory: Path, m: Classifier) -> None:
    """Write a classifier's files to an empty directory"""
    assert m.params.head is not None
    arrays = {**dict(named(m.params._replace(head=None))), "score.w": m.params.head.w}
    dtype = m.params.wte.dtype
    more_keys, more_tokenizer_keys = config_keys(m), tokenizer_keys(m)
    huggingface.fill(directory, m.config, arrays, dtype, m.tokenizer, None, more_keys, more_tokenizer_keys)


def config_keys(m: Classifier) -> dict[str, Any]:
    """Return the keys that a classifier adds to config.json; transformers finds a text's end by pad_token_id"""
    return {
        "architectures": ["GPT2ForSequenceClassification"],
        "id2label": {str(i): label for i, label in enumerate(m.labels)},
        "label2id": {label: i for i, label in enumerate(m.labels)},
        "problem_type": "single_label_classification",
        "pad_token_id": m.tokenizer.eot if m.tokenizer else None,
    }


def tokenizer_keys(m: Classifier) -> dict[str, Any]:
    """Return the keys that a classifier adds to tokenizer_config.json; transformers needs pad_token for a batch"""
    padding = {} if m.tokenizer is None or m.tokenizer.eot is None else {"pad_token": EOT}
    return {"model_max_length": m.context, **padding}


def is_classifier(path: Path) -> bool:
    """Return whether a path is a directory with the weights of a classifier"""
    weights = stage_or_directory(path) / WEIGHTS
    if layout(path) != "huggingface" or not os.path.isfile(weights):
        return False
    return huggingface.SCORE in safetensors.read(weights)[1]


def read(path: Path) -> Classifier:
    """Return the classifier in a directory, after comparing its tensors with their checksums"""
    return read_consistently(path, lambda path: from_directory(stage_or_directory(path)), files)


def read_contents(path: Path) -> Contents:
    """Return the tensors and the labels of the classifier in a directory"""
    return read_consistently(path, lambda path: contents(stage_or_directory(path)), files)


def files(directory: Path) -> list[Path]:
    """Return the files that read may read: in the stage, and in the directory"""
    places = (directory, directory / LAYOUTS["huggingface"].stage)
    return [*huggingface.files(directory), *(place / TOKENIZER_CONFIG for place in places)]


def from_directory(directory: Path) -> Classifier:
    """Return the classifier in a directory that no process writes to"""
    found = contents(directory)
    verify.check_intact(directory, found.tensors, verify.check(found.tensors))
    score = found.tensors[HEAD]
    dtype = "float64" if score.dtype == "float64" else "float32"
    params = grow(found.config, lambda name, *_: np.array(floats(found.tensors[name], dtype)))
    params = params._replace(head=Head(np.array(floats(score, dtype))))
    assert found.labels is not None
    return Classifier(found.config, params, found.labels, found.tokenizer, read_context(directory, found.config))


def contents(directory: Path) -> Contents:
    """Return the tensors and the labels in a directory that no process writes to"""
    if not os.path.isdir(directory):
        kind = "is a file" if os.path.lexists(directory) else "doesn't exist"
        raise CheckpointError(f"{directory} {kind}: give the directory of a classifier.")
    if not os.path.isfile(directory / WEIGHTS):
        raise CheckpointError(f"{directory} has no {WEIGHTS}: give the directory of a classifier.")
    _, tensors = safetensors.read(directory / WEIGHTS)
    score = tensors.pop(huggingface.SCORE, None)
    if score is None:
        raise CheckpointError(f"{directory} isn't a classifier, since it has no {huggingface.SCORE}: train one first.")
    found = huggingface.contents(directory, directory, {}, tensors, None)
    labels = read_labels(directory / "config.json")
    if score.shape != (len(labels), found.config.n_embd):
        raise CheckpointError(
            f"{directory} has {len(labels)} labels in config.json, and {huggingface.SCORE} has the shape "
            f"{score.shape}: restore the directory from a copy."
        )
    return found._replace(tensors={**found.tensors, HEAD: score}, labels=labels)


def read_labels(path: Path) -> list[str]:
    """Return the labels in the order of their numbers"""
    labels = read_json(path, limit=1 << 24).get("id2label")
    names: list[Any] = [labels.get(str(i)) for i in range(len(labels))] if isinstance(labels, dict) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{path} has no id2label from 0, 1, ... to labels: restore it from a copy.")
    return names


def read_context(directory: Path, config: Config) -> int:
    """Return the number of tokens to which the tokenizer truncates texts, at most the model's context"""
    path = directory / TOKENIZER_CONFIG
    context = read_json(path).get("model_max_length") if os.path.isfile(path) else None
    return min(context, config.n_ctx) if type(context) is int and context > 0 else config.n_ctx
