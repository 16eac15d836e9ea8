"""When two tensors are the same.

float64 is the truth. The error of a side is e = ||x - truth|| / ||truth||. In float32 both sides err, so neither is
asked to equal the other, but to err at most twice as much, plus a few units in the last place. In float64 they agree to
1e-10. That is all: no tolerance is tuned to a tensor.
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


def error(name, found, truth):
    """||found - truth|| / ||truth|| of the tensor called name

    A key bias adds the same to all scores of a query, and softmax doesn't feel it. Its gradient is 0 in exact
    arithmetic; what rounding leaves of it is measured by the gradient of the query bias.
    """
    scale = np.linalg.norm(wide(truth[name.replace("c_attn.b.k", "c_attn.b.q")]))
    if not 0 < scale < np.inf:
        raise GPTError(
            f"{name} is {scale} in float64, so there is nothing to compare: take more tokens or a wider model."
        )
    return float(np.linalg.norm(wide(found[name]) - wide(truth[name])) / scale)


def wide(x):
    return np.asarray(x, np.float64).ravel()


def compare(numpy32, torch32, numpy64, torch64):
    """Four runs of the same weights and tokens, as {name: array} -> a Row for every tensor, in order"""
    return [
        Row(
            name,
            np.shape(truth),
            error(name, numpy32, numpy64),
            error(name, torch32, numpy64),
            error(name, torch64, numpy64),
        )
        for name, truth in numpy64.items()
    ]


def disagreements(rows):
    return [row for row in rows if not row.agrees]


def pool(draws):
    """Many draws of {name: array} as one: the error of a few numbers is luck, that of many a property of the code"""
    return {name: np.stack([draw[name] for draw in draws]) for name in draws[0]}
