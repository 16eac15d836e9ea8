"""Read and write GPT-2's weights in three formats; a write is atomic."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import check_model
from ..errors import CheckpointError, GPTError
from ..params import Model, grow, named
from . import huggingface, llmc, openai
from .destination import SUFFIXES, check_directory_name, outside_training_runs, tokenizer_to_write
from .layouts import layout
from .stored import Contents, floats

WRITERS: dict[str, Callable[..., None]] = {
    "openai": openai.write,
    "huggingface": huggingface.write,
    "llmc-v3": partial(llmc.write, version=3),
    "llmc-v1": partial(llmc.write, version=1),
}


def to_model(contents: Contents, dtype: Any = None) -> Model:
    stored = contents.tensors
    if dtype is None:
        dtype = "float64" if any(tensor.dtype == "float64" for tensor in stored.values()) else "float32"
    dtype = allowed_dtype(("float32", "float64"), dtype)
    params = grow(contents.config, lambda name, *_: floats(stored[name], dtype))
    return Model(contents.config, params, contents.tokenizer)


def read(path: Path, n_head: int | None = None) -> Contents:
    contents = read_layout(path, n_head)
    if n_head not in (None, contents.config.n_head):
        raise GPTError(f"{path} has {contents.config.n_head} heads, and n_head is {n_head}: leave that out.")
    return contents


def read_layout(path: Path, n_head: int | None) -> Contents:
    if os.path.isfile(path):
        if path.suffix == ".safetensors":
            return huggingface.read(path, n_head)
        if path.suffix == ".bin":
            return llmc.read(path)
        raise CheckpointError(
            f"{path} is no .safetensors or .bin file: if it is of OpenAI's layout, give its directory."
        )
    found = layout(path)
    if found:
        return openai.read(path) if found == "openai" else huggingface.read(path, n_head)
    raise CheckpointError(f"{path} has no checkpoint: neither model.ckpt.index nor model.safetensors is there.")


def save(m: Model, path: str | Path, format: str | None = None, dtype: Any = None) -> None:
    """Write a model to a directory in OpenAI's layout, or to a file if path ends in .safetensors or .bin

    format, one of WRITERS, chooses another layout. Weights are written as they are, or as float16, float32 or float64
    if dtype is given. An older checkpoint at path is replaced when the new one is complete. A directory's vocabulary
    stays if the model has no tokenizer. A file holds no tokenizer, and .bin holds no dropout rate. The directory of a
    training run is refused.
    """
    if not isinstance(m, Model) or not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise GPTError(f"save takes a Model and a path, and not {type(m).__name__} and {path!r}.")
    check_model(m)
    path = Path(path)
    format = format or SUFFIXES.get(path.suffix, "openai")
    dtype = allowed_dtype(("float16", "float32", "float64"), m.params.wte.dtype if dtype is None else dtype)
    if format not in WRITERS:
        raise GPTError(f"format is {format!r}: it must be one of {', '.join(WRITERS)}.")
    if (path.suffix == ".bin") != format.startswith("llmc") or (path.suffix, format) == (".safetensors", "openai"):
        raise GPTError(f"{path} is no name for {format}: llm.c's files end in .bin, and no directory in .safetensors.")
    getattr(m.tokenizer, "vocabulary", None)  # what can't be read isn't written
    single = path.suffix in SUFFIXES
    if not single:
        check_directory_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with outside_training_runs(path.parent if single else path):
            tokenizer = None if single else tokenizer_to_write(path, format, m.config, m.tokenizer)
            WRITERS[format](path, m.config, dict(named(m.params)), dtype, tokenizer)
    except OSError as e:
        raise GPTError(f"{path} can't be written: {e.strerror}; a checkpoint that was there is still whole.") from None


def allowed_dtype(allowed: tuple[str, ...], dtype: Any) -> np.dtype:
    try:
        if np.dtype(dtype).name in allowed and np.dtype(dtype).isnative:
            return np.dtype(dtype)
    except (TypeError, ValueError):  # no dtype at all, or one of PyTorch's
        pass
    raise GPTError(f"dtype is {dtype!r}: it must be one of NumPy's {', '.join(allowed)}.")
