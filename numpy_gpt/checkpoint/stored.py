"""Share code between the formats: tensors in a file, and the tables of their names and shapes."""

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..config import SIZES, Config
from ..errors import CheckpointError, GPTError
from ..params import grow, named
from ..text.template import Template
from ..text.tokenizer import Tokenizer


class Stored(NamedTuple):
    """Hold a tensor in a file that is mapped into memory"""

    name: str  # in the file
    dtype: str  # in the file: float32, float16, bfloat16 ...
    shape: tuple[int, ...]  # in the file
    array: np.ndarray  # bfloat16, which NumPy lacks, as uint16
    crc: int | None = None  # masked CRC-32C, if the file contains one


class Contents(NamedTuple):
    """Hold a checkpoint in any format"""

    format: str
    config: Config
    tensors: dict[str, Stored]  # under our names, in our shapes
    tokenizer: Tokenizer | None
    template: Template | None = None  # of instructions; only a directory has one
    labels: list[str] | None = None  # of a classifier, whose head is the tensor head.w


FLOATS = ("float32", "float16", "bfloat16", "float64")


def config_from(path: Path, values: Mapping[str, Any]) -> Config:
    """Return the config with the values of hparams.json; ignore other keys"""
    for key in SIZES:
        if key not in values:
            raise CheckpointError(f"{path} lacks {key}: get the file again.")
        if isinstance(values[key], int) and values[key] >= 1 << 31:
            raise CheckpointError(f"{path} has {key} of 2^31 or more, which no GPT-2 has: get the file again.")
    try:
        return Config(**{field.name: values[field.name] for field in fields(Config) if field.name in values})
    except GPTError as e:
        raise CheckpointError(f"{path}: {e}") from None


def hparams(config: Config) -> dict[str, Any]:
    """Return the values of hparams.json: OpenAI's five, and our three if they differ from GPT-2's"""
    return {key: value for key, value in asdict(config).items() if key in SIZES or value != getattr(Config, key)}


def numpy_dtype(dtype: str) -> np.dtype:
    """Return the NumPy dtype for a format's dtype: little-endian, as in every format"""
    return np.dtype("uint16" if dtype == "bfloat16" else dtype).newbyteorder("<")


def view(data: np.ndarray, start: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return a view of the tensor that starts at a byte, or a copy if it isn't aligned, since BLAS needs alignment"""
    a = data[start : start + math.prod(shape) * numpy_dtype(dtype).itemsize].view(numpy_dtype(dtype)).reshape(shape)
    return a if a.flags.aligned else a.copy()


def floats(stored: Stored, dtype: Any) -> np.ndarray:
    """Return a tensor's values in a dtype: a view if the file has the same dtype, else a copy"""
    a = stored.array
    if stored.dtype == "bfloat16":
        a = (a.astype(np.uint32) << 16).view(np.float32)
    return a.astype(dtype, copy=False)


def packed(name: str, a: np.ndarray, dtype: Any) -> np.ndarray:
    """Return an array in the form that files contain: contiguous, little-endian, in a dtype"""
    with np.errstate(over="ignore"):
        contiguous = np.ascontiguousarray(a, np.dtype(dtype).newbyteorder("<"))
    if contiguous.itemsize < a.itemsize and np.isinf(contiguous).sum() > np.isinf(a).sum():
        raise GPTError(f"the parameter {name} has values that overflow {np.dtype(dtype)}: save the model as {a.dtype}.")
    return contiguous


def expand(table: str, config: Config) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return {ours: (theirs, shape)} in the order of the tree from a table with lines "ours theirs shape" """
    C = config.n_embd
    sizes = {"1": 1, "C": C, "3C": 3 * C, "4C": 4 * C, "V": config.n_vocab, "N": config.n_ctx, "L": config.n_layer}
    rows = {}
    for line in table.strip().splitlines():
        ours, theirs, *shape = line.split()
        for i in range(config.n_layer if "{i}" in ours else 1):
            rows[ours.format(i=i)] = theirs.format(i=i), tuple(sizes[size] for size in shape)
    return {name: rows[name] for name, _ in named(grow(config, lambda name, *_: name))}


def fit(path: Path, table: str, config: Config, found: Mapping[str, Stored]) -> dict[str, Stored]:
    """Return the tensors by our names; raise CheckpointError if they aren't exactly those of the table"""
    check_layers(path, config, found)
    rows = expand(table, config)
    for theirs, shape in rows.values():
        if theirs not in found:
            raise CheckpointError(f"{path} lacks the tensor {theirs}: it is incomplete, or not a GPT-2 of {config}.")
        stored = found[theirs]
        if stored.dtype not in FLOATS:
            raise CheckpointError(f"{path}: the tensor {stored.name} has dtype {stored.dtype}, and weights are floats.")
        if stored.shape != shape:
            raise CheckpointError(
                f"{path}: the tensor {stored.name} is {stored.shape} and should be {shape} by {config}."
            )
    extra = found.keys() - {theirs for theirs, _ in rows.values()}
    if extra:
        raise CheckpointError(
            f"{path} has a tensor {found[min(extra)].name} that no GPT-2 of {config} has: correct the config."
        )
    return {ours: found[theirs] for ours, (theirs, _) in rows.items()}


def check_layers(path: Path, config: Config, found: Collection) -> None:
    """Raise CheckpointError if a file has fewer tensors than layers, before expand lists a billion names"""
    if config.n_layer > len(found):
        raise CheckpointError(
            f"{path} has {len(found)} tensors, too few for the {config.n_layer} layers of its config."
        )
