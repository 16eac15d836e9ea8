"""GPT-2 in NumPy, every forward and every backward by hand."""

from .errors import GPTError

__all__ = ["GPTError"]
__version__ = "0.1.0"
