"""Save and load a training run: a checkpoint, and beside it Adam's moments, the step, and the settings of the run.

All files change in one atomic step, so that a run can be killed at any moment. Random numbers need no state: the seed
and the step determine windows and dropout.
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..adamw import Moments
from ..checkpoint import huggingface, openai, read_checkpoint, safetensors, verify
from ..checkpoint.crc32c import crc32c, mask
from ..checkpoint.layouts import TRAINING, home, layout, replacing_checkpoint
from ..checkpoint.stored import floats
from ..checks import check_model
from ..config import Config
from ..errors import CheckpointError, GPTError
from ..params import Model, grow, named
from ..system.atomic import replacing
from ..system.files import read_bytes, read_json

PROGRESS, MOMENTS = TRAINING
ADVICE = "restore the directory from a copy, or start a new run"


class State(NamedTuple):
    """Hold the state of a training run between two steps"""

    m: Model
    moments: Moments
    step: int  # steps that are done
    about: dict[str, Any]  # settings: the options; text: the keys of the texts


def save(directory: Path, state: State, format: str = "huggingface") -> None:
    """Atomically replace a run's previous state; format is the layout of a directory that has no state yet"""
    m, moments, step, about = state
    check_model(m)
    dtype = m.params.wte.dtype
    progress = json.dumps({"step": step, **about}, indent=2).encode() + b"\n"
    tensors = dict(named(moments))
    metadata = {"step": str(step), PROGRESS: checksum(progress)}
    metadata[safetensors.CHECKSUMS] = safetensors.checksums(tensors, dtype)
    format = layout(directory) or format
    fill = openai.fill if format == "openai" else huggingface.fill
    try:
        with replacing_checkpoint(directory, format) as part:
            fill(part, m.config, dict(named(m.params)), dtype, m.tokenizer)
            with replacing(part / PROGRESS) as f:
                f.write(progress)
            with replacing(part / MOMENTS) as f:
                safetensors.write(f, tensors, dtype, metadata)
    except OSError as e:
        raise GPTError(f"{directory} can't be written: {e.strerror}; a previous state is unchanged.") from None


def load(directory: Path) -> State:
    """Return a copy of a run's state in memory, after comparing all of it with its checksums"""
    place = home(directory)
    if not os.path.isfile(place / PROGRESS):
        raise CheckpointError(f"{directory} isn't a training run, since it has no {PROGRESS}: leave --resume out.")
    contents = read_checkpoint(directory)
    about = read_json(place / PROGRESS)
    step = about.pop("step", None)
    if type(step) is not int or step < 0 or not isinstance(about.get("settings"), dict) or "text" not in about:
        raise CheckpointError(f"{place / PROGRESS} lacks the step, the settings or the text of its run: {ADVICE}.")
    verify.check_intact(directory, contents.tensors, verify.check(contents.tensors), ADVICE)
    dtype = contents.tensors["wte"].dtype
    params = grow(contents.config, lambda name, *_: np.array(floats(contents.tensors[name], dtype)))
    moments = read_moments(place, contents.config, dtype, step)
    return State(Model(contents.config, params, contents.tokenizer), moments, step, about)


def checksum(content: bytes) -> str:
    """Return the masked CRC-32C in hexadecimal"""
    return f"{mask(crc32c(content)):08x}"


def read_moments(directory: Path, config: Config, dtype: str, step: int) -> Moments:
    """Return Adam's moments; raise CheckpointError if they are corrupt or belong to another step or model"""
    path = directory / MOMENTS
    metadata, found = safetensors.read(path)
    if metadata.get("step") != str(step):
        raise CheckpointError(f"{path} is of step {metadata.get('step')}, and {PROGRESS} of step {step}: {ADVICE}.")
    if metadata.get(PROGRESS) not in (None, checksum(read_bytes(directory / PROGRESS, 1 << 20))):
        raise CheckpointError(f"{directory / PROGRESS} is corrupt: its checksum isn't the one in {MOMENTS}; {ADVICE}.")
    verify.check_intact(path, found, verify.check(found), ADVICE)

    def leaf(name, shape):
        stored = found.get(name)
        if stored is None or (stored.shape, stored.dtype) != (shape, dtype):
            raise CheckpointError(f"{path} has no tensor {name} of the shape {shape} in {dtype}: {ADVICE}.")
        return np.array(stored.array)

    def tree(kind):
        return grow(config, lambda name, *shape: leaf(f"{kind}.{name}", shape))

    return Moments(m=tree("m"), v=tree("v"))
