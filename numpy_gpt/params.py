"""Define the parameters of GPT-2 as a tree of named tuples whose fields have OpenAI's names.

Gradients and Adam's moments are trees of the same types, so named(grads) lines up with named(params). Weights are
(in, out): y = x @ w + b. An absent leaf (c_attn.b without qkv_bias, head if tied) is None; named and tree_map skip it.
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
    """y = x w + b"""

    w: Any  # (I, O)
    b: Any  # (O,)


class LayerNorm(NamedTuple):
    """y = g n + b          n = x with mean 0 and variance 1"""

    g: Any  # (C,)
    b: Any  # (C,)


class Attn(NamedTuple):
    """Hold the parameters of attention in a block"""

    c_attn: Linear  # (C, 3C)  q, k and v side by side
    c_proj: Linear  # (C, C)


class MLP(NamedTuple):
    """Hold the parameters of the MLP in a block"""

    c_fc: Linear  # (C, 4C)
    c_proj: Linear  # (4C, C)


class Block(NamedTuple):
    """Hold the parameters of a block, in the order of its forward"""

    ln_1: LayerNorm
    attn: Attn
    ln_2: LayerNorm
    mlp: MLP


class Head(NamedTuple):
    """Hold the weights of an untied output head: logits = x @ w.mT"""

    w: Any  # (V, C)


class GPT2(NamedTuple):
    """Hold all parameters of a model; leaves are NumPy arrays, or tensors in torch_gpt"""

    wte: Any  # (V, C)
    wpe: Any  # (N, C)
    h: list[Block]  # L of them
    ln_f: LayerNorm
    head: Head | None = None  # None: tied to wte


class Model(NamedTuple):
    """Hold a GPT-2 model: its config, its parameters and its tokenizer; init and load return one

    The tokenizer has encode(str) -> list[int], decode(list[int]) -> str, n_vocab and eot. print(m) and notebooks show a
    summary. m._replace(config=...) returns a copy that shares the arrays.

    Example:
        >>> import numpy_gpt
        >>> m = numpy_gpt.load("storyteller")
        >>> m.params.wte.shape == (m.config.n_vocab, m.config.n_embd)
        True
        >>> m.tokenizer.decode(m.tokenizer.encode("Once upon a time"))
        'Once upon a time'
    """

    config: Config
    params: GPT2
    tokenizer: Any = None  # None if the checkpoint has no tokenizer

    def __repr__(self) -> str:
        """Return a summary without arrays"""
        c, tokens = self.config, "no tokenizer"
        if self.tokenizer is not None:
            try:
                tokens = f"a tokenizer of {self.tokenizer.n_vocab:,} tokens"
            except GPTError:  # its files aren't a vocabulary
                tokens = "a tokenizer that can't be read"
        return f"<Model of {c.num_parameters():,} parameters in {self.params.wte.dtype}, {tokens}: {c}>"


def named(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Return an iterator over (name, leaf) of a tree of parameters, gradients or moments, in the order of the fields

    Arguments:
        tree: a tree of named tuples, tuples and lists, such as m.params. None is skipped.
        name: a prefix of all names.

    Raises GPTError if tree is neither a tree nor an array.

    Example:
        >>> import numpy_gpt
        >>> m = numpy_gpt.init(numpy_gpt.Config(n_vocab=9, n_ctx=4, n_embd=6, n_head=2, n_layer=1))
        >>> [name for name, _ in numpy_gpt.named(m.params)][:5]
        ['wte', 'wpe', 'h.0.ln_1.g', 'h.0.ln_1.b', 'h.0.attn.c_attn.w']
        >>> dict(numpy_gpt.named(m.params))["h.0.attn.c_attn.w"].shape
        (6, 18)
    """
    is_tree = tree is None or isinstance(tree, tuple | list) or hasattr(tree, "shape")
    if isinstance(tree, Model) or not is_tree:
        raise GPTError(f"tree is {tree!r:.60}: it must be a tree of parameters, such as m.params.")
    return leaves(tree, name)


def leaves(tree: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield (name, leaf) for every leaf of a tree"""
    if tree is None:
        return
    if not isinstance(tree, tuple | list):
        yield name, tree
        return
    fields = getattr(tree, "_fields", range(len(tree)))
    for field, branch in zip(fields, tree, strict=True):
        yield from leaves(branch, f"{name}.{field}" if name else str(field))


def tree_map(f: Callable, tree: Any, *others: Any) -> Any:
    """Return a tree of the same types with f(leaf, *leaves of the others) for every leaf"""
    if tree is None:
        return None
    if not isinstance(tree, tuple | list):
        return f(tree, *others)
    branches = [tree_map(f, *parts) for parts in zip(tree, *others, strict=True)]
    return type(tree)(*branches) if isinstance(tree, tuple) else branches


def grow(config: Config, leaf: Callable[..., Any]) -> GPT2:
    """Return the tree of a model of this config with leaf(name, *shape) for every leaf"""
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
    """Return a new model with GPT-2's initialisation

    Weights are normal with standard deviation 0.02. For the two projections of each block into the residual stream it
    is divided by sqrt(2 L). Biases are 0 and gains 1.

    Arguments:
        config: the shape of the model, such as Config(n_layer=4) or RELEASED["124M"].
        seed: a whole number from 0 to 2**64 - 1. The same seed gives the same parameters.

    Returns a Model in float32 without a tokenizer.

    Raises GPTError if an argument is invalid.

    Example:
        >>> import numpy_gpt
        >>> m = numpy_gpt.init(numpy_gpt.Config(n_vocab=9, n_ctx=4, n_embd=6, n_head=2, n_layer=1), seed=1)
        >>> m.params.wte.shape
        (9, 6)
    """
    if not isinstance(config, Config):
        raise GPTError(f'config is {config!r}: it must be a Config, such as Config(n_layer=4) or RELEASED["124M"].')
    if not is_index(seed) or not 0 <= operator.index(seed) < 2**64:
        raise GPTError(f"seed is {seed!r}: it must be a whole number from 0 to 2**64 - 1.")
    rng = np.random.default_rng(operator.index(seed))

    def leaf(name, *shape):
        if name.endswith((".g", ".b")):
            return np.full(shape, name.endswith(".g"), np.float32)
        std = 0.02 / math.sqrt(2 * config.n_layer) if name.endswith("c_proj.w") else 0.02
        return rng.standard_normal(shape, np.float32) * np.float32(std)

    return Model(config, grow(config, leaf))
