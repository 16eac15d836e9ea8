"""Where a model may be saved: checks that no other data is lost there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..config import Config
from ..errors import GPTError
from ..system.atomic import replacing
from ..system.locks import RUN_LOCK, locked_run
from ..text.tokenizer import HUGGING_FACE, OPENAI
from ..text.tokenizer import load as load_tokenizer
from . import openai
from .layouts import layout

SUFFIXES = {".safetensors": "huggingface", ".bin": "llmc-v3"}  # of files, and the formats that they stand for
FOREIGN_SUFFIXES = {".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".npz", ".h5", ".hdf5", ".msgpack", ".pb"}
FOREIGN_SUFFIXES |= {".onnx", ".tflite", ".gguf", ".ggml", ".index", ".json", ".toml", ".txt", ".zip", ".tar", ".gz"}


def check_directory_name(path: Path) -> None:
    """Raise if path looks like the name of a file"""
    suffix = path.suffix.lower()
    if suffix in FOREIGN_SUFFIXES | SUFFIXES.keys() and not os.path.isdir(path):
        raise GPTError(
            f"{path} can't be a checkpoint's directory because {path.suffix} is a file's suffix: give a directory, or "
            "a file that ends in .safetensors or .bin."
        )


def check_no_run(directory: Path) -> None:
    """Raise if directory belongs to a training run"""
    for place in (directory, directory / openai.STAGE):
        for name in openai.TRAINING:
            if os.path.exists(place / name):
                raise GPTError(
                    f"{directory} is a training run's directory, and saving a model there would spoil the run: choose "
                    "another directory."
                )


@contextmanager
def outside_training_runs(directory: Path) -> Iterator[None]:
    """Raise if directory belongs to a training run, also to one that has saved no checkpoint yet"""
    check_no_run(directory)
    if os.path.exists(directory / RUN_LOCK):
        with locked_run(directory):
            yield
    else:
        yield


def weights_beside(file: Path) -> list[Path]:
    """Return the other files with weights in the directory: a vocabulary there would be theirs too"""
    return [p for p in file.parent.iterdir() if p.suffix in {*SUFFIXES, ".index"} and p.name != file.name]


def write_vocabulary_beside(file: Path, tokenizer: Any) -> list[Path]:
    """Write the tokenizer's two files beside a file that holds weights alone; return what was written"""
    for name, content in zip(OPENAI, tokenizer.files, strict=True):
        with replacing(file.parent / name) as f:
            f.write(content)
    return [file.parent / name for name in OPENAI]


def has_vocabulary_beside(file: Path) -> bool:
    return load_tokenizer(file.parent, order(file)) is not None


def check_vocabulary_beside(file: Path, tokenizer: Any) -> None:
    """Raise if the directory of a file has another vocabulary than the model's"""
    check_no_run(file.parent)
    there = load_tokenizer(file.parent, order(file)) if tokenizer and os.path.isdir(file.parent) else None
    if there and there.files != tokenizer.files:
        raise GPTError(
            f"{file} can't be written beside {there.encoder}, another model's vocabulary, which load would give to it: "
            "choose another directory."
        )


def order(file: Path) -> tuple[tuple[str, str], ...]:
    """Return the vocabulary's names in the order in which load looks for them beside a file"""
    return (HUGGING_FACE, OPENAI) if file.suffix == ".safetensors" else (OPENAI, HUGGING_FACE)


def tokenizer_to_write(directory: Path, format: str, config: Config, tokenizer: Any) -> Any:
    """Return the model's tokenizer, or the directory's if the model has none that can be written"""
    if not os.path.isdir(directory):
        return tokenizer
    if hasattr(tokenizer, "files"):
        check_lone_vocabulary(directory, format, tokenizer)
        return tokenizer
    there = load_tokenizer(directory, (HUGGING_FACE, OPENAI) if format == "huggingface" else (OPENAI, HUGGING_FACE))
    if there and there.n_vocab > config.n_vocab:
        raise GPTError(
            f"{directory} has a vocabulary of {there.n_vocab} tokens, too many for the model's n_vocab "
            f"{config.n_vocab}, and the model has no tokenizer to replace it: choose another directory."
        )
    return there


def check_lone_vocabulary(directory: Path, format: str, tokenizer: Any) -> None:
    """Raise if the model's vocabulary would replace one that belongs to no checkpoint"""
    names = HUGGING_FACE if format == "huggingface" else OPENAI
    if layout(directory) is not None:
        return
    for name, content in zip(names, tokenizer.files, strict=True):
        if os.path.isfile(directory / name) and (directory / name).read_bytes() != content:
            raise GPTError(f"{directory} has another vocabulary, {name}, and no checkpoint: choose another directory.")
