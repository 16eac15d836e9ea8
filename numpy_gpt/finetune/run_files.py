"""Save and load the state of a fine-tuning run: a model, and beside it the trained leaves' moments and the settings.

With adapters, the model has them merged. So they are saved with the moments, and a resumed run reads the frozen weights
from the model that it started from.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..adamw import Moments
from ..checkpoint import verify
from ..checkpoint.layouts import home
from ..checkpoint.stored import Stored
from ..checkpoint.training_run import ADVICE, MOMENTS, PROGRESS, read_run
from ..errors import CheckpointError, GPTError
from ..params import named
from ..train.resume import check_command, fill_progress, replacing_state


def save(
    directory: Path, fill: Callable[[Path], None], step: int, about: Mapping[str, Any], trees: Mapping[str, Any]
) -> None:
    """Atomically replace a run's previous state; fill writes the model's files

    trees are the moments "m" and "v", and "trained" if the trained leaves are adapters.
    """
    tensors = {f"{kind}.{name}": a for kind, tree in trees.items() for name, a in named(tree)}
    with replacing_state(directory, "huggingface") as part:
        fill(part)
        fill_progress(part, step, about, tensors)


def load(directory: Path, task: str) -> tuple[int, dict[str, Any], dict[str, Stored]]:
    """Return a run's step, its settings and the tensors beside the model, after comparing them with their checksums"""
    if not os.path.isdir(directory):
        if os.path.lexists(directory):
            raise GPTError(f"{directory} is a file or a broken link: give the directory of a run.")
        raise GPTError(f"{directory} doesn't exist: leave --resume out to start a run.")
    place = home(directory)
    if not os.path.isfile(place / PROGRESS):
        raise GPTError(f"{directory} has no checkpoint of a run yet: leave --resume out to start one.")
    step, about, found = read_run(place)
    check_command(directory, about, task)
    verify.check_intact(place / MOMENTS, found, verify.check(found), ADVICE)
    return step, about, found


def fill_trees(directory: Path, found: Mapping[str, Stored], trees: Mapping[str, Any]) -> None:
    """Copy the stored tensors into the leaves of trees; raise CheckpointError if one is missing or doesn't fit"""
    for kind, tree in trees.items():
        for name, leaf in named(tree):
            stored = found.get(f"{kind}.{name}")
            if stored is None or (stored.shape, stored.dtype) != (leaf.shape, leaf.dtype.name):
                raise CheckpointError(
                    f"{directory / MOMENTS} has no tensor {kind}.{name} of the shape {leaf.shape} in "
                    f"{leaf.dtype.name}: {ADVICE}."
                )
            np.copyto(leaf, stored.array)


def trees_to_save(trained: Any, moments: Moments, adapters: bool) -> dict[str, Any]:
    """Return the trees that are saved beside the model"""
    return {"m": moments.m, "v": moments.v, **({"trained": trained} if adapters else {})}


def fingerprint(params: Any) -> str:
    """Return a hash of all parameters, by which a resumed run recognises the model that it started from"""
    digest = hashlib.sha256()
    for name, a in named(params):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(a).data)
    return digest.hexdigest()
