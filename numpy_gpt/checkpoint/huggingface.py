"""Read and write Hugging Face's layout: model.safetensors, config.json, and the files of the tokenizer."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..config import SIZES, Config
from ..errors import CheckpointError
from ..system.atomic import read_consistently, replacing, writing
from ..system.files import parse_json, read_json
from ..system.locks import locked
from ..text import chat
from ..text import template as templates
from ..text.template import Template
from ..text.tokenizer import EOT, HUGGING_FACE, OPENAI, TOKENIZER_JSON, Tokenizer
from ..text.tokenizer import load as load_tokenizer
from . import safetensors
from .layouts import LAYOUTS, SHARDS, WEIGHTS, replacing_checkpoint, stage_or_directory
from .stored import Contents, Stored, config_from, expand, fit, floats, hparams

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
SCORE = "score.weight"  # the head of a classifier
TOKENIZER_CONFIG = "tokenizer_config.json"
MASKS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # older versions of transformers stored them
QKV_BIASES = re.compile(r"h\.\d+\.attn\.c_attn\.bias")
HPARAMS = "numpy_gpt.hparams"  # our config's key in the metadata of a safetensors file
CONFIG_KEYS = {size: size for size in SIZES} | {"n_vocab": "vocab_size", "n_ctx": "n_positions"}
DROPOUTS = ("embd_pdrop", "attn_pdrop", "resid_pdrop")
ARITHMETIC: dict[str, tuple] = {  # the values in config.json that mean GPT-2's arithmetic; the first is written
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}
NO_KEYS: Mapping[str, Any] = {}
VOCABULARIES = (HUGGING_FACE, TOKENIZER_JSON, OPENAI)  # in the order in which they are looked for


def read(path: Path, n_head: int | None) -> Contents:
    """Return the checkpoint in a directory or a safetensors file; n_head is used if nothing else gives it"""
    if os.path.isfile(path):
        metadata, found = safetensors.read(path)
        return contents(path, path.parent, metadata, found, n_head)
    return read_consistently(path, lambda directory: read_directory(stage_or_directory(directory), n_head), files)


def files(directory: Path) -> list[Path]:
    """Return the files that read_directory may read: in the stage, and in the directory"""
    names = ("config.json", *HUGGING_FACE, *TOKENIZER_JSON, templates.FILE, WEIGHTS, SHARDS)
    return [place / name for place in (directory, directory / LAYOUTS["huggingface"].stage) for name in names]


def read_directory(directory: Path, n_head: int | None) -> Contents:
    """Return the checkpoint in a directory that no process writes to"""
    if os.path.isfile(directory / WEIGHTS):
        metadata, found = safetensors.read(directory / WEIGHTS)
    else:
        metadata, found = dict[str, str](), read_shards(directory)
    if os.path.isfile(directory / "config.json"):
        metadata = {}  # other programs use config.json
    return contents(directory, directory, metadata, found, n_head)._replace(template=templates.load(directory))


def contents(
    path: Path, directory: Path, metadata: Mapping[str, str], found: Mapping[str, Stored], n_head: int | None
) -> Contents:
    """Return the checkpoint that consists of these tensors; the files beside them are in directory"""
    tensors = {name: stored for name, stored in without_prefix(path, found).items() if not MASKS.fullmatch(name)}
    if SCORE in tensors:
        raise CheckpointError(f"{path} is a classifier: use it with python -m numpy_gpt.finetune predict.")
    if HPARAMS in metadata:
        config = config_from(path, parse_json(path, metadata[HPARAMS].encode(errors="surrogatepass")))
    elif os.path.isfile(directory / "config.json"):
        config = read_config(directory / "config.json")
    else:
        config = infer_config(path, tensors, n_head)
    config, tensors = resolve_biases(*resolve_head(config, tensors))
    tokenizer = load_tokenizer(directory, VOCABULARIES)
    return Contents("Hugging Face", config, fit(path, TABLE, config, tensors), tokenizer)


def read_shards(directory: Path) -> dict[str, Stored]:
    """Return the tensors of a model in several files; SHARDS maps the names of the tensors to those of the files"""
    index = directory / SHARDS
    places = read_json(index, limit=1 << 24).get("weight_map")
    if not isinstance(places, dict) or not all(
        isinstance(file, str) and Path(file).name == file for file in places.values()
    ):
        raise CheckpointError(f"{index} has no weight_map from tensors to files beside it: get it again.")
    shards = {file: safetensors.read(directory / file)[1] for file in set(places.values())}
    for name, file in places.items():
        if name not in shards[file]:
            raise CheckpointError(f"{directory / file} lacks the tensor {name}, which {SHARDS} lists: get it again.")
    return {name: shards[file][name] for name, file in places.items()}


def without_prefix(path: Path, found: Mapping[str, Stored]) -> dict[str, Stored]:
    """Return the tensors by their names without PREFIX"""
    tensors = {name.removeprefix(PREFIX): stored for name, stored in found.items()}
    if len(tensors) < len(found):
        raise CheckpointError(f"{path} has a tensor twice, with and without the prefix {PREFIX}: save it again.")
    return tensors


def read_config(path: Path) -> Config:
    """Return the config in config.json; keys that it leaves out are as in the 124M"""
    keys = read_json(path)
    for key, allowed in ARITHMETIC.items():
        if keys.get(key, allowed[0]) not in allowed:
            raise CheckpointError(
                f"{path} has {key} {keys[key]!r:.40}, and GPT-2 computes with {allowed[0]!r}: this isn't a GPT-2."
            )
    values = asdict(Config()) | {ours: keys[theirs] for ours, theirs in CONFIG_KEYS.items() if theirs in keys}
    values |= {"tied": keys.get("tie_word_embeddings", True), "qkv_bias": keys.get("qkv_bias", True)}
    rates = [keys.get(key, 0.0) for key in DROPOUTS]
    values["dropout"] = rates[0] if rates.count(rates[0]) == len(rates) else 0.0  # we have one rate, used in training
    config = config_from(path, values)
    if keys.get("n_inner") not in (None, 4 * config.n_embd):
        raise CheckpointError(
            f"{path} has n_inner {keys['n_inner']!r:.40}, and GPT-2's MLP is {4 * config.n_embd} wide: this isn't a "
            "GPT-2."
        )
    return config


def infer_config(path: Path, tensors: Mapping[str, Stored], n_head: int | None) -> Config:
    """Return the config that follows from the shapes of tensors, and from the number of heads, which isn't in them"""
    if n_head is None:
        raise CheckpointError(
            f"{path} doesn't contain the number of heads: put its config.json beside it, or give n_head (--n-head)."
        )
    shapes = [tensors[name].shape if name in tensors else () for name in ("wte.weight", "wpe.weight")]
    if [len(shape) for shape in shapes] != [2, 2]:
        raise CheckpointError(f"{path} lacks the matrix wte.weight or wpe.weight: it is incomplete, or not a GPT-2.")
    (n_vocab, n_embd), (n_ctx, _) = shapes
    layers = {found[1] for found in map(re.compile(r"h\.(\d+)\.").match, tensors) if found}
    values = {"n_vocab": n_vocab, "n_ctx": n_ctx, "n_embd": n_embd, "n_head": n_head, "n_layer": len(layers)}
    return config_from(path, values)


def resolve_head(config: Config, tensors: dict[str, Stored]) -> tuple[Config, dict[str, Stored]]:
    """Leave out a head that is equal to wte; make the config untied if the head differs

    An untied config stays untied, since a head may start equal to wte.
    """
    head, wte = tensors.get("lm_head.weight"), tensors.get("wte.weight")
    if head is None or wte is None or not config.tied:
        return config, tensors
    if same(head, wte):
        return config, {name: stored for name, stored in tensors.items() if stored is not head}
    return replace(config, tied=False), tensors


def resolve_biases(config: Config, tensors: dict[str, Stored]) -> tuple[Config, dict[str, Stored]]:
    """Leave out the zeros that save writes for a model without qkv_bias; keep the biases if one isn't zero"""
    if config.qkv_bias:
        return config, tensors
    biases = {name for name in tensors if QKV_BIASES.fullmatch(name)}
    if any(floats(tensors[name], np.float64).any() for name in biases):
        return replace(config, qkv_bias=True), tensors
    return config, {name: stored for name, stored in tensors.items() if name not in biases}


def same(a: Stored, b: Stored) -> bool:
    """Compare two tensors bit by bit, up to the first block of rows that differs"""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    pieces = range(0, len(a.array), 1024)
    return all(a.array[i : i + 1024].tobytes() == b.array[i : i + 1024].tobytes() for i in pieces)


def write(
    path: Path,
    config: Config,
    arrays: Mapping[str, np.ndarray],
    dtype: np.dtype,
    tokenizer: Tokenizer | None,
    template: Template | None = None,
) -> None:
    """Atomically replace a .safetensors file or the checkpoint in a directory, or create it"""
    if path.suffix == ".safetensors":
        with locked(path.parent), replacing(path) as f:
            write_weights(f, config, arrays, dtype)
    else:
        with replacing_checkpoint(path, "huggingface") as part:
            fill(part, config, arrays, dtype, tokenizer, template)


def fill(
    directory: Path,
    config: Config,
    arrays: Mapping[str, np.ndarray],
    dtype: np.dtype,
    tokenizer: Tokenizer | None,
    template: Template | None = None,
    more_keys: Mapping[str, Any] = NO_KEYS,
    more_tokenizer_keys: Mapping[str, Any] = NO_KEYS,
) -> None:
    """Write a checkpoint's files to an empty directory, as transformers' from_pretrained reads them

    more_keys are added to config.json, and more_tokenizer_keys to tokenizer_config.json.
    """
    texts = {"config.json": as_json({**config_keys(config, dtype, tokenizer), **more_keys})}
    if tokenizer:
        texts |= zip(HUGGING_FACE, tokenizer.files, strict=True)
        texts[TOKENIZER_CONFIG] = as_json({**tokenizer_keys(config, tokenizer, template), **more_tokenizer_keys})
    if template:
        texts[templates.FILE] = templates.as_json(template)
    for name, text in texts.items():
        with writing(directory / name) as f:
            f.write(text)
    with writing(directory / WEIGHTS) as f:
        write_weights(f, config, arrays, dtype)


def as_json(keys: Mapping[str, Any]) -> bytes:
    """Return keys as the contents of a JSON file"""
    return json.dumps(keys, indent=2).encode() + b"\n"


def write_weights(f: BinaryIO, config: Config, arrays: Mapping[str, np.ndarray], dtype: np.dtype) -> None:
    """Write a safetensors file; a model without qkv_bias gets zeros as biases, since transformers' GPT-2 has them

    A classifier's head is the array "score.w".
    """
    is_classifier = "score.w" in arrays
    prefix = "" if config.tied and not is_classifier else PREFIX
    zeros = np.zeros(3 * config.n_embd, dtype)
    tensors = {}
    for ours, (theirs, _) in expand(TABLE, replace(config, qkv_bias=True)).items():
        tensors[theirs if ours == "head.w" else prefix + theirs] = arrays.get(ours, zeros)
    if is_classifier:
        tensors[SCORE] = arrays["score.w"]
    metadata = {"format": "pt", HPARAMS: json.dumps(hparams(config))}
    metadata[safetensors.CHECKSUMS] = safetensors.checksums(tensors, dtype)
    safetensors.write(f, tensors, dtype, metadata)


def config_keys(config: Config, dtype: np.dtype, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Return the contents of config.json"""
    keys = {theirs: getattr(config, ours) for ours, theirs in CONFIG_KEYS.items()}
    keys |= {key: allowed[0] for key, allowed in ARITHMETIC.items()} | dict.fromkeys(DROPOUTS, config.dropout)
    keys |= {} if config.qkv_bias else {"qkv_bias": False}  # transformers has no such key
    eot = tokenizer.eot if tokenizer else None
    keys |= {"tie_word_embeddings": config.tied, "bos_token_id": eot, "eos_token_id": eot}
    return {"architectures": ["GPT2LMHeadModel"], "dtype": np.dtype(dtype).name, **keys}


def tokenizer_keys(config: Config, tokenizer: Tokenizer, template: Template | None) -> dict[str, Any]:
    """Return the contents of tokenizer_config.json"""
    eot = None if tokenizer.eot is None else EOT
    tokens = dict.fromkeys(("bos_token", "eos_token", "unk_token"), eot)
    options = {"add_prefix_space": False, "clean_up_tokenization_spaces": False}
    chat_keys = {"chat_template": chat.as_jinja(template, tokenizer)} if template else {}
    return {"tokenizer_class": "GPT2Tokenizer", "model_max_length": config.n_ctx, **options, **tokens, **chat_keys}
