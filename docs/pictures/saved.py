"""Find the tensors that a transformer block saves: run a tiny block and read their names in the backward's source."""

import ast
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np

from numpy_gpt import Config, init, model, named, ops

B, T, C, H = 2, 5, 12, 3
DIMENSIONS = {B: "B", T: "T", C: "C", H: "H", C // H: "D", 3 * C: "3C", 4 * C: "4C", 1: "1"}


class Tensor(NamedTuple):
    place: tuple[str, ...]  # such as attn, c_attn
    function: str  # the op at this place, such as linear
    name: str  # in the op's backward
    array: np.ndarray
    is_weight: bool

    @property
    def shape(self) -> str:
        """Return the shape in letters, such as (B,T,3C)"""
        return str(tuple(DIMENSIONS[n] for n in self.array.shape)).replace("'", "").replace(" ", "")


def saved_tensors() -> list[Tensor]:
    """Return the tensors that a block saves without dropout, in the order of its forward, each array once per op

    Attention is that of ops.py. fast/attention.py saves the same in tiles of 64 queries.
    """
    m = init(Config(n_vocab=61, n_ctx=11, n_embd=C, n_head=H, n_layer=1))
    x = np.random.default_rng(0).standard_normal((B, T, C), np.float32)
    with patch.object(model, "attention", ops.attention):
        _, saved = model.block(x, m.params.h[0], m.config)
    weights = [w for _, w in named(m.params)]
    found: dict[tuple, Tensor] = {}
    for place, function, name, array in walk(model.block_backward, saved):
        key = place[:2], array.ctypes.data, array.shape
        is_weight = any(np.shares_memory(array, w) for w in weights)
        found.setdefault(key, Tensor(place[:2], function, name, array, is_weight))
    return list(found.values())


def walk(backward: Callable, saved: tuple, place: tuple[str, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield place, function, name and array for everything in saved, as the backward unpacks it"""
    for name, value in zip(unpacked(backward), saved, strict=True):
        if name.startswith("s_"):
            yield from walk(receiver(backward, name), value, (*place, name.removeprefix("s_")))
        elif isinstance(value, np.ndarray):
            yield place, backward.__name__.removesuffix("_backward"), name, value


def unpacked(backward: Callable) -> list[str]:
    """Return the names to which a backward unpacks saved"""
    nodes = ast.walk(ast.parse(inspect.getsource(backward)))
    assigned = next(n for n in nodes if isinstance(n, ast.Assign) and ast.unparse(n.value) == "saved")
    return [ast.unparse(name) for name in assigned.targets[0].elts]  # type: ignore[attr-defined]


def receiver(backward: Callable, name: str) -> Callable:
    """Return the backward that is called with this part of saved"""
    nodes = ast.walk(ast.parse(inspect.getsource(backward)))
    call = next(n for n in nodes if isinstance(n, ast.Call) and n.args and ast.unparse(n.args[-1]) == name)
    function = ast.unparse(call.func)
    return getattr(ops, function, None) or getattr(model, function)


def numbers_per_token(tensors: list[Tensor]) -> str:
    """Return how many numbers a block saves for each token: 20 C + H T + 2"""
    counts = {"C": 0, "H T": 0, "": 0}
    for tensor in tensors:
        if not tensor.is_weight:
            n = tensor.array.size // (B * T)
            unit, size = next((unit, size) for unit, size in (("C", C), ("H T", H * T), ("", 1)) if n % size == 0)
            counts[unit] += n // size
    return " + ".join(f"{'' if n == 1 and unit else n} {unit}".strip() for unit, n in counts.items())
