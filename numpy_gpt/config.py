"""Define the shape of a GPT-2 model under the names of OpenAI's hparams.json, and the four released sizes."""

import operator
from dataclasses import dataclass, replace

import numpy as np

from .errors import GPTError
from .number import is_index, is_real

SIZES = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")


@dataclass(frozen=True)
class Config:
    """Describe the shape of a GPT-2 model; the defaults are those of the 124M

    Sizes are whole numbers of at least 1, and n_embd is a multiple of n_head. dropout is 0, or from 0.002 to 0.99. A
    Config can't be changed, but dataclasses.replace returns a changed copy.

    Raises GPTError if a value is invalid.

    Example:
        >>> import numpy_gpt
        >>> config = numpy_gpt.Config(n_vocab=256, n_ctx=64, n_embd=48, n_head=4, n_layer=2)
        >>> config.num_parameters()
        72000
    """

    n_vocab: int = 50257  # V  tokens in the vocabulary
    n_ctx: int = 1024  # N  positions of the context
    n_embd: int = 768  # C  width of the residual stream
    n_head: int = 12  # H  attention heads in a layer, each C/H wide
    n_layer: int = 12  # L  blocks
    dropout: float = 0.0  # rate in training: after the embedding, on attention, on both branches; a multiple of 1/256
    qkv_bias: bool = True  # c_attn has a bias
    tied: bool = True  # the output head is wte; otherwise it has its own weights

    def __post_init__(self):
        for name in SIZES:
            value = getattr(self, name)
            if not is_index(value) or value < 1:
                raise GPTError(f"{name} is {value!r}: it must be a whole number of at least 1.")
            self.store(name, operator.index(value))
        if self.n_embd % self.n_head:
            raise GPTError(
                f"n_embd {self.n_embd} is not divisible by n_head {self.n_head}: every head needs the same width."
            )
        if not is_real(self.dropout) or not 0 <= self.dropout <= 0.99:
            raise GPTError(f"dropout is {self.dropout!r}: it must be a rate from 0 to 0.99.")
        if self.dropout and not round(256 * self.dropout):
            raise GPTError(
                f"dropout is {self.dropout!r}: it is rounded to a multiple of 1/256, so it must be 0 or at least 0.002."
            )
        self.store("dropout", float(self.dropout))
        for name in ("qkv_bias", "tied"):
            value = getattr(self, name)
            if not isinstance(value, bool | np.bool_):
                raise GPTError(f"{name} is {value!r}: it must be True or False.")
            self.store(name, bool(value))

    def store(self, name, value):
        """Store a value as Python's own type, which JSON can represent"""
        object.__setattr__(self, name, value)

    def num_parameters(self) -> int:
        """Return the number of weights, biases and gains of such a model; a tied head counts once"""
        V, N, C, L = self.n_vocab, self.n_ctx, self.n_embd, self.n_layer
        embeddings = V * C + N * C
        attn = C * 3 * C + 3 * C * self.qkv_bias + C * C + C
        mlp = C * 4 * C + 4 * C + 4 * C * C + C
        norm = C + C
        head = 0 if self.tied else V * C
        return embeddings + L * (norm + attn + norm + mlp) + norm + head

    def released_size(self) -> str | None:
        """Return the name of the released size with this shape, such as "124M", or None; dropout doesn't count"""
        return next((size for size, released in RELEASED.items() if replace(self, dropout=0.0) == released), None)


# the models that OpenAI released: name -> Config
RELEASED = {
    "124M": Config(),
    "355M": Config(n_embd=1024, n_head=16, n_layer=24),
    "774M": Config(n_embd=1280, n_head=20, n_layer=36),
    "1558M": Config(n_embd=1600, n_head=25, n_layer=48),
}
