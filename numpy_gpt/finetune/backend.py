"""Define the interface between the command and the package that computes: numpy_gpt or torch_gpt."""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

from ..adamw import Moments
from ..config import Config
from .trainable import Trainable


class Backend(NamedTuple):
    """Connect the command to the package that computes"""

    command: str  # as in python -m COMMAND
    add_arguments: Callable[[argparse.ArgumentParser], Any]  # adds the package's own options
    # command line, "classify" or "instruct", model, config, moments, options -> a trainer
    make_trainer: Callable[[argparse.Namespace, str, Trainable, Config, Moments, Any], Any]
