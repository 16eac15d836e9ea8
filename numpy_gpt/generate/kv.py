"""Keep the keys and values of earlier positions, so that a new token attends to them without recomputing them.

A kv is a list with one KV per layer. It is for a group of sequences of one length, so nothing is padded. A batch of
prompts has a kv for each length.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..config import Config
from ..fast.attention import attend
from ..model import merge_heads, split_qkv

if TYPE_CHECKING:
    from numpy.typing import DTypeLike  # imported at run time, it would take 2 ms


class KV:
    """Store the keys and values of one layer, for B sequences of up to N positions

    k, v: (B,H,N,D) arrays, of which the first `length` positions are filled
    """

    def __init__(self, B: int, H: int, N: int, D: int, dtype: "DTypeLike" = np.float32):
        self.k = np.empty((B, H, N, D), dtype)
        self.v = np.empty((B, H, N, D), dtype)
        self.length = 0

    def append(self, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Store k, v (B,H,T,D) of T new positions; return those of all S positions, as views (B,H,S,D)"""
        start, self.length = self.length, self.length + k.shape[2]
        self.k[:, :, start : self.length] = k
        self.v[:, :, start : self.length] = v
        return self.k[:, :, : self.length], self.v[:, :, : self.length]

    def attend(self, qkv: np.ndarray) -> np.ndarray:
        """Append the keys and values of new positions, and attend to all so far: qkv (B,T,3C) -> (B,T,C)"""
        q, k, v = split_qkv(qkv, self.k.shape[1])  # (B,H,T,D)
        k, v = self.append(k, v)  # (B,H,S,D)
        return merge_heads(attend(q, k, v))

    def take(self, sequences: Sequence[int]) -> "KV":
        """Return a new KV with copies of the sequences at these indices, in this order; an index may repeat"""
        _, H, N, D = self.k.shape
        taken = KV(len(sequences), H, N, D, self.k.dtype)
        taken.append(self.k[sequences, :, : self.length], self.v[sequences, :, : self.length])
        return taken


def new_kv(config: Config, dtype: "DTypeLike" = np.float32, B: int = 1, N: int | None = None) -> list[KV]:
    """Return an empty kv: a list with one KV per layer, for B sequences of up to N positions

    Arguments:
        config: the config of the model.
        dtype: the dtype of the model's parameters.
        B: the number of sequences.
        N: the number of positions. By default it is the whole context, config.n_ctx.

    Example:
        >>> import numpy_gpt
        >>> config = numpy_gpt.Config(n_vocab=61, n_ctx=32, n_embd=48, n_head=3, n_layer=2)
        >>> [layer.k.shape for layer in numpy_gpt.kv.new_kv(config, B=4)]
        [(4, 3, 32, 16), (4, 3, 32, 16)]
    """
    D = config.n_embd // config.n_head
    return [KV(B, config.n_head, N or config.n_ctx, D, dtype) for _ in range(config.n_layer)]


class Groups(NamedTuple):
    """Combine one layer's KVs of several groups, whose new positions are side by side in one row"""

    kvs: list[KV]
    rows: list[slice]  # the positions of each group in the row

    def attend(self, qkv: np.ndarray) -> np.ndarray:
        """Attend in each group over its own KV: qkv (1,R,3C) -> (1,R,C)"""
        ctx = []
        for kv, rows in zip(self.kvs, self.rows, strict=True):
            new = qkv[:, rows].reshape(len(kv.k), -1, qkv.shape[-1])  # (B,T,3C)
            ctx.append(kv.attend(new).reshape(1, -1, qkv.shape[-1] // 3))
        return np.concatenate(ctx, 1)
