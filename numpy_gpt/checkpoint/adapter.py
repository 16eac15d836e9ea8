"""Read, write and merge LoRA adapters in PEFT's layout: adapter_config.json and adapter_model.safetensors.

PEFT stores the transposed factors: lora_A.weight is aᵀ (R,I), and lora_B.weight is bᵀ (O,R).
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from ..checks import all_finite
from ..config import Config
from ..errors import CheckpointError, GPTError
from ..lora import TARGETS, Adapter, adapt
from ..number import is_index, is_real
from ..params import MLP, Attn, Block, Model, grow, named, tree_map
from ..system.atomic import making, read_consistently, replacing_files, writing
from ..system.locks import locked
from ..text import template as templates
from ..text.template import Template
from . import adapter_config, safetensors, verify
from .adapter_config import LARGEST_ALPHA, Description
from .destination import check_can_be_directory, check_directory_name, outside_training_runs
from .huggingface import as_json
from .layouts import ADAPTER, ADAPTER_STAGE, adapter_home, layout
from .stored import FLOATS, Stored, floats

CONFIG, WEIGHTS = ADAPTER
FILES = (*ADAPTER, templates.FILE)
PICKLE = "adapter_model.bin"  # of older versions of PEFT
PREFIX, BODY = "base_model.model.", "transformer."  # of the names of tensors; GPT2Model, which has no head, has no BODY
HEAD = "score.weight"  # of a classifier


class LoraAdapters(NamedTuple):
    """Hold the LoRA adapters of a model: its adapted matrices are w + scale a b with scale = alpha / rank"""

    adapters: list[Block]  # like the model's h, with an Adapter or None for each Linear, and None for each LayerNorm
    rank: int
    alpha: float
    head: np.ndarray | None = None  # (K,C), of a classifier with K classes
    base: str = ""  # the path or the name of the model that they were trained on, if it is known
    template: Template | None = None  # of the instructions that they were trained on; PEFT ignores its file

    @property
    def scale(self) -> float:
        """Return the factor of a b"""
        return self.alpha / self.rank


def merge(m: Model, lora: LoraAdapters) -> Model:
    """Return the model with its adapted matrices as plain weights, in its dtype; it shares all other arrays with m

    A classifier's head isn't part of a Model: it stays in lora.

    Raises GPTError if the adapters don't fit the model, or if a merged matrix has an inf or a NaN.
    """
    check_fit(lora, m.config)
    dtype = m.params.wte.dtype
    with np.errstate(over="ignore", invalid="ignore"):
        h, _ = adapt(m.params.h, tree_map(lambda a: a.astype(dtype), lora.adapters), lora.scale)
    for name, a in named(h, "h"):
        if not all_finite(a):
            raise GPTError(
                f"{name} has an inf or a NaN after merging: the model is damaged, or the adapter's values are too "
                f"large for {dtype}; choose another adapter."
            )
    return m._replace(params=m.params._replace(h=h))


def read_description(directory: Path) -> Description:
    """Return the rank, the alpha and the base model of the adapters in a directory"""
    return read_consistently(directory, describe, files)


def read(directory: Path, config: Config) -> LoraAdapters:
    """Return copies of the adapters in a directory, in float64 if a tensor is, else in float32

    Arguments:
        directory: a directory in PEFT's layout, which PEFT or write saved.
        config: that of the model that the adapters were trained on.

    Raises CheckpointError if a file is missing or damaged, if a shape doesn't fit the config, or if the adapters need
    other arithmetic than w + scale a b, such as DoRA.
    """
    return read_consistently(directory, lambda directory: read_directory(directory, config), files)


def write(directory: Path, lora: LoraAdapters, config: Config) -> None:
    """Write adapters to a directory, which is created if necessary; earlier ones there are replaced atomically

    Raises GPTError if the adapters don't fit the config, and if the directory belongs to a model or to a training run
    or can't be written. It is then unchanged.
    """
    check_fit(lora, config)
    check_directory_name(directory, "choose a name without it")
    check_can_be_directory(directory)
    try:
        with making(directory), outside_training_runs(directory), locked(directory):
            check_replaceable(directory)
            with replacing_files(directory, directory / ADAPTER_STAGE, [directory / templates.FILE]) as part:
                fill(part, lora)
    except OSError as e:
        raise GPTError(f"{directory} can't be written: {e.strerror}; an adapter that was there is unchanged.") from None


def fill(directory: Path, lora: LoraAdapters) -> None:
    """Write the files of adapters to an empty directory, as PEFT's from_pretrained reads them"""
    tensors = to_tensors(lora)
    dtype = np.result_type(*tensors.values())
    keys = adapter_config.contents(lora.adapters, lora.rank, lora.alpha, lora.base, lora.head is not None)
    metadata = {"format": "pt", safetensors.CHECKSUMS: safetensors.checksums(tensors, dtype)}
    with writing(directory / CONFIG) as f:
        f.write(as_json(keys))
    with writing(directory / WEIGHTS) as f:
        safetensors.write(f, tensors, dtype, metadata)
    if lora.template:
        with writing(directory / templates.FILE) as f:
            f.write(templates.as_json(lora.template))


def to_tensors(lora: LoraAdapters) -> dict[str, np.ndarray]:
    """Return the arrays by PEFT's names and in its shapes"""
    tensors = {} if lora.head is None else {PREFIX + HEAD: lora.head}
    for name, factor in named(lora.adapters, "h"):
        matrix, letter = name.rsplit(".", 1)
        tensors[f"{PREFIX}{BODY}{matrix}.lora_{letter.upper()}.weight"] = factor.T
    return tensors


def check_replaceable(directory: Path) -> None:
    """Raise GPTError if a directory has a model, or a file of the same name that belongs to no adapter"""
    if layout(directory):
        raise GPTError(
            f"{directory} has a model, to which transformers would apply an adapter there: choose another directory."
        )
    there = [name for name in FILES if os.path.exists(adapter_home(directory) / name)]
    if there and not {*ADAPTER} <= {*there}:
        raise GPTError(
            f"{directory} has {there[0]}, and no adapter that it belongs to: remove it, or choose another directory."
        )


def files(directory: Path) -> list[Path]:
    """Return the files that read may read: in the stage, and in the directory"""
    return [place / name for place in (directory, directory / ADAPTER_STAGE) for name in FILES]


def describe(directory: Path) -> Description:
    """Return the description in a directory that no process writes to"""
    check_there(directory)
    return adapter_config.read(adapter_home(directory) / CONFIG)


def check_there(directory: Path) -> None:
    """Raise CheckpointError unless a directory has the files of an adapter"""
    place = adapter_home(directory)
    if not os.path.isdir(directory):
        kind = "isn't a directory" if os.path.exists(directory) else "doesn't exist"
        raise CheckpointError(f"{directory} {kind}: give the directory of a LoRA adapter.")
    if not os.path.isfile(place / CONFIG):
        raise CheckpointError(f"{directory} has no {CONFIG}: give the directory of a LoRA adapter in PEFT's layout.")
    if os.path.isfile(place / WEIGHTS):
        return
    if os.path.isfile(place / PICKLE):
        raise CheckpointError(
            f"{directory} has its weights in {PICKLE}, a pickle, which can run code when it is read: save the adapter "
            f"again with a newer version of PEFT, as {WEIGHTS}."
        )
    raise CheckpointError(f"{directory} has no {WEIGHTS}: get the adapter again.")


def read_directory(directory: Path, config: Config) -> LoraAdapters:
    """Return the adapters in a directory that no process writes to"""
    rank, alpha, base = describe(directory)
    path = adapter_home(directory) / WEIGHTS
    _, found = safetensors.read(path)
    tensors = {name.removeprefix(PREFIX).removeprefix(BODY): stored for name, stored in found.items()}
    if len(tensors) < len(found):
        raise CheckpointError(f"{path} has a tensor twice, with and without a prefix: save it again.")
    check_tensors(path, tensors, rank, config)
    verify.check_intact(path, found, verify.check(found))
    dtype = "float64" if any(stored.dtype == "float64" for stored in found.values()) else "float32"
    arrays = {name: floats(stored, dtype) for name, stored in tensors.items()}
    head = np.array(arrays[HEAD]) if HEAD in arrays else None
    template = templates.load(adapter_home(directory))
    return LoraAdapters(to_tree(arrays, config), rank, alpha, head, base, template)


def check_tensors(path: Path, tensors: Mapping[str, Stored], rank: int, config: Config) -> None:
    """Raise CheckpointError unless tensors are pairs of factors of the model's matrices, and perhaps a head"""
    expected: dict[str, tuple[int, ...]] = {}
    for name, (i, o) in matrices(config).items():
        pair = {f"{name}.lora_A.weight": (rank, i), f"{name}.lora_B.weight": (o, rank)}
        lacking = pair.keys() - tensors.keys()
        if len(lacking) == 1:
            raise CheckpointError(f"{path} lacks the tensor {PREFIX}{BODY}{lacking.pop()}: get the adapter again.")
        expected |= {} if lacking else pair
    if not expected:
        raise CheckpointError(f"{path} has no adapter of a matrix of the model: get the right adapter.")
    if HEAD in tensors:
        expected[HEAD] = (*tensors[HEAD].shape[:1], config.n_embd)
    for name, stored in tensors.items():
        if name not in expected:
            raise CheckpointError(
                f"{path} has the tensor {stored.name}, which isn't supported: only {', '.join(TARGETS)} of the "
                f"model's {config.n_layer} blocks can have adapters."
            )
        if stored.dtype not in FLOATS:
            raise CheckpointError(f"{path}: the tensor {stored.name} has dtype {stored.dtype}, and weights are floats.")
        if stored.shape != expected[name]:
            raise CheckpointError(
                f"{path}: the tensor {stored.name} is {stored.shape} and should be {expected[name]} for r {rank} and "
                f"{config}: give the model that the adapter was trained on."
            )


def matrices(config: Config) -> dict[str, tuple[int, int]]:
    """Return the names of all matrices that can have adapters, with their shapes (I,O)"""
    shapes: dict[str, tuple] = {}
    grow(config, lambda name, *shape: shapes.setdefault(name, shape))
    names = [f"h.{i}.{target}" for i in range(config.n_layer) for target in TARGETS]
    return {name: shapes[f"{name}.w"] for name in names}


def to_tree(arrays: Mapping[str, np.ndarray], config: Config) -> list[Block]:
    """Return copies of PEFT's arrays as adapters"""

    def adapter(name: str) -> Any:
        if f"{name}.lora_A.weight" not in arrays:
            return None
        return Adapter(*(np.array(arrays[f"{name}.lora_{letter}.weight"].T, order="C") for letter in "AB"))

    blocks, norm = [], cast(Any, None)  # no LayerNorm has an adapter
    for i in range(config.n_layer):
        c_attn, attn_proj, c_fc, mlp_proj = (adapter(f"h.{i}.{target}") for target in TARGETS)
        blocks.append(Block(norm, Attn(c_attn, attn_proj), norm, MLP(c_fc, mlp_proj)))
    return blocks


def check_fit(lora: LoraAdapters, config: Config) -> None:
    """Raise GPTError unless the adapters are finite arrays that fit the config and the rank"""
    if not is_index(lora.rank) or lora.rank < 1:
        raise GPTError(f"rank is {lora.rank!r}: it must be a whole number of at least 1.")
    if not is_real(lora.alpha) or abs(lora.alpha) > LARGEST_ALPHA:
        raise GPTError(f"alpha is {lora.alpha!r}: it must be a number of at most {LARGEST_ALPHA:.0e}.")
    if len(lora.adapters) != config.n_layer:
        raise GPTError(f"there are adapters of {len(lora.adapters)} blocks, and the model has {config.n_layer}.")
    arrays, sizes = dict(named(lora.adapters, "h")), matrices(config)
    if not arrays:
        raise GPTError("there is no adapter of a matrix: create some with new_adapters.")
    expected = {}
    for name in arrays:
        matrix, factor = name.rsplit(".", 1)
        expected[name] = (sizes[matrix][0], lora.rank) if factor == "a" else (lora.rank, sizes[matrix][1])
    if lora.head is not None:
        arrays["head"], expected["head"] = lora.head, (*lora.head.shape[:1], config.n_embd)
    for name, a in arrays.items():
        if not isinstance(a, np.ndarray) or a.dtype not in (np.float16, np.float32, np.float64):
            raise GPTError(f"the adapter {name} isn't an array of floats: convert it to NumPy's float32.")
        if a.shape != expected[name]:
            raise GPTError(
                f"the adapter {name} has the shape {a.shape}, and rank {lora.rank} and {config} need {expected[name]}."
            )
        if not all_finite(a):
            raise GPTError(f"the adapter {name} has an inf or a NaN: take an earlier one.")
