"""Read and write OpenAI's layout: hparams.json, the vocabulary, and a TensorFlow bundle that `checkpoint` names."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..config import Config
from ..system.atomic import read_consistently, writing
from ..system.files import read_json
from ..text import template as templates
from ..text.template import Template
from ..text.tokenizer import OPENAI, Tokenizer
from ..text.tokenizer import load as load_tokenizer
from . import bundle
from .bundle import Entry
from .layouts import DATA, INDEX, LAYOUTS, POINTER, PREFIX, find_prefix, pointed_prefix, replacing_checkpoint
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


def read(directory: Path) -> Contents:
    """Return the checkpoint in a directory, the old or the new one if another process is saving"""
    return read_consistently(directory, read_once, files)


def files(directory: Path) -> list[Path]:
    """Return the files that read_once may read: in the stage, and in the directory that `checkpoint` names"""
    prefixes = (directory / LAYOUTS["openai"].stage / PREFIX, pointed_prefix(directory))
    suffixes = (INDEX.removeprefix(PREFIX), DATA.removeprefix(PREFIX))
    found = [directory / POINTER]
    for prefix in prefixes:
        found += [prefix.parent / name for name in ("hparams.json", *OPENAI, templates.FILE)]
        found += [Path(f"{prefix}{suffix}") for suffix in suffixes]
    return found


def read_once(directory: Path) -> Contents:
    """Return the checkpoint in a directory that no process writes to"""
    prefix = find_prefix(directory)
    path = prefix.parent / "hparams.json"
    config = config_from(path, read_json(path))
    tensors = fit(Path(f"{prefix}.index"), TABLE, config, bundle.read(prefix))
    ours = {name: stored._replace(array=without_one(stored.array)) for name, stored in tensors.items()}
    return Contents("OpenAI", config, ours, load_tokenizer(prefix.parent), templates.load(prefix.parent))


def without_one(a: np.ndarray) -> np.ndarray:
    """Return a convolution's weights (1, I, O) as (I, O); return other arrays unchanged"""
    return a[0] if a.ndim == 3 else a


def entries(config: Config) -> dict[str, Entry]:
    """Return the index of a released checkpoint without its checksums: tensors end to end in the order of names"""
    shapes = dict(expand(TABLE, config).values())
    found, offset = {}, 0
    for name in bundle.in_order(shapes):
        size = 4 * math.prod(shapes[name])
        found[name] = Entry("float32", shapes[name], bundle.data_file(0, 1), offset, size, 0)
        offset += size
    return found


def write(
    directory: Path,
    config: Config,
    arrays: Mapping[str, np.ndarray],
    dtype: np.dtype,
    tokenizer: Tokenizer | None,
    template: Template | None = None,
) -> None:
    """Atomically replace the checkpoint in a directory, or create one"""
    with replacing_checkpoint(directory, "openai") as part:
        fill(part, config, arrays, dtype, tokenizer, template)


def fill(
    directory: Path,
    config: Config,
    arrays: Mapping[str, np.ndarray],
    dtype: np.dtype,
    tokenizer: Tokenizer | None,
    template: Template | None = None,
) -> None:
    """Write a checkpoint's files to an empty directory"""
    tensors = {theirs: arrays[ours].reshape(shape) for ours, (theirs, shape) in expand(TABLE, config).items()}
    with writing(directory / DATA) as data, writing(directory / INDEX) as index:
        bundle.write(index, data, tensors, dtype)
    texts = {"hparams.json": hparams_json(config), POINTER: pointer(PREFIX)}
    if tokenizer:
        texts |= zip(OPENAI, tokenizer.files, strict=True)
    if template:
        texts[templates.FILE] = templates.as_json(template)
    for name, text in texts.items():
        with writing(directory / name) as f:
            f.write(text)


def pointer(prefix: str) -> bytes:
    """Return the contents of `checkpoint`"""
    return f'model_checkpoint_path: "{prefix}"\nall_model_checkpoint_paths: "{prefix}"\n'.encode()


def hparams_json(config: Config) -> bytes:
    """Return the contents of hparams.json"""
    return json.dumps(hparams(config), indent=2).encode() + b"\n"
