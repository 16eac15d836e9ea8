"""Implement GPT-2 in NumPy, with every forward and every backward written by hand."""

from . import adamw, fast
from .checkpoint import save
from .checkpoint.source import load
from .config import RELEASED, Config
from .errors import CheckpointError, GPTError
from .generate import complete, complete_batch, kv, stream
from .language_model import forward, loss_and_grads
from .noise import Noise
from .params import Model, init, named

__all__ = [
    "RELEASED",
    "CheckpointError",
    "Config",
    "GPTError",
    "Model",
    "Noise",
    "adamw",
    "complete",
    "complete_batch",
    "fast",
    "forward",
    "init",
    "kv",
    "load",
    "loss_and_grads",
    "named",
    "save",
    "stream",
]
__version__ = "0.1.0"
