"""Recognise the layout of a checkpoint's directory, and replace a checkpoint in it atomically."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..errors import CheckpointError, GPTError
from ..system.atomic import replacing_files
from ..system.files import read_bytes, read_json
from ..system.locks import locked
from ..text import template
from ..text.tokenizer import HUGGING_FACE, OPENAI, TOKENIZER_JSON

POINTER, INDEX, DATA = "checkpoint", "model.ckpt.index", "model.ckpt.data-00000-of-00001"
PREFIX = "model.ckpt"  # of INDEX and DATA; POINTER contains it
WEIGHTS, SHARDS = "model.safetensors", "model.safetensors.index.json"
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")  # of PEFT; adapter.py reads and writes them
ADAPTER_STAGE = ".saving.adapter"
TRAINING = ("training.json", "moments.safetensors")  # of a run; train/resume.py writes them, training_run.py reads them
OLD_STAGE = ".saving"  # where 0.1.0 wrote a checkpoint in OpenAI's layout; POINTER named it while it was moved

# transformers writes these files, and would read them instead of the ones that save writes
OBEYED = (
    *TOKENIZER_JSON,
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
)


class Layout(NamedTuple):
    """List the names of the files of a layout"""

    title: str
    weights: tuple[str, ...]  # a directory with one of these files has a checkpoint of this layout
    files: tuple[str, ...]  # files that save writes
    vocabulary: tuple[str, str]  # two of them
    stage: str  # contains the latest checkpoint while its files are being moved to the directory
    obsolete: tuple[str, ...]  # files and directories that save removes unless it writes them


LAYOUTS = {
    "openai": Layout(
        "OpenAI's",
        (POINTER, INDEX),
        (POINTER, "hparams.json", *OPENAI, INDEX, DATA),
        OPENAI,
        ".saving.openai",
        (template.FILE, OLD_STAGE),
    ),
    "huggingface": Layout(
        "Hugging Face's",
        (WEIGHTS, SHARDS),
        ("config.json", *HUGGING_FACE, "tokenizer_config.json", WEIGHTS),
        HUGGING_FACE,
        ".saving.huggingface",
        (*OBEYED, template.FILE, SHARDS, OLD_STAGE),
    ),
}


def layout(directory: Path) -> str | None:
    """Return the layout in which load reads a directory, or None if it has no checkpoint

    If other programs wrote checkpoints in both layouts, OpenAI's is read.
    """
    return next(layouts(directory), None)


def layouts(directory: Path) -> Iterator[str]:
    """Yield the layouts in which a directory has a checkpoint"""
    for name, candidate in LAYOUTS.items():
        # the stage first: when it is removed, the files are in the directory
        places = directory / candidate.stage, directory
        if any(os.path.isfile(place / file) for place in places for file in candidate.weights):
            yield name


def check_single_layout(directory: Path) -> None:
    """Raise GPTError if a directory has checkpoints in both layouts, since a save would replace only one of them"""
    if len([*layouts(directory)]) > 1:
        raise GPTError(
            f"{directory} has a checkpoint in OpenAI's layout and another in Hugging Face's, and only one of them "
            "would be replaced: remove the files of one, or choose another directory."
        )


def home(directory: Path) -> Path:
    """Return the directory whose files are the latest complete checkpoint

    It is a stage if a process was killed while it moved the files of a complete checkpoint, else directory itself.
    """
    return find_prefix(directory).parent if layout(directory) == "openai" else stage_or_directory(directory)


def stage_or_directory(directory: Path, format: str = "huggingface") -> Path:
    """Return the stage of a layout if it is complete, else the directory itself"""
    stage = directory / LAYOUTS[format].stage
    return stage if os.path.isdir(stage) else directory


def adapter_home(directory: Path) -> Path:
    """Return the directory whose files are the latest complete LoRA adapter: its stage, or directory itself"""
    stage = directory / ADAPTER_STAGE
    return stage if os.path.isdir(stage) else directory


def has_adapter(directory: Path) -> bool:
    """Return whether a directory has a file of a LoRA adapter"""
    return any(os.path.exists(adapter_home(directory) / name) for name in ADAPTER)


def find_prefix(directory: Path) -> Path:
    """Return the path that the names of a TensorFlow checkpoint's files start with"""
    stage = stage_or_directory(directory, "openai")
    return pointed_prefix(directory) if stage == directory else stage / PREFIX


def pointed_prefix(directory: Path) -> Path:
    """Return the path that `checkpoint` contains

    Only the name of an absolute path is used, since the directory may have been moved.
    """
    file = directory / POINTER
    if not os.path.isfile(file):
        return directory / PREFIX
    found = re.search(rb'^\s*model_checkpoint_path:\s*"([^"\\]+)"', read_bytes(file, 1 << 20), re.MULTILINE)
    path = Path(found[1].decode(errors="replace")) if found else Path("..")
    if ".." in path.parts or not path.name:
        raise CheckpointError(f"{file} names no checkpoint of its directory: get the file again.")
    return directory / (path.name if path.is_absolute() else path)


@contextmanager
def replacing_checkpoint(directory: Path, format: str) -> Iterator[Path]:
    """Yield a directory to write a checkpoint to, which atomically replaces the one in directory when the block ends

    A checkpoint in the other layout is refused, since the directory would then have two.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory):
        check_single_layout(directory)
        found = layout(directory)
        if found not in (None, format):
            raise GPTError(
                f"{directory} has a checkpoint in {LAYOUTS[found].title} layout: write it in that layout "
                f"(format={found!r}, --to {found}) to replace it, or choose another directory."
            )
        new = LAYOUTS[format]
        names = (*shard_names(directory), *new.obsolete) if SHARDS in new.obsolete else new.obsolete
        obsolete = [directory / name for name in names]
        with replacing_files(directory, directory / new.stage, obsolete) as part:
            yield part


def shard_names(directory: Path) -> list[str]:
    """Return the names of the files that a directory's index of shards lists, as transformers names them"""
    try:
        places = read_json(directory / SHARDS, limit=1 << 24).get("weight_map")
    except CheckpointError:  # there is none, or it is invalid
        return []
    names = {name for name in places.values() if isinstance(name, str)} if isinstance(places, dict) else set()
    return [name for name in names if re.fullmatch(r"model-\d+-of-\d+\.safetensors", name)]
