"""Check that saving a model to a path loses no other data."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..config import Config
from ..errors import CheckpointError, GPTError
from ..system.atomic import replacing
from ..system.locks import RUN_LOCK, locked_run
from ..text import template
from ..text.tokenizer import HUGGING_FACE, OPENAI, TOKENIZER_JSON, Tokenizer
from ..text.tokenizer import load as load_tokenizer
from .huggingface import VOCABULARIES
from .layouts import LAYOUTS, OBEYED, OLD_STAGE, TRAINING, has_adapter, home, layout

SUFFIXES = {".safetensors": "huggingface", ".bin": "llmc-v3"}  # of files, and their formats
FOREIGN_SUFFIXES = {".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".npz", ".h5", ".hdf5", ".msgpack", ".pb"}
FOREIGN_SUFFIXES |= {".onnx", ".tflite", ".gguf", ".ggml", ".index", ".json", ".toml", ".txt", ".zip", ".tar", ".gz"}


def check_suffix(path: Path, format: str | None) -> None:
    """Raise GPTError if a checkpoint of this format can't have the suffix of path; None fits every suffix"""
    if format is None:
        return
    if format.startswith("llmc") and path.suffix != ".bin":
        raise GPTError(f"{path} can't be a file of {format}, since llm.c's files end in .bin: give such a name.")
    if not format.startswith("llmc") and path.suffix == ".bin":
        raise GPTError(f"{path} can't be in {format}'s format, since .bin files are llm.c's: choose another name.")
    if (path.suffix, format) == (".safetensors", "openai"):
        raise GPTError(f"{path} can't be in OpenAI's layout, which is a directory: leave .safetensors out.")


def check_can_be_directory(path: Path) -> None:
    """Raise GPTError if path or one of its parents exists and isn't a directory"""
    for place in (path, *path.parents):
        if os.path.lexists(place) and not os.path.isdir(place):
            broken = os.path.islink(place) and not os.path.exists(place)
            kind = "a broken symbolic link" if broken else "a file" if os.path.isfile(place) else "not a directory"
            why = f"it is {kind}" if place == path else f"{place} is {kind}"
            raise GPTError(f"{path} can't be written, since {why}: choose another directory.")


def check_directory_name(
    path: Path, advice: str = "give a directory, or a file that ends in .safetensors or .bin"
) -> None:
    """Raise GPTError if path looks like the name of a file"""
    suffix = path.suffix.lower()
    if suffix in FOREIGN_SUFFIXES | SUFFIXES.keys() and not os.path.isdir(path):
        raise GPTError(f"{path} can't be a checkpoint's directory because {path.suffix} is a file's suffix: {advice}.")


def check_no_run(directory: Path) -> None:
    """Raise GPTError if a training run has saved its state to a directory"""
    stages = [OLD_STAGE, *(layout.stage for layout in LAYOUTS.values())]
    for place in (directory, *(directory / stage for stage in stages)):
        for name in TRAINING:
            if os.path.exists(place / name):
                raise GPTError(
                    f"{directory} is a training run's directory, and saving a model there would spoil the run: choose "
                    "another directory."
                )


def check_no_adapter(directory: Path) -> None:
    """Raise GPTError if a directory has a LoRA adapter, since transformers would apply it to a model beside it"""
    if has_adapter(directory):
        raise GPTError(
            f"{directory} has a LoRA adapter, which transformers would apply to the model: choose another directory."
        )


@contextmanager
def outside_training_runs(directory: Path) -> Iterator[None]:
    """Raise GPTError if a directory belongs to a training run, even if the run has saved nothing yet"""
    check_no_run(directory)
    if os.path.exists(directory / RUN_LOCK):
        with locked_run(directory):
            yield
    else:
        yield


def weights_beside(file: Path) -> list[Path]:
    """Return the other files with weights in a file's directory, which would share a vocabulary there"""
    return [p for p in file.parent.iterdir() if p.suffix in {*SUFFIXES, ".index"} and p.name != file.name]


def write_vocabulary_beside(file: Path, tokenizer: Tokenizer) -> list[Path]:
    """Write encoder.json and vocab.bpe to the directory of a file with weights; return their paths"""
    for name, content in zip(OPENAI, tokenizer.files, strict=True):
        with replacing(file.parent / name) as f:
            f.write(content)
    return [file.parent / name for name in OPENAI]


def has_vocabulary_beside(file: Path) -> bool:
    """Return whether load would find a vocabulary in the directory of a file"""
    return load_tokenizer(file.parent, order(file)) is not None


def check_vocabulary_beside(file: Path, tokenizer: Tokenizer | None) -> None:
    """Raise GPTError if the directory of a file has another vocabulary than the model's"""
    check_no_run(file.parent)
    there = load_tokenizer(file.parent, order(file)) if tokenizer and os.path.isdir(file.parent) else None
    if tokenizer and there and there.files != tokenizer.files:
        raise GPTError(
            f"{file} can't be written beside {there.encoder}, another model's vocabulary, because load would use that "
            "one: choose another directory."
        )


def order(file: Path) -> tuple[tuple[str, ...], ...]:
    """Return the names of a vocabulary's files in the order in which load looks for them beside a file"""
    return VOCABULARIES if file.suffix == ".safetensors" else (OPENAI, HUGGING_FACE, TOKENIZER_JSON)


def tokenizer_to_write(directory: Path, format: str, config: Config, tokenizer: Any) -> Tokenizer | None:
    """Return the model's tokenizer, or the directory's if the model has none that can be written"""
    if not os.path.isdir(directory):
        return tokenizer if isinstance(tokenizer, Tokenizer) else None
    check_no_adapter(directory)
    check_other_files(directory, format)
    if isinstance(tokenizer, Tokenizer):
        check_lone_vocabulary(directory, format, tokenizer)
        return tokenizer
    names = VOCABULARIES if format == "huggingface" else (OPENAI, HUGGING_FACE, TOKENIZER_JSON)
    there = load_tokenizer(home(directory), names)
    if there and there.n_vocab > config.n_vocab:
        raise GPTError(
            f"{directory} has a vocabulary of {there.n_vocab} tokens, too many for the model's n_vocab "
            f"{config.n_vocab}, and the model has no tokenizer to replace it: choose another directory."
        )
    return there


def check_other_files(directory: Path, format: str) -> None:
    """Raise GPTError if saving would replace a file that belongs to no checkpoint"""
    names = ("config.json", "tokenizer_config.json", *OBEYED) if format == "huggingface" else ()
    for name in sorted({*names, template.FILE} - {*TOKENIZER_JSON}):  # check_lone_vocabulary is for that one
        if layout(directory) is None and os.path.exists(directory / name):
            raise GPTError(f"{directory} has {name}, and no checkpoint that it belongs to: choose another directory.")


def check_lone_vocabulary(directory: Path, format: str, tokenizer: Tokenizer) -> None:
    """Raise GPTError if the model's vocabulary would replace one that belongs to no checkpoint"""
    if layout(directory) is not None:
        return
    other = [
        name
        for name, content in zip(LAYOUTS[format].vocabulary, tokenizer.files, strict=True)
        if os.path.isfile(directory / name) and (directory / name).read_bytes() != content
    ]
    if format == "huggingface" and has_other_tokenizer_json(directory, tokenizer):
        other += TOKENIZER_JSON
    if other:
        raise GPTError(f"{directory} has another vocabulary, {other[0]}, and no checkpoint: choose another directory.")


def has_other_tokenizer_json(directory: Path, tokenizer: Tokenizer) -> bool:
    """Return whether a directory has a tokenizer.json that isn't equal to a tokenizer"""
    there = load_tokenizer(directory, [TOKENIZER_JSON])
    try:
        return there is not None and there.files != tokenizer.files
    except CheckpointError:  # it isn't byte-level BPE
        return True
