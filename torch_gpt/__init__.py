"""The twin: the same GPT-2 on PyTorch's own kernels, with autograd for its backward."""

from . import ops
from .noise import Noise
from .params import from_numpy, init, to_numpy

__all__ = ["Noise", "from_numpy", "init", "ops", "to_numpy"]
