"""OpenAI's layout: a directory of hparams.json, the vocabulary, and a TensorFlow bundle that `checkpoint` names."""

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..config import Config
from ..errors import CheckpointError
from ..system.atomic import filling, put_in_place, read_settled, replacing
from ..system.files import read_bytes, read_json
from ..system.locks import locked
from ..text.tokenizer import OPENAI
from ..text.tokenizer import load as load_tokenizer
from . import bundle
from .bundle import Entry
from .stored import Contents, config_from, expand, fit, hparams

TABLE = """
    wte                     model/wte                       V C
    wpe                     model/wpe                       N C
    h.{i}.ln_1.g            model/h{i}/ln_1/g               C
    h.{i}.ln_1.b            model/h{i}/ln_1/b               C
    h.{i}.attn.c_attn.w     model/h{i}/attn/c_attn/w        1 C 3C
    h.{i}.attn.c_attn.b     model/h{i}/attn/c_attn/b        3C
    h.{i}.attn.c_proj.w     model/h{i}/attn/c_proj/w        1 C C
    h.{i}.attn.c_proj.b     model/h{i}/attn/c_proj/b        C
    h.{i}.ln_2.g            model/h{i}/ln_2/g               C
    h.{i}.ln_2.b            model/h{i}/ln_2/b               C
    h.{i}.mlp.c_fc.w        model/h{i}/mlp/c_fc/w           1 C 4C
    h.{i}.mlp.c_fc.b        model/h{i}/mlp/c_fc/b           4C
    h.{i}.mlp.c_proj.w      model/h{i}/mlp/c_proj/w         1 4C C
    h.{i}.mlp.c_proj.b      model/h{i}/mlp/c_proj/b         C
    ln_f.g                  model/ln_f/g                    C
    ln_f.b                  model/ln_f/b                    C
    head.w                  model/head/w                    V C
"""  # the leading 1 is the width of a convolution
PREFIX = "model.ckpt"
TRAINING = ("training.json", "moments.safetensors")  # of a run: train/resume.py writes and reads them
FILES = ("hparams.json", *OPENAI, f"{PREFIX}.{bundle.data_file(0, 1)}", f"{PREFIX}.index", *TRAINING)
STAGE = ".saving"
Writers = Mapping[str, Callable[[BinaryIO], object]]


def read(directory: Path) -> Contents:
    """The old checkpoint or the new one, while another process saves"""
    return read_settled(directory, read_once, files)


def files(directory: Path) -> list[Path]:
    """`checkpoint`, which is replaced before any other is and after, and what it says is read"""
    prefix = find_prefix(directory)
    names = ("hparams.json", *OPENAI, f"{prefix.name}.index", f"{prefix.name}.{bundle.data_file(0, 1)}")
    return [directory / "checkpoint", *(prefix.parent / name for name in names)]


def read_once(directory: Path) -> Contents:
    prefix = find_prefix(directory)
    words = prefix.parent / "hparams.json"
    config = config_from(words, read_json(words))
    tensors = fit(Path(f"{prefix}.index"), TABLE, config, bundle.read(prefix))
    ours = {name: stored._replace(array=without_one(stored.array)) for name, stored in tensors.items()}
    return Contents("OpenAI", config, ours, load_tokenizer(prefix.parent))


def without_one(a: np.ndarray) -> np.ndarray:
    return a[0] if a.ndim == 3 else a


def find_prefix(directory: Path) -> Path:
    """What `checkpoint` points to, within the directory even if that was moved since"""
    file = directory / "checkpoint"
    if not os.path.isfile(file):
        return directory / PREFIX
    found = re.search(rb'^\s*model_checkpoint_path:\s*"([^"\\]+)"', read_bytes(file, 1 << 20), re.MULTILINE)
    path = Path(found[1].decode(errors="replace")) if found else Path("..")
    if ".." in path.parts or not path.name:
        raise CheckpointError(f"{file} names no checkpoint of its directory: get the file again.")
    return directory / (path.name if path.is_absolute() else path)


def entries(config: Config) -> dict[str, Entry]:
    """The index of a released checkpoint of that config, without the checksums: end to end in the order of the names"""
    shapes = dict(expand(TABLE, config).values())
    found, offset = {}, 0
    for name in bundle.in_order(shapes):
        size = 4 * math.prod(shapes[name])
        found[name] = Entry("float32", shapes[name], bundle.data_file(0, 1), offset, size, 0)
        offset += size
    return found


def write(
    directory: Path, config: Config, arrays: Mapping[str, np.ndarray], dtype, tokenizer, training: Writers | None = None
) -> None:
    """
    Killed at any moment, this leaves the old checkpoint or the new one, since `checkpoint` always points to a whole
    one: to the old one, then to the new one in STAGE, then to the new one in the old one's place.
    """
    directory.mkdir(parents=True, exist_ok=True)
    stage = directory / STAGE
    with locked(directory):
        finish_interrupted_save(directory)
        with filling(stage):
            fill(stage, config, arrays, dtype, tokenizer)
            for name, writer in (training or {}).items():
                with replacing(stage / name) as f:
                    writer(f)
        point(directory, f"{STAGE}/{PREFIX}")
        finish_interrupted_save(directory)


def fill(directory: Path, config: Config, arrays: Mapping[str, np.ndarray], dtype, tokenizer) -> None:
    tensors = {theirs: arrays[ours].reshape(shape) for ours, (theirs, shape) in expand(TABLE, config).items()}
    with (
        replacing(directory / f"{PREFIX}.{bundle.data_file(0, 1)}") as data,
        replacing(directory / f"{PREFIX}.index") as index,
    ):
        bundle.write(index, data, tensors, dtype)
    texts = {"hparams.json": hparams_json(config)}
    texts |= zip(OPENAI, getattr(tokenizer, "files", ()), strict=False)
    for name, text in texts.items():
        with replacing(directory / name) as f:
            f.write(text)


def finish_interrupted_save(directory: Path) -> None:
    """Finish what was killed after `checkpoint` pointed to STAGE; what was killed before never counted"""
    stage = directory / STAGE
    if stage.exists() and find_prefix(directory).parent == stage:
        put_in_place(stage, directory, FILES)
        point(directory, PREFIX)
    shutil.rmtree(stage, ignore_errors=True)


def point(directory: Path, prefix: str) -> None:
    with replacing(directory / "checkpoint") as f:
        f.write(pointer(prefix))


def pointer(prefix: str) -> bytes:
    return f'model_checkpoint_path: "{prefix}"\nall_model_checkpoint_paths: "{prefix}"\n'.encode()


def hparams_json(config: Config) -> bytes:
    return json.dumps(hparams(config), indent=2).encode() + b"\n"
