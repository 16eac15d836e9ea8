"""Keep the tensors of the last prompt, so that a second view of it needs no second forward."""

from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from ...params import Model
from .functions import InspectionFunctions


class Run(NamedTuple):
    """Hold the tensors of a forward, and the model with NumPy arrays"""

    source: Any  # the framework's model
    m: Model  # the same model with NumPy arrays
    ids: list[int]  # of the prompt; empty before the first one
    tensors: dict[str, np.ndarray]


class LastRun:
    """Hold one run; threads that need another one wait for each other"""

    def __init__(self):
        self.lock = Lock()
        self.run: Run | None = None

    def get(self, functions: InspectionFunctions, m: Model, ids: list[int]) -> Run:
        """Return the run of a model and a prompt; a new one replaces the last one"""
        with self.lock:
            last = self.run
            if last is None or last.source is not m:
                self.run = last = None  # frees its memory before the next one is computed
                last = Run(m, functions.to_numpy(m), [], {})
            if last.ids != ids:
                self.run = last = last._replace(ids=[], tensors={})
                self.run = last = last._replace(ids=ids, tensors=functions.run_forward(m, ids))
            return last


LAST = LastRun()
