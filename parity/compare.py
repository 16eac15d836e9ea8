"""When two tensors are the same.

float64 is the truth. The error of a side is e = ||x - truth|| / ||truth||. In float32 both sides err, so neither is
asked to equal the other, but to err at most twice as much, plus a few units in the last place. In float64 they agree to
1e-10. No tolerance is tuned to a tensor. One exception: the error of a key bias's gradient, see scale.

The error of a few numbers is luck, that of many a property of the code: a small tensor is drawn many times, and all
draws are taken as one.
"""

from typing import NamedTuple

import numpy as np

from numpy_gpt import GPTError

FEW_ULP = 4 * 2.0**-24
FLOAT64 = 1e-10


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
    squares: dict[str, np.ndarray] = {}
    for numpy32, torch32, numpy64, torch64 in draws:
        for name, truth in numpy64.items():
            distances = [square(side[name], truth) for side in (numpy32, torch32, torch64)]
            shapes[name] = np.shape(truth)
            squares[name] = np.add(squares.get(name, 0.0), [*distances, square(scale(name, numpy64))])
    return [Row(name, shapes[name], *relative(name, *squares[name])) for name in squares]


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
