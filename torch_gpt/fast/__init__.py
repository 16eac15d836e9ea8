"""Use PyTorch features that NumPy lacks: compiled, fused and sharded code; and benchmark them."""

from numpy_gpt.fast import tune

__all__ = ["tune"]
