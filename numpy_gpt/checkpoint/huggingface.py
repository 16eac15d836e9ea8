"""Hugging Face's layout: model.safetensors, with config.json and the vocabulary beside it."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..config import SIZES, Config
from ..errors import CheckpointError, GPTError
from ..system.atomic import filling, make_directory, put_in_place, read_settled, replacing
from ..system.files import parse_json, read_json
from ..system.locks import locked
from ..text.tokenizer import HUGGING_FACE, OPENAI
from ..text.tokenizer import load as load_tokenizer
from . import safetensors
from .stored import Contents, Stored, config_from, expand, fit, hparams

TABLE = """
    wte                     wte.weight                      V C
    wpe                     wpe.weight                      N C
    h.{i}.ln_1.g            h.{i}.ln_1.weight               C
    h.{i}.ln_1.b            h.{i}.ln_1.bias                 C
    h.{i}.attn.c_attn.w     h.{i}.attn.c_attn.weight        C 3C
    h.{i}.attn.c_attn.b     h.{i}.attn.c_attn.bias          3C
    h.{i}.attn.c_proj.w     h.{i}.attn.c_proj.weight        C C
    h.{i}.attn.c_proj.b     h.{i}.attn.c_proj.bias          C
    h.{i}.ln_2.g            h.{i}.ln_2.weight               C
    h.{i}.ln_2.b            h.{i}.ln_2.bias                 C
    h.{i}.mlp.c_fc.w        h.{i}.mlp.c_fc.weight           C 4C
    h.{i}.mlp.c_fc.b        h.{i}.mlp.c_fc.bias             4C
    h.{i}.mlp.c_proj.w      h.{i}.mlp.c_proj.weight         4C C
    h.{i}.mlp.c_proj.b      h.{i}.mlp.c_proj.bias           C
    ln_f.g                  ln_f.weight                     C
    ln_f.b                  ln_f.bias                       C
    head.w                  lm_head.weight                  V C
"""  # a model with a head has all other names under transformer.
PREFIX = "transformer."
MASKS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # what older versions of transformers stored beside the weights
FILE = "model.safetensors"
STAGE = ".saving.huggingface"  # OpenAI's layout has another, and neither takes the other's for its own
SHARDS = "model.safetensors.index.json"
HPARAMS = "numpy_gpt.hparams"  # where the metadata has our config
WORDS = {size: size for size in SIZES} | {"n_vocab": "vocab_size", "n_ctx": "n_positions"}
DROPOUTS = ("embd_pdrop", "attn_pdrop", "resid_pdrop")
ARITHMETIC: dict[str, tuple] = {  # what GPT-2 computes, in the words of config.json; what we write comes first
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}


def read(path: Path, n_head: int | None) -> Contents:
    """path is a directory or a safetensors file; n_head counts only where nothing says it"""
    if os.path.isfile(path):
        metadata, found = safetensors.read(path)
        return contents(path, path.parent, metadata, found, n_head)
    return read_settled(path, lambda directory: read_directory(home(directory), n_head), files)


def home(directory: Path) -> Path:
    """The stage, where a process was killed after it had written all of it"""
    return directory / STAGE if os.path.isdir(directory / STAGE) else directory


def files(directory: Path) -> list[Path]:
    """What is read, in both places: what is in the stage is put in the other place before it goes"""
    names = ("config.json", *HUGGING_FACE, FILE, SHARDS)
    return [place / name for place in (directory, directory / STAGE) for name in names]


def read_directory(directory: Path, n_head: int | None) -> Contents:
    if os.path.isfile(directory / FILE):
        metadata, found = safetensors.read(directory / FILE)
    else:
        metadata, found = dict[str, str](), read_shards(directory)
    if os.path.isfile(directory / "config.json"):
        metadata = {}  # what others go by counts for us too
    return contents(directory, directory, metadata, found, n_head)


def contents(
    path: Path, directory: Path, metadata: Mapping[str, str], found: Mapping[str, Stored], n_head: int | None
) -> Contents:
    tensors = {name: stored for name, stored in without_prefix(path, found).items() if not MASKS.fullmatch(name)}
    if HPARAMS in metadata:
        config = config_from(path, parse_json(path, metadata[HPARAMS].encode(errors="surrogatepass")))
    elif os.path.isfile(directory / "config.json"):
        config = read_config(directory / "config.json")
    else:
        config = infer_config(path, tensors, n_head)
    config, tensors = settle_head(config, tensors)
    tokenizer = load_tokenizer(directory, (HUGGING_FACE, OPENAI))
    return Contents("Hugging Face", config, fit(path, TABLE, config, tensors), tokenizer)


def read_shards(directory: Path) -> dict[str, Stored]:
    """A model in several files, and a list of which tensor is where"""
    index = directory / SHARDS
    places = read_json(index, limit=1 << 24).get("weight_map")
    if not isinstance(places, dict) or not all(
        isinstance(file, str) and Path(file).name == file for file in places.values()
    ):
        raise CheckpointError(f"{index} doesn't say which tensor is in which file beside it: get it again.")
    shards = {file: safetensors.read(directory / file)[1] for file in set(places.values())}
    for name, file in places.items():
        if name not in shards[file]:
            raise CheckpointError(
                f"{directory / file} lacks the tensor {name}, which {SHARDS} looks for there: get it again."
            )
    return {name: shards[file][name] for name, file in places.items()}


def without_prefix(path: Path, found: Mapping[str, Stored]) -> dict[str, Stored]:
    tensors = {name.removeprefix(PREFIX): stored for name, stored in found.items()}
    if len(tensors) < len(found):
        raise CheckpointError(f"{path} has tensors with and without the prefix {PREFIX} under one name: save it anew.")
    return tensors


def read_config(path: Path) -> Config:
    """Words that config.json leaves out are as in the 124M"""
    words = read_json(path)
    for word, allowed in ARITHMETIC.items():
        if words.get(word, allowed[0]) not in allowed:
            raise CheckpointError(
                f"{path} says {word} {words[word]!r}: GPT-2 computes with {allowed[0]!r}, and so do we."
            )
    values = asdict(Config()) | {ours: words[theirs] for ours, theirs in WORDS.items() if theirs in words}
    values |= {"tied": words.get("tie_word_embeddings", True), "qkv_bias": words.get("qkv_bias", True)}
    rates = [words.get(word, 0.0) for word in DROPOUTS]
    values["dropout"] = rates[0] if rates.count(rates[0]) == len(rates) else 0.0  # ours is one, and for training alone
    config = config_from(path, values)
    if words.get("n_inner") not in (None, 4 * config.n_embd):
        raise CheckpointError(
            f"{path} says n_inner {str(words['n_inner'])[:40]}: GPT-2's MLP is {4 * config.n_embd} wide, as ours is."
        )
    return config


def infer_config(path: Path, tensors: Mapping[str, Stored], n_head: int | None) -> Config:
    """from shapes, which tell all but the number of heads"""
    if n_head is None:
        raise CheckpointError(
            f"{path} doesn't say how many heads it has: put its config.json beside it, or give n_head (--n-head)."
        )
    shapes = [tensors[name].shape if name in tensors else () for name in ("wte.weight", "wpe.weight")]
    if [len(shape) for shape in shapes] != [2, 2]:
        raise CheckpointError(f"{path} lacks the matrix wte.weight or wpe.weight: it is incomplete, or no GPT-2.")
    (n_vocab, n_embd), (n_ctx, _) = shapes
    layers = {found[1] for found in map(re.compile(r"h\.(\d+)\.").match, tensors) if found}
    words = {"n_vocab": n_vocab, "n_ctx": n_ctx, "n_embd": n_embd, "n_head": n_head, "n_layer": len(layers)}
    return config_from(path, words)


def settle_head(config: Config, tensors: dict[str, Stored]) -> tuple[Config, dict[str, Stored]]:
    """A head that repeats wte is tied, unless the config says otherwise; one that doesn't is a head of its own"""
    head, wte = tensors.get("lm_head.weight"), tensors.get("wte.weight")
    if head is None or wte is None or not config.tied:
        return config, tensors
    if same(head, wte):
        return config, {name: stored for name, stored in tensors.items() if stored is not head}
    return replace(config, tied=False), tensors


def same(a: Stored, b: Stored) -> bool:
    """bit by bit, up to the first rows that differ"""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    pieces = range(0, len(a.array), 1024)
    return all(a.array[i : i + 1024].tobytes() == b.array[i : i + 1024].tobytes() for i in pieces)


def write(path: Path, config: Config, arrays: Mapping[str, np.ndarray], dtype, tokenizer) -> None:
    """A .safetensors file, or else the directory that transformers.GPT2LMHeadModel.from_pretrained reads"""
    if path.suffix == ".safetensors":
        with locked(path.parent), replacing(path) as f:
            write_weights(f, config, arrays, dtype)
        return
    if any(os.path.exists(path / name) for name in ("checkpoint", "model.ckpt.index")):
        raise GPTError(f"{path} has a checkpoint in OpenAI's layout, which load would take: save to another directory.")
    make_directory(path)
    stage = path / f"{STAGE}.part"
    with locked(path):
        finish_interrupted_save(path)
        with filling(stage):
            fill(stage, config, arrays, dtype, tokenizer)
        os.rename(stage, path / STAGE)  # from here on it is what load reads
        finish_interrupted_save(path)


def fill(directory: Path, config: Config, arrays: Mapping[str, np.ndarray], dtype, tokenizer) -> None:
    words = config_words(config, dtype, getattr(tokenizer, "eot", None))
    texts = {"config.json": json.dumps(words, indent=2).encode() + b"\n"}
    texts |= zip(HUGGING_FACE, getattr(tokenizer, "files", ()), strict=False)
    for name, text in texts.items():
        with replacing(directory / name) as f:
            f.write(text)
    with replacing(directory / FILE) as f:
        write_weights(f, config, arrays, dtype)


def finish_interrupted_save(directory: Path) -> None:
    """Finish what was killed after the stage had its name; what was killed before never counted"""
    stage, part = directory / STAGE, directory / f"{STAGE}.part"
    shutil.rmtree(part, ignore_errors=True)
    if stage.exists():
        put_in_place(stage, directory, ("config.json", *HUGGING_FACE, FILE))
        os.rename(stage, part)
        shutil.rmtree(part)


def write_weights(f: BinaryIO, config: Config, arrays: Mapping[str, np.ndarray], dtype) -> None:
    prefix = "" if config.tied else PREFIX
    names = {
        ours: theirs if ours == "head.w" else prefix + theirs for ours, (theirs, _) in expand(TABLE, config).items()
    }
    metadata = {"format": "pt", HPARAMS: json.dumps(hparams(config))}
    safetensors.write(f, {names[ours]: a for ours, a in arrays.items()}, dtype, metadata)


def config_words(config: Config, dtype, eot: int | None) -> dict[str, Any]:
    words = {theirs: getattr(config, ours) for ours, theirs in WORDS.items()}
    words |= {word: allowed[0] for word, allowed in ARITHMETIC.items()} | dict.fromkeys(DROPOUTS, config.dropout)
    words |= {} if config.qkv_bias else {"qkv_bias": False}  # a word of ours
    words |= {"tie_word_embeddings": config.tied, "bos_token_id": eot, "eos_token_id": eot}
    return {"architectures": ["GPT2LMHeadModel"], "dtype": np.dtype(dtype).name, **words}
