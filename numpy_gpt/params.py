"""The parameters of GPT-2 as a tree whose fields carry OpenAI's names.

Gradients and Adam's moments are trees of the same types, so that named(grads) lines up with named(params). Weights are
(in, out): y = x @ w + b. A leaf that a model lacks (c_attn.b without qkv_bias, head when tied) is None, and both walks
pass it over.
"""

import math
import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .config import Config
from .errors import GPTError
from .number import is_index


class Linear(NamedTuple):
    w: Any  # (I, O)
    b: Any  # (O,)


class LayerNorm(NamedTuple):
    g: Any  # (C,)
    b: Any  # (C,)


class Attn(NamedTuple):
    c_attn: Linear  # (C, 3C)  q, k and v side by side
    c_proj: Linear  # (C, C)


class MLP(NamedTuple):
    c_fc: Linear  # (C, 4C)
    c_proj: Linear  # (4C, C)


class Block(NamedTuple):
    ln_1: LayerNorm
    attn: Attn
    ln_2: LayerNorm
    mlp: MLP


class Head(NamedTuple):
    w: Any  # (V, C)


class GPT2(NamedTuple):
    wte: Any  # (V, C)
    wpe: Any  # (N, C)
    h: list[Block]  # L of them
    ln_f: LayerNorm
    head: Head | None = None  # None: tied to wte


class Model(NamedTuple):
    config: Config
    params: GPT2
    tokenizer: Any = None  # encode(str) -> ids, decode(ids) -> str; None where there is none

    def __repr__(self) -> str:
        c, tokens = self.config, "no tokenizer"
        if self.tokenizer is not None:
            tokens = f"a tokenizer of {self.tokenizer.n_vocab:,} tokens"
        return f"<Model of {c.num_parameters():,} parameters in {self.params.wte.dtype}, {tokens}: {c}>"


def named(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """h.0.attn.c_attn.w, array; h.0.attn.c_attn.b, array; ... in the order of the fields"""
    if tree is None:
        return
    if not isinstance(tree, tuple | list):
        yield name, tree
        return
    fields = getattr(tree, "_fields", range(len(tree)))
    for field, branch in zip(fields, tree, strict=True):
        yield from named(branch, f"{name}.{field}" if name else str(field))


def tree_map(f: Callable, tree: Any, *others: Any) -> Any:
    """The same tree with f(leaf, ...) for every leaf, of this tree and of the others"""
    if tree is None:
        return None
    if not isinstance(tree, tuple | list):
        return f(tree, *others)
    branches = [tree_map(f, *parts) for parts in zip(tree, *others, strict=True)]
    return type(tree)(*branches) if isinstance(tree, tuple) else branches


def grow(config: Config, leaf: Callable[..., Any]) -> GPT2:
    """The tree of such a model with leaf(name, *shape) for every leaf: named, backwards"""
    V, N, C, L = config.n_vocab, config.n_ctx, config.n_embd, config.n_layer

    def linear(name, i, o, bias=True):
        return Linear(leaf(f"{name}.w", i, o), leaf(f"{name}.b", o) if bias else None)

    def layernorm(name):
        return LayerNorm(leaf(f"{name}.g", C), leaf(f"{name}.b", C))

    def block(name):
        attn = Attn(linear(f"{name}.attn.c_attn", C, 3 * C, config.qkv_bias), linear(f"{name}.attn.c_proj", C, C))
        mlp = MLP(linear(f"{name}.mlp.c_fc", C, 4 * C), linear(f"{name}.mlp.c_proj", 4 * C, C))
        return Block(layernorm(f"{name}.ln_1"), attn, layernorm(f"{name}.ln_2"), mlp)

    head = None if config.tied else Head(leaf("head.w", V, C))
    return GPT2(leaf("wte", V, C), leaf("wpe", N, C), [block(f"h.{i}") for i in range(L)], layernorm("ln_f"), head)


def init(config: Config, seed: int = 0) -> Model:
    """GPT-2's start: weights normal with std 0.02, the two projections into the residual stream by sqrt(2 L) smaller"""
    if not isinstance(config, Config):
        raise GPTError(f"config is {config!r}: it must be a Config, as RELEASED has for the released sizes.")
    if not is_index(seed) or not 0 <= operator.index(seed) < 2**64:
        raise GPTError(f"seed is {seed!r}: it must be a whole number from 0 to 2**64 - 1.")
    rng = np.random.default_rng(operator.index(seed))

    def leaf(name, *shape):
        if name.endswith((".g", ".b")):
            return np.full(shape, name.endswith(".g"), np.float32)
        std = 0.02 / math.sqrt(2 * config.n_layer) if name.endswith("c_proj.w") else 0.02
        return rng.standard_normal(shape, np.float32) * np.float32(std)

    return Model(config, grow(config, leaf))
