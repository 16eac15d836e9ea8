"""GPT-2 in NumPy, every forward and every backward by hand."""

from .config import RELEASED, Config
from .errors import GPTError
from .noise import Noise
from .params import Model, init, named

__all__ = ["RELEASED", "Config", "GPTError", "Model", "Noise", "init", "named"]
__version__ = "0.1.0"
