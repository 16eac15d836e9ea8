"""Save and load a training run: a checkpoint, and beside it Adam's moments, the step, and the settings of the run.

All files change in one atomic step, so that a run can be killed at any moment. Random numbers need no state: the seed
and the step determine windows and dropout.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
    format = layout(directory) or format
    fill = openai.fill if format == "openai" else huggingface.fill
    with replacing_state(directory, format) as part:
        fill(part, m.config, dict(named(m.params)), m.params.wte.dtype, m.tokenizer, template)
        fill_progress(part, step, about, dict(named(moments)))


@contextmanager
def replacing_state(directory: Path, format: str) -> Iterator[Path]:
    """Yield a directory to write a run's state to, which atomically replaces the previous one when the block ends"""
    try:
        with replacing_checkpoint(directory, format) as part:
            yield part
    except OSError as e:
        raise GPTError(f"{directory} can't be written: {e.strerror}; a previous state is unchanged.") from None


def fill_progress(directory: Path, step: int, about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Write the two files of a run that aren't its model; the tensors are Adam's moments"""
    dtype = next(iter(tensors.values())).dtype
    progress = json.dumps({"step": step, **about}, indent=2).encode() + b"\n"
    metadata = {"step": str(step), PROGRESS: checksum(progress)}
    metadata[safetensors.CHECKSUMS] = safetensors.checksums(tensors, dtype)
    with writing(directory / PROGRESS) as f:
        f.write(progress)
    with writing(directory / MOMENTS) as f:
        safetensors.write(f, tensors, dtype, metadata)


def load(directory: Path) -> State:
    """Return a copy of a run's state in memory, after comparing all of it with its checksums"""
    place = home(directory)
    if not os.path.isfile(place / PROGRESS):
        raise CheckpointError(
            f"{directory} isn't a training run, since it has no {PROGRESS}: start from its model with --init-from "
            f"{directory} in another directory."
        )
    step, about, found = read_run(place)
    check_command(directory, about)
    contents = read_checkpoint(directory)
    verify.check_intact(directory, contents.tensors, verify.check(contents.tensors), ADVICE)
    config, dtype = contents.config, contents.tensors["wte"].dtype
    check_moments(place, found, config, dtype)
    params = grow(config, lambda name, *_: np.array(floats(contents.tensors[name], dtype)))
    return State(Model(config, params, contents.tokenizer), copy_moments(found, config), step, about)


def check_command(directory: Path, about: Mapping[str, Any], task: str | None = None) -> None:
    """Raise GPTError unless a run is of this task of finetune, or of train if task is None"""
    found = about.get("task")
    if found != task:
        command = "numpy_gpt.train" if found is None else f"numpy_gpt.finetune {found}"
        raise GPTError(f"{directory} has a run of python -m {command}: resume it with that command.")


def copy_moments(found: Mapping[str, Stored], config: Config) -> Moments:
    """Return Adam's moments in memory"""
    m, v = (grow(config, lambda name, *_, kind=kind: np.array(found[f"{kind}.{name}"].array)) for kind in "mv")
    return Moments(m, v)
