"""GPT-2 in NumPy, every forward and every backward by hand."""

from . import threads  # noqa: F401  before NumPy is imported it has something to tell OpenBLAS

# isort: split
from . import adamw, kv
from .checkpoint import load, save
from .config import RELEASED, Config
from .decode import complete, complete_batch, stream
from .errors import CheckpointError, GPTError
from .model import forward, loss_and_grads
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
