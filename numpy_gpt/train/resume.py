"""A run of training on disk: a checkpoint like any other, and beside it Adam's moments and where the run stands.

All of them change in one step, so that a run can be killed at any moment. There is no more to keep: what is drawn at
random, windows and dropout, follows from the seed and the number of the step.
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..adamw import Moments
from ..checkpoint import openai, safetensors, verify
from ..checkpoint.crc32c import crc32c, mask
from ..checkpoint.stored import floats
from ..checks import check_model
from ..config import Config
from ..errors import CheckpointError, GPTError
from ..params import Model, grow, named
from ..system.files import read_bytes, read_json

STANDING, MOMENTS = openai.TRAINING
AGAIN = "restore the directory from a copy, or begin a new run"


class State(NamedTuple):
    m: Model
    moments: Moments
    step: int  # so many are done
    about: dict[str, Any]  # what was asked for, and of which text


def save(directory: Path, state: State) -> None:
    """In the place of the state before, or not at all"""
    m, moments, step, about = state
    check_model(m)
    dtype = m.params.wte.dtype
    standing = json.dumps({"step": step, **about}, indent=2).encode() + b"\n"
    tensors = dict(named(moments))
    metadata = {"step": str(step), STANDING: checksum(standing)}
    metadata[safetensors.CHECKSUMS] = safetensors.checksums(tensors, dtype)
    training: openai.Writers = {
        STANDING: lambda f: f.write(standing),
        MOMENTS: lambda f: safetensors.write(f, tensors, dtype, metadata),
    }
    try:
        openai.write(directory, m.config, dict(named(m.params)), dtype, m.tokenizer, training)
    except OSError as e:
        raise GPTError(f"{directory} can't be written: {e.strerror}; what was there before still is.") from None


def load(directory: Path) -> State:
    """Read a run, compare all of it with its checksums, and copy it, since training writes to it"""
    home = openai.find_prefix(directory).parent
    if not os.path.isfile(home / STANDING):
        raise CheckpointError(f"{directory} is no training run, since it has no {STANDING}: leave --resume out.")
    contents = openai.read(directory)
    about = read_json(home / STANDING)
    step = about.pop("step", None)
    if type(step) is not int or step < 0 or not isinstance(about.get("settings"), dict) or "text" not in about:
        raise CheckpointError(f"{home / STANDING} doesn't say which step of which run it is: {AGAIN}.")
    verify.check_intact(directory, contents.tensors, verify.check(contents.tensors), AGAIN)
    dtype = contents.tensors["wte"].dtype
    params = grow(contents.config, lambda name, *_: np.array(floats(contents.tensors[name], dtype)))
    moments = read_moments(home, contents.config, dtype, step)
    return State(Model(contents.config, params, contents.tokenizer), moments, step, about)


def checksum(content: bytes) -> str:
    return f"{mask(crc32c(content)):08x}"


def read_moments(home: Path, config: Config, dtype: str, step: int) -> Moments:
    path = home / MOMENTS
    metadata, found = safetensors.read(path)
    if metadata.get("step") != str(step):
        raise CheckpointError(f"{path} is of step {metadata.get('step')}, and {STANDING} of step {step}: {AGAIN}.")
    if metadata.get(STANDING) not in (None, checksum(read_bytes(home / STANDING, 1 << 20))):
        raise CheckpointError(f"{home / STANDING} is corrupt: its checksum isn't the one in {MOMENTS}; {AGAIN}.")
    verify.check_intact(path, found, verify.check(found), AGAIN)

    def leaf(name, shape):
        stored = found.get(name)
        if stored is None or (stored.shape, stored.dtype) != (shape, dtype):
            raise CheckpointError(f"{path} has no tensor {name} of the shape {shape} in {dtype}: {AGAIN}.")
        return np.array(stored.array)

    def tree(kind):
        return grow(config, lambda name, *shape: leaf(f"{kind}.{name}", shape))

    return Moments(m=tree("m"), v=tree("v"))
