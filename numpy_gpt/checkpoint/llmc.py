"""Read and write llm.c's model file: 256 numbers, then 16 tensors stacked over all layers, with matrices (out, in)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..config import Config
from ..errors import CheckpointError, GPTError
from ..system.atomic import replacing
from ..system.files import map_file
from ..system.locks import locked
from ..text.tokenizer import load as load_tokenizer
from .stored import Contents, Stored, expand, numpy_dtype, packed, view

TABLE = """
    wte                     wte             V C
    wpe                     wpe             N C
    h.{i}.ln_1.g            ln1w            L C
    h.{i}.ln_1.b            ln1b            L C
    h.{i}.attn.c_attn.w     qkvw            L 3C C
    h.{i}.attn.c_attn.b     qkvb            L 3C
    h.{i}.attn.c_proj.w     attprojw        L C C
    h.{i}.attn.c_proj.b     attprojb        L C
    h.{i}.ln_2.g            ln2w            L C
    h.{i}.ln_2.b            ln2b            L C
    h.{i}.mlp.c_fc.w        fcw             L 4C C
    h.{i}.mlp.c_fc.b        fcb             L 4C
    h.{i}.mlp.c_proj.w      fcprojw         L C 4C
    h.{i}.mlp.c_proj.b      fcprojb         L C
    ln_f.g                  lnfw            C
    ln_f.b                  lnfb            C
"""  # in the order of the file; V is the padded vocabulary, except in version 1
MAGIC = 20240326
HEADER = 256  # int32: magic, version, N, V, L, H, C, padded V
DTYPES = {1: "float32", 3: "float32", 5: "bfloat16"}
MOST_LAYERS = 10_000  # the names of more would fill the memory
PADDING = 128  # the number of rows is a multiple of it, for fast matmuls on GPUs


def read(path: Path) -> Contents:
    """Return the checkpoint in a .bin file, with the tokenizer of its directory"""
    data = map_file(path)
    if len(data) < 4 * HEADER:
        raise CheckpointError(f"{path} has {len(data)} bytes, too few for the header of llm.c's format: get it again.")
    magic, version, N, V, L, H, C, padded = (int(n) for n in data[: 4 * HEADER].view("<i4")[:8])
    if magic != MAGIC:
        raise CheckpointError(f"{path} isn't a model of llm.c: it starts with {magic}, not {MAGIC}.")
    if version not in DTYPES:
        raise CheckpointError(f"{path} has version {version} of llm.c's format: 1, 3 and 5 are supported.")
    try:
        config = Config(n_vocab=V, n_ctx=N, n_embd=C, n_head=H, n_layer=L)
    except GPTError as e:
        raise CheckpointError(f"{path}: {e}") from None
    if L > MOST_LAYERS:
        raise CheckpointError(f"{path} has {L} layers by its header, which no GPT-2 has: get the file again.")
    padded = V if version == 1 else padded
    size = 4 * HEADER + (config.num_parameters() + (padded - V) * C) * numpy_dtype(DTYPES[version]).itemsize
    if padded < V or len(data) != size:
        raise CheckpointError(
            f"{path} has {len(data):,} bytes, and {size:,} by its header: it was cut off; get it again."
        )
    return Contents("llm.c", config, read_tensors(data, DTYPES[version], config, padded), load_tokenizer(path.parent))


def read_tensors(data: np.ndarray, dtype: str, config: Config, padded: int) -> dict[str, Stored]:
    """Return the tensors by our names: slices of the stacked ones, with matrices transposed to (in, out)"""
    rows = expand(TABLE, replace(config, n_vocab=padded))
    stacks, start = {}, 4 * HEADER
    for name, shape in dict(rows.values()).items():
        stacks[name] = view(data, start, dtype, shape)
        start += stacks[name].nbytes
    stored = {}
    for ours, (theirs, _) in rows.items():
        a, name = stacks[theirs], theirs
        if ours.startswith("h."):
            i = int(ours.split(".")[1])
            a, name = a[i], f"{theirs}[{i}]"
        stored[ours] = Stored(name, dtype, a.shape, a[: config.n_vocab] if ours == "wte" else orient(ours, a))
    return stored


def orient(name: str, a: np.ndarray) -> np.ndarray:
    """Transpose a block's matrix between (out, in) and (in, out); return other arrays unchanged"""
    return a.T if name.startswith("h.") else a


def write(
    path: Path,
    config: Config,
    arrays: Mapping[str, np.ndarray],
    dtype: np.dtype,
    tokenizer: None,
    template: None,
    version: int,
) -> None:
    """Atomically replace a .bin file in float32, without a tokenizer or template, or create it"""
    if dtype != np.float32:
        raise GPTError(
            f"{path}: llm.c's format supports only float32: give dtype float32, or save to a directory or .safetensors."
        )
    if not config.tied or not config.qkv_bias:
        missing = "an output head of its own" if not config.tied else "attention without biases"
        raise GPTError(f"{path}: llm.c's format doesn't support {missing}: save to a directory or to .safetensors.")
    padded = config.n_vocab if version == 1 else -(-config.n_vocab // PADDING) * PADDING
    numbers = [MAGIC, version, config.n_ctx, config.n_vocab, config.n_layer, config.n_head, config.n_embd]
    numbers += [] if version == 1 else [padded]
    header = np.array(numbers + [0] * (HEADER - len(numbers)), "<i4")
    rows = expand(TABLE, config)
    with locked(path.parent), replacing(path) as f:
        f.write(header.data)
        for stack in dict(rows.values()):
            for ours in (ours for ours, (theirs, _) in rows.items() if theirs == stack):
                f.write(packed(ours, orient(ours, arrays[ours]), dtype).data)
            if stack == "wte":
                f.write(bytes(4 * (padded - config.n_vocab) * config.n_embd))
