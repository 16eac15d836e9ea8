"""Read and check the files that a training run saves beside its model: its progress and Adam's moments."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import Config
from ..errors import CheckpointError
from ..params import grow
from ..system.files import read_bytes, read_json
from . import safetensors, verify
from .crc32c import crc32c, mask
from .layouts import TRAINING
from .stored import Stored

PROGRESS, MOMENTS = TRAINING
Shape = tuple[int, ...]
ADVICE = "restore the directory from a copy, or start a new run"


def checksum(content: bytes) -> str:
    """Return the masked CRC-32C in hexadecimal"""
    return f"{mask(crc32c(content)):08x}"


def read_run(directory: Path) -> tuple[int, dict[str, Any], dict[str, Stored]]:
    """Return a run's step, its settings and texts, and Adam's moments, whose values aren't read yet

    Raises CheckpointError if the two files don't belong together.
    """
    path = directory / MOMENTS
    about = read_json(directory / PROGRESS, advice=ADVICE)
    step = about.pop("step", None)
    if type(step) is not int or step < 0 or not isinstance(about.get("settings"), dict) or "text" not in about:
        raise CheckpointError(f"{directory / PROGRESS} lacks the step, the settings or the text of its run: {ADVICE}.")
    metadata, found = safetensors.read(path, ADVICE)
    if metadata.get("step") != str(step):
        raise CheckpointError(f"{path} is of step {metadata.get('step')}, and {PROGRESS} of step {step}: {ADVICE}.")
    if metadata.get(PROGRESS) not in (None, checksum(read_bytes(directory / PROGRESS, 1 << 20))):
        raise CheckpointError(f"{directory / PROGRESS} is corrupt: its checksum isn't the one in {MOMENTS}; {ADVICE}.")
    return step, about, found


def check_partial_moments(
    directory: Path, about: Mapping[str, Any], found: Mapping[str, Stored], shapes: Mapping[str, Shape], dtype: str
) -> None:
    """Raise CheckpointError if the tensors beside a model are corrupt or aren't those of a run of finetune

    Such a run can train a part of a model, or adapters, which are saved as the tensors `trained`. shapes are those of
    the model's parameters.
    """
    path = directory / MOMENTS
    verify.check_intact(path, found, verify.check(found), ADVICE)
    rank = about["settings"].get("lora")
    expected = adapter_shapes(shapes, rank) if rank else shapes
    trees: dict[str, dict[str, Shape]] = {kind: {} for kind in (*"mv", *(["trained"] if rank else []))}
    for name, stored in found.items():
        kind, _, leaf = name.partition(".")
        if kind not in trees or stored.shape != expected.get(leaf) or stored.dtype != dtype:
            raise CheckpointError(f"{path} has the tensor {name}, which doesn't belong to the run: {ADVICE}.")
        trees[kind][leaf] = stored.shape
    if not trees["m"] or any(tree.keys() != trees["m"].keys() for tree in trees.values()):
        raise CheckpointError(f"{path} doesn't have the same tensors of {', '.join(trees)}: {ADVICE}.")


def adapter_shapes(shapes: Mapping[str, Shape], rank: int) -> dict[str, Shape]:
    """Return the shapes of the adapters of all matrices, and that of a classifier's head, by name"""
    found = {name: shape for name, shape in shapes.items() if name == "head.w"}
    for name, shape in shapes.items():
        matrix, _, leaf = name.rpartition(".")
        if matrix.startswith("h.") and leaf == "w":
            found |= {f"{matrix}.a": (shape[0], rank), f"{matrix}.b": (rank, shape[1])}
    return found


def check_moments(directory: Path, found: Mapping[str, Stored], config: Config, dtype: str) -> None:
    """Raise CheckpointError if Adam's moments are corrupt or belong to another model"""
    path = directory / MOMENTS
    verify.check_intact(path, found, verify.check(found), ADVICE)

    def check(name: str, *shape: int) -> None:
        for kind in ("m", "v"):
            stored = found.get(f"{kind}.{name}")
            if stored is None or (stored.shape, stored.dtype) != (shape, dtype):
                raise CheckpointError(f"{path} has no tensor {kind}.{name} of the shape {shape} in {dtype}: {ADVICE}.")

    grow(config, check)
