"""Define the interface between the command and the package that computes: numpy_gpt or torch_gpt."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, SupportsFloat

import numpy as np

from ..adamw import Moments
from ..params import Model
from .options import TrainOptions

Batch = tuple[int, np.ndarray, np.ndarray]  # the number of its first sequence in the step, tokens (B,T), targets (B,T)


class TrainerLike(Protocol):
    """Train a model; each of several processes has a trainer"""

    m: Model
    leader: bool  # of several processes, the one that prints and writes

    def step(self, t: int, lr: float, batches: Sequence[Batch]) -> SupportsFloat:
        """Take step t = 1, 2, ... of AdamW on the mean loss of the batches, and return this loss"""

    def loss(self, tokens: np.ndarray, targets: np.ndarray) -> float:
        """Return the mean loss over all tokens, without dropout"""

    def sample(self, ids: list[int], **options: Any) -> list[int] | None:
        """Return the ids of a continuation, or None in a process that can't generate"""

    def state(self) -> tuple[Any, ...] | None:
        """Return the parameters and both moments as NumPy arrays in the leader, and None in other processes"""

    def any_process(self, condition: bool) -> bool:
        """Return whether the condition holds in at least one process"""


class Backend(NamedTuple):
    """Connect the command to the package that trains"""

    make_trainer: Callable[[Model, Moments, TrainOptions], TrainerLike]
    leader: bool = True  # this process prints and writes
    processes: int = 1  # that train together
