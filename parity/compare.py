"""Decide whether a tensor of numpy_gpt agrees with one of torch_gpt.

numpy_gpt's result in float64 is the truth. The error of a tensor x is ||x - truth|| / ||truth||.

- float64: the error of torch_gpt is at most 1e-10.
- float32: both sides have rounding errors. Neither error may exceed twice the other plus four units of 2^-24.

The rule is the same for every tensor. One tensor has another denominator: the gradient of a key bias, see scale.

In float32, the error of a tensor is the median over many draws of weights and tokens, because the error of a few
numbers depends on chance. A sum over the draws would depend on a single one: if LayerNorm divides by a small variance,
it amplifies the rounding of both sides thousands of times. In float64, all draws are treated as one long vector.
"""

from typing import NamedTuple

import numpy as np

from numpy_gpt import GPTError

FEW_ULP = 4 * 2.0**-24
FLOAT64 = 1e-10
NEGLIGIBLE = 1e-4  # a draw whose truth is smaller than this part of the largest doesn't count: it is only rounding


class Row(NamedTuple):
    name: str
    shape: tuple[int, ...]
    numpy: float  # the error of numpy_gpt in float32
    torch: float  # the error of torch_gpt in float32
    difference: float  # the difference of both in float64

    @property
    def agrees(self):
        return (
            self.numpy <= 2 * self.torch + FEW_ULP
            and self.torch <= 2 * self.numpy + FEW_ULP
            and self.difference <= FLOAT64
        )  # nan never agrees


def compare(draws):
    """Return a Row for each name; a draw is (numpy32, torch32, numpy64, torch64), each a {name: array}"""
    shapes: dict[str, tuple] = {}
    squares: dict[str, list] = {}
    for numpy32, torch32, numpy64, torch64 in draws:
        for name, truth in numpy64.items():
            shapes[name] = np.shape(truth)
            found = [squared_norm(side[name], truth) for side in (numpy32, torch32, torch64)]
            squares.setdefault(name, []).append([*found, squared_norm(scale(name, numpy64))])
    return [Row(name, shapes[name], *errors(name, np.array(squares[name]))) for name in squares]


def errors(name, squares):
    """Return each side's median error in float32, and the difference of both sides in float64

    squares: (draws, 4) squared norms: the distances of numpy32, torch32 and torch64 from the truth, and the truth
    """
    (difference,) = relative(name, *squares[:, 2:].sum(0))
    *sides, truth = np.sqrt(squares[:, [0, 1, 3]]).T
    counted = truth > NEGLIGIBLE * truth.max()
    return *(float(np.median(side[counted] / truth[counted])) for side in sides), difference


def error(name, found, truth):
    """Return ||found - truth|| / ||truth|| of one tensor of two {name: array}"""
    (e,) = relative(name, squared_norm(found[name], truth[name]), squared_norm(scale(name, truth)))
    return e


def scale(name, truth):
    """Return the tensor whose norm is the denominator of an error

    That is the tensor itself, except for the gradient of a key bias. A key bias adds the same number to all scores of a
    query, which doesn't change their softmax. So its gradient is 0 in exact arithmetic, and only rounding in practice.
    Its denominator is the gradient of the query bias.
    """
    return truth[name.replace("c_attn.b.k", "c_attn.b.q")]


def squared_norm(x, truth=0.0):
    """Return ||x - truth||²"""
    difference = (np.asarray(x, np.float64) - truth).ravel()
    return difference @ difference


def relative(name, *squares):
    """Divide distances by the norm of the truth, all given as squares, the truth last"""
    *distances, whole = np.sqrt(squares)
    if not 0 < whole < np.inf:
        raise GPTError(
            f"the norm of {name} is {whole} in float64, so no relative error exists: take more tokens or a wider model."
        )
    return [float(distance / whole) for distance in distances]


def disagreements(rows):
    return [row for row in rows if not row.agrees]
