"""Save and load a training run: a checkpoint, and beside it Adam's moments, the step, and the settings of the run.

All files change in one atomic step, so that a run can be killed at any moment. Random numbers need no state: the seed
and the step determine windows and dropout.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..adamw import Moments
from ..checkpoint import huggingface, openai, read_checkpoint, safetensors, verify
from ..checkpoint.layouts import home, layout, replacing_checkpoint
from ..checkpoint.stored import Stored, floats
from ..checkpoint.training_run import ADVICE, MOMENTS, PROGRESS, check_moments, checksum, read_run
from ..checks import check_model
from ..config import Config
from ..errors import CheckpointError, GPTError
from ..params import Model, grow, named
from ..system.atomic import writing
from ..text.template import Template


class State(NamedTuple):
    """Hold the state of a training run between two steps"""

    m: Model
    moments: Moments
    step: int  # steps that are done
    about: dict[str, Any]  # settings: the options; text: the keys of the texts


def save(directory: Path, state: State, format: str = "huggingface", template: Template | None = None) -> None:
    """Atomically replace a run's previous state, with the model's template of instructions if it has one

    format is the layout of a directory that has no state yet.
    """
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
            fill(part, m.config, dict(named(m.params)), dtype, m.tokenizer, template)
            with writing(part / PROGRESS) as f:
                f.write(progress)
            with writing(part / MOMENTS) as f:
                safetensors.write(f, tensors, dtype, metadata)
    except OSError as e:
        raise GPTError(f"{directory} can't be written: {e.strerror}; a previous state is unchanged.") from None


def load(directory: Path) -> State:
    """Return a copy of a run's state in memory, after comparing all of it with its checksums"""
    place = home(directory)
    if not os.path.isfile(place / PROGRESS):
        raise CheckpointError(
            f"{directory} isn't a training run, since it has no {PROGRESS}: start from its model with --init-from "
            f"{directory} in another directory."
        )
    contents = read_checkpoint(directory)
    step, about, found = read_run(place)
    verify.check_intact(directory, contents.tensors, verify.check(contents.tensors), ADVICE)
    config, dtype = contents.config, contents.tensors["wte"].dtype
    check_moments(place, found, config, dtype)
    params = grow(config, lambda name, *_: np.array(floats(contents.tensors[name], dtype)))
    return State(Model(config, params, contents.tokenizer), copy_moments(found, config), step, about)


def copy_moments(found: Mapping[str, Stored], config: Config) -> Moments:
    """Return Adam's moments in memory"""
    m, v = (grow(config, lambda name, *_, kind=kind: np.array(found[f"{kind}.{name}"].array)) for kind in "mv")
    return Moments(m, v)
