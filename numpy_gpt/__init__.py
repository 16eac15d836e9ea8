"""GPT-2 in NumPy, every forward and every backward by hand."""

from .config import RELEASED, Config
from .errors import GPTError
from .params import Model, init, named

__all__ = ["RELEASED", "Config", "GPTError", "Model", "init", "named"]
__version__ = "0.1.0"
