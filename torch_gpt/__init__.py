"""The twin: the same GPT-2 on PyTorch's own kernels, with autograd for its backward."""

from .noise import Noise

__all__ = ["Noise"]
