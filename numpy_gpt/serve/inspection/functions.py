"""Define the interface between the inspection and a framework."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from ...params import Model


class InspectionFunctions(NamedTuple):
    """Bundle the operations that the inspection needs from a framework"""

    to_numpy: Callable[[Model], Model]  # the same model with NumPy arrays
    run_forward: Callable[[Model, list[int]], dict[str, np.ndarray]]
    run_backward: Callable[[Model, list[int], int, int], tuple[float, dict[str, np.ndarray]]]
    twin: Mapping[str, Callable] | None = None  # op -> its function in torch_gpt; None for numpy_gpt
