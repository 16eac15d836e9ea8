"""What the formats have in common: tensors as a file holds them, and how a table of names and shapes is read."""

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..config import SIZES, Config
from ..errors import CheckpointError, GPTError
from ..params import grow, named
from ..text.tokenizer import Tokenizer


class Stored(NamedTuple):
    """A tensor of a file that is mapped into memory, not read"""

    name: str  # the file's
    dtype: str  # the file's: float32, float16, bfloat16 ...
    shape: tuple[int, ...]  # the file's
    array: np.ndarray  # bfloat16, which NumPy lacks, as uint16
    crc: int | None = None  # masked CRC-32C, where the format has one


class Contents(NamedTuple):
    """A checkpoint of any format"""

    format: str
    config: Config
    tensors: dict[str, Stored]  # under our names, in our shapes
    tokenizer: Tokenizer | None


FLOATS = ("float32", "float16", "bfloat16", "float64")


def config_from(path: Path, values: Mapping[str, Any]) -> Config:
    """Of the words of hparams.json, and ours; others are passed over"""
    for word in SIZES:
        if word not in values:
            raise CheckpointError(f"{path} doesn't say {word}: get the file again.")
        if isinstance(values[word], int) and values[word] >= 1 << 31:
            raise CheckpointError(f"{path} says {word} is 2^31 or more, which no GPT-2 has: get the file again.")
    try:
        return Config(**{field.name: values[field.name] for field in fields(Config) if field.name in values})
    except GPTError as e:
        raise CheckpointError(f"{path}: {e}") from None


def hparams(config: Config) -> dict[str, Any]:
    """The five words of hparams.json, and ours where they aren't as in GPT-2"""
    return {word: value for word, value in asdict(config).items() if word in SIZES or value != getattr(Config, word)}


def numpy_dtype(dtype: str) -> np.dtype:
    """of the array that holds such numbers; every format is little-endian"""
    return np.dtype("uint16" if dtype == "bfloat16" else dtype).newbyteorder("<")


def view(data: np.ndarray, start: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor that starts at that byte; a copy only if it isn't aligned, since BLAS can't take it then"""
    a = data[start : start + math.prod(shape) * numpy_dtype(dtype).itemsize].view(numpy_dtype(dtype)).reshape(shape)
    return a if a.flags.aligned else a.copy()


def floats(stored: Stored, dtype: Any) -> np.ndarray:
    """In that dtype, as a view if it is the file's"""
    a = stored.array
    if stored.dtype == "bfloat16":
        a = (a.astype(np.uint32) << 16).view(np.float32)
    return a.astype(dtype, copy=False)


def packed(name: str, a: np.ndarray, dtype: Any) -> np.ndarray:
    """As it is written to a file"""
    with np.errstate(over="ignore"):
        contiguous = np.ascontiguousarray(a, np.dtype(dtype).newbyteorder("<"))
    if contiguous.itemsize < a.itemsize and np.isinf(contiguous).sum() > np.isinf(a).sum():
        raise GPTError(
            f"the parameter {name} has values that are too large for {np.dtype(dtype)}: save it as {a.dtype}."
        )
    return contiguous


def expand(table: str, config: Config) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The lines "ours theirs shape" of a table, for every layer -> {ours: (theirs, shape)} in the order of the tree"""
    C = config.n_embd
    sizes = {"1": 1, "C": C, "3C": 3 * C, "4C": 4 * C, "V": config.n_vocab, "N": config.n_ctx, "L": config.n_layer}
    rows = {}
    for line in table.strip().splitlines():
        ours, theirs, *shape = line.split()
        for i in range(config.n_layer if "{i}" in ours else 1):
            rows[ours.format(i=i)] = theirs.format(i=i), tuple(sizes[size] for size in shape)
    return {name: rows[name] for name, _ in named(grow(config, lambda name, *_: name))}


def fit(path: Path, table: str, config: Config, found: Mapping[str, Stored]) -> dict[str, Stored]:
    """The tensors that the table asks for and no other, under our names"""
    check_layers(path, config, found)
    rows = expand(table, config)
    for theirs, shape in rows.values():
        if theirs not in found:
            raise CheckpointError(f"{path} lacks the tensor {theirs}: it is incomplete, or no GPT-2 of {config}.")
        stored = found[theirs]
        if stored.dtype not in FLOATS:
            raise CheckpointError(f"{path}: the tensor {stored.name} holds {stored.dtype}, and weights are floats.")
        if stored.shape != shape:
            raise CheckpointError(
                f"{path}: the tensor {stored.name} is {stored.shape} and should be {shape} by {config}."
            )
    extra = found.keys() - {theirs for theirs, _ in rows.values()}
    if extra:
        raise CheckpointError(f"{path} has a tensor {found[min(extra)].name} that no GPT-2 of {config} has.")
    return {ours: found[theirs] for ours, (theirs, _) in rows.items()}


def check_layers(path: Path, config: Config, found: Collection) -> None:
    """A file can claim a billion layers, and expand would list their names"""
    if config.n_layer > len(found):
        raise CheckpointError(
            f"{path} has {len(found)} tensors, too few for the {config.n_layer} layers of its config."
        )
