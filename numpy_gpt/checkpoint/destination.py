"""Where a model may be saved: checks that no other data is lost there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..config import Config
from ..errors import GPTError
from ..system.files import LOCK, alone, replacing
from ..text.tokenizer import HUGGING_FACE, OPENAI
from ..text.tokenizer import load as load_tokenizer
from . import openai

FILE_SUFFIXES = {".safetensors", ".bin"}
FOREIGN_SUFFIXES = {".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".npz", ".h5", ".hdf5", ".msgpack", ".pb"}
FOREIGN_SUFFIXES |= {".onnx", ".tflite", ".gguf", ".ggml", ".index", ".json", ".toml", ".txt", ".zip", ".tar", ".gz"}


def check_directory_name(path: Path) -> None:
    """Raise if path looks like the name of a file"""
    suffix = path.suffix.lower()
    if suffix in FOREIGN_SUFFIXES | FILE_SUFFIXES and not os.path.isdir(path):
        raise GPTError(
            f"{path} can't be a checkpoint's directory because {path.suffix} is a file's suffix: give a directory, or "
            "a file that ends in .safetensors or .bin."
        )


@contextmanager
def outside_training_runs(directory: Path) -> Iterator[None]:
    """Raise if directory belongs to a training run; otherwise keep a run from starting there meanwhile"""
    for place in (directory, directory / openai.STAGE):
        for name in openai.TRAINING:
            if os.path.exists(place / name):
                raise GPTError(
                    f"{directory} is a training run's directory, and saving a model there would spoil the run: choose "
                    "another directory."
                )
    if os.path.exists(directory / LOCK):
        with alone(directory):
            yield
    else:
        yield


@contextmanager
def vocabulary_beside(file: Path, tokenizer: Any) -> Iterator[None]:
    """Write the tokenizer's two files beside a file that holds weights alone; raise if another vocabulary is there"""
    directory = file.parent
    there = load_tokenizer(directory) if tokenizer and os.path.isdir(directory) else None
    if there and there.files != tokenizer.files:
        raise GPTError(
            f"{file} can't be written beside {there.encoder}, another model's vocabulary, which load would give to it: "
            "choose another directory."
        )
    yield
    if tokenizer and not there:
        for name, content in zip(OPENAI, tokenizer.files, strict=True):
            with replacing(directory / name) as f:
                f.write(content)


def tokenizer_to_write(directory: Path, format: str, config: Config, tokenizer: Any) -> Any:
    """Return the model's tokenizer, or the directory's if the model has none that can be written"""
    if hasattr(tokenizer, "files") or not os.path.isdir(directory):
        return tokenizer
    there = load_tokenizer(directory, (HUGGING_FACE, OPENAI) if format == "huggingface" else (OPENAI, HUGGING_FACE))
    if there and there.n_vocab > config.n_vocab:
        raise GPTError(
            f"{directory} has a vocabulary of {there.n_vocab} tokens, too many for the model's n_vocab "
            f"{config.n_vocab}, and the model has no tokenizer to replace it: choose another directory."
        )
    return there
