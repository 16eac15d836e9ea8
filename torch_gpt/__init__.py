"""The twin: the same GPT-2 on PyTorch's own kernels, with autograd for its backward."""

from numpy_gpt import RELEASED, Config, GPTError, Model, named

from . import adamw, kv
from .model import forward, loss_and_grads
from .noise import Noise
from .params import from_numpy, init, to_numpy

__all__ = [
    "RELEASED",
    "Config",
    "GPTError",
    "Model",
    "Noise",
    "adamw",
    "forward",
    "from_numpy",
    "init",
    "kv",
    "loss_and_grads",
    "named",
    "to_numpy",
]
