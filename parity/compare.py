"""When two tensors are the same.

float64 is the truth. The error of a side is e = ||x - truth|| / ||truth||. In float32 both sides err, so neither is
asked to equal the other, but to err at most twice as much, plus a few units in the last place. In float64 they agree to
1e-10. No tolerance is tuned to a tensor. One exception: the error of a key bias's gradient, see scale.

The error of a few numbers is luck, that of many a property of the code: a small tensor is drawn many times, and its
error in float32 is the median of all draws. A sum wouldn't do: a draw in which LayerNorm divides by a small variance
amplifies each side's rounding thousands of times, and would decide alone. In float64 all draws are taken as one.
"""

from typing import NamedTuple

import numpy as np

from numpy_gpt import GPTError

FEW_ULP = 4 * 2.0**-24
FLOAT64 = 1e-10
NOTHING = 1e-4  # of the largest: what is smaller in a draw, such as a gradient that dropout leaves at 0, is rounding


class Row(NamedTuple):
    name: str
    shape: tuple[int, ...]
    numpy: float  # the error of numpy_gpt in float32
    torch: float  # the error of torch_gpt in float32
    apart: float  # how far the two are apart in float64

    @property
    def agrees(self):
        return (
            self.numpy <= 2 * self.torch + FEW_ULP and self.torch <= 2 * self.numpy + FEW_ULP and self.apart <= FLOAT64
        )  # a nan is no agreement


def compare(draws):
    """A draw: NumPy and PyTorch in float32, both in float64, {name: array} each -> a Row for every name"""
    shapes: dict[str, tuple] = {}
    squares: dict[str, list] = {}
    for numpy32, torch32, numpy64, torch64 in draws:
        for name, truth in numpy64.items():
            shapes[name] = np.shape(truth)
            found = [square(side[name], truth) for side in (numpy32, torch32, torch64)]
            squares.setdefault(name, []).append([*found, square(scale(name, numpy64))])
    return [Row(name, shapes[name], *errors(name, np.array(squares[name]))) for name in squares]


def errors(name, squares):
    """squares (draws, 4) of three distances and the truth -> each side's median error, and how far they are apart"""
    (apart,) = relative(name, *squares[:, 2:].sum(0))
    *sides, truth = np.sqrt(squares[:, [0, 1, 3]]).T
    counted = truth > NOTHING * truth.max()
    return *(float(np.median(side[counted] / truth[counted])) for side in sides), apart


def error(name, found, truth):
    """||found - truth|| / ||truth|| of the tensor called name"""
    (e,) = relative(name, square(found[name], truth[name]), square(scale(name, truth)))
    return e


def scale(name, truth):
    """What an error is measured by: the tensor itself, but for the gradient of a key bias

    A key bias adds the same to all scores of a query, and softmax doesn't feel it. Its gradient is 0 in exact
    arithmetic; what rounding leaves of it is measured by the gradient of the query bias.
    """
    return truth[name.replace("c_attn.b.k", "c_attn.b.q")]


def square(x, truth=0.0):
    difference = (np.asarray(x, np.float64) - truth).ravel()
    return difference @ difference


def relative(name, *squares):
    *distances, whole = np.sqrt(squares)
    if not 0 < whole < np.inf:
        raise GPTError(
            f"{name} is {whole} in float64, so there is nothing to compare: take more tokens or a wider model."
        )
    return [float(distance / whole) for distance in distances]


def disagreements(rows):
    return [row for row in rows if not row.agrees]
