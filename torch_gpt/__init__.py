"""Implement the twin of numpy_gpt: the same GPT-2 on PyTorch's own kernels, with gradients from autograd."""

from numpy_gpt import RELEASED, CheckpointError, Config, GPTError, Model, named

from . import adamw, fast
from .generate import complete, complete_batch, kv, stream
from .language_model import forward, loss_and_grads
from .noise import Noise
from .params import from_numpy, init, load, save, to_numpy

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
    "from_numpy",
    "init",
    "kv",
    "load",
    "loss_and_grads",
    "named",
    "save",
    "stream",
    "to_numpy",
]
