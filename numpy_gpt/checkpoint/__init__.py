"""Read and write GPT-2's weights in three formats; every write is atomic."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from ..checks import check_model
from ..errors import CheckpointError, GPTError
from ..params import Model, grow, named
from ..text.template import Template
from ..text.tokenizer import Tokenizer
from . import huggingface, llmc, openai
from .destination import (
    SUFFIXES,
    check_can_be_directory,
    check_directory_name,
    check_suffix,
    outside_training_runs,
    tokenizer_to_write,
)
from .layouts import has_adapter, layout
from .stored import Contents, floats

DType = str | type | np.dtype
WRITERS: dict[str, Callable[..., None]] = {
    "huggingface": huggingface.write,
    "openai": openai.write,
    "llmc-v3": partial(llmc.write, version=3),
    "llmc-v1": partial(llmc.write, version=1),
}


def read_checkpoint(path: Path, n_head: int | None = None) -> Contents:
    """Return the contents of a checkpoint in any format; n_head is for files that don't contain it"""
    contents = read_format(path, n_head)
    if n_head not in (None, contents.config.n_head):
        raise GPTError(f"{path} has {contents.config.n_head} heads, and n_head is {n_head}: leave n_head out.")
    return contents


def read_format(path: Path, n_head: int | None) -> Contents:
    """Return the contents of a checkpoint, whose suffix or files show its format"""
    if os.path.isfile(path):
        if path.suffix == ".safetensors":
            return huggingface.read(path, n_head)
        if path.suffix == ".bin":
            return llmc.read(path)
        raise CheckpointError(
            f"{path} isn't a .safetensors or .bin file: if it belongs to OpenAI's layout, give its directory."
        )
    found = layout(path)
    if found:
        return openai.read(path) if found == "openai" else huggingface.read(path, n_head)
    if has_adapter(path):
        raise CheckpointError(
            f"{path} is a LoRA adapter without its model: merge both with python -m numpy_gpt.finetune merge."
        )
    raise CheckpointError(f"{path} has no checkpoint: neither model.ckpt.index nor model.safetensors is there.")


def to_model(contents: Contents, dtype: DType | None = None) -> Model:
    """Return the model of a checkpoint, by default in float32, or in float64 if a tensor is"""
    stored = contents.tensors
    if dtype is None:
        dtype = "float64" if any(tensor.dtype == "float64" for tensor in stored.values()) else "float32"
    dtype = allowed_dtype(("float32", "float64"), dtype)
    params = grow(contents.config, lambda name, *_: floats(stored[name], dtype))
    return Model(contents.config, params, contents.tokenizer)


def save(m: Model, path: str | os.PathLike[str], format: str | None = None, dtype: DType | None = None) -> None:
    """Write a model to a directory or a file; an earlier checkpoint there is replaced atomically

    Arguments:
        m: the model, with its tokenizer if it has one.
        path: a directory, which is created if necessary, or a file that ends in .safetensors or .bin. A file contains
            no tokenizer. A .bin file contains no dropout rate either.
        format: "huggingface", the layout that transformers loads; "openai", the layout of the released GPT-2;
            "llmc-v3" or "llmc-v1", the versions of llm.c's .bin files. Default: the layout of the checkpoint that the
            directory has already, else "huggingface"; for a .bin file "llmc-v3".
        dtype: the precision of the weights on disk, float16, float32 or float64. Default: that of m.

    If m has no tokenizer, the directory keeps its vocabulary. Files of transformers that would override the new ones
    are removed, such as tokenizer.json and generation_config.json, and so is the earlier checkpoint's template of
    instructions, template.json. Other files in the directory are left alone.

    Raises GPTError if path is the directory of a training run or of a LoRA adapter, has a checkpoint in another layout
    than `format` or in both layouts, or can't be written, and if the model doesn't fit the format. The earlier
    checkpoint is then unchanged. Raises CheckpointError if the tokenizer's files aren't a valid vocabulary.

    Example:
        m = numpy_gpt.load("storyteller")
        numpy_gpt.save(m, "stories")                     # transformers.AutoModelForCausalLM.from_pretrained("stories")
        numpy_gpt.save(m, "stories-tf", format="openai")
        numpy_gpt.save(m, "stories.safetensors", dtype="float16")
    """
    if not isinstance(m, Model) or not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise GPTError(f"save takes a Model and a path, not {type(m).__name__} and {path!r}.")
    save_with_template(m, path, format, dtype, None)


def save_with_template(
    m: Model, path: str | os.PathLike[str], format: str | None, dtype: DType | None, template: Template | None
) -> None:
    """Write a model as save does, and its template of instructions if path is a directory"""
    check_model(m)
    if "\0" in os.fspath(path):
        raise GPTError(f"path is {os.fspath(path)!r:.60}: no name of a file can contain a NUL.")
    path = Path(path)
    format = format or SUFFIXES.get(path.suffix) or layout(path) or "huggingface"
    dtype = allowed_dtype(("float16", "float32", "float64"), m.params.wte.dtype if dtype is None else dtype)
    if not isinstance(format, str) or format not in WRITERS:
        raise GPTError(f"format is {format!r}: it must be one of {', '.join(WRITERS)}.")
    check_suffix(path, format)
    if isinstance(m.tokenizer, Tokenizer):
        m.tokenizer.validate()
    single = path.suffix in SUFFIXES
    if not single:
        check_directory_name(path)
    check_can_be_directory(path.parent if single else path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with outside_training_runs(path.parent if single else path):
            tokenizer = None if single else tokenizer_to_write(path, format, m.config, m.tokenizer)
            WRITERS[format](path, m.config, dict(named(m.params)), dtype, tokenizer, template)
    except OSError as e:
        raise GPTError(f"{path} can't be written: {e.strerror}; a checkpoint that was there is unchanged.") from None


def allowed_dtype(allowed: tuple[str, ...], dtype: DType) -> np.dtype:
    """Return the dtype if its name is allowed; raise GPTError otherwise"""
    try:
        if np.dtype(dtype).name in allowed and np.dtype(dtype).isnative:
            return np.dtype(dtype)
    except (TypeError, ValueError):  # no dtype, or one of PyTorch's
        pass
    raise GPTError(f"dtype is {dtype!r}: it must be one of NumPy's {', '.join(allowed)}.")
