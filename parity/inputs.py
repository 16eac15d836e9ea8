"""Make random inputs for both sides, with no gain at 1 and no bias at 0, because those hide mistakes."""

import math
from dataclasses import replace

import numpy as np

import numpy_gpt
from numpy_gpt import Config, Noise, named

TINY = Config(n_vocab=61, n_ctx=11, n_embd=48, n_head=3, n_layer=2)
VARIANTS = {
    "as released": TINY,
    "untied": replace(TINY, tied=False),
    "no qkv bias": replace(TINY, qkv_bias=False),
    "dropout": replace(TINY, dropout=0.3),
    "all three": replace(TINY, tied=False, qkv_bias=False, dropout=0.3),
}


def random_model(config, seed=0, dtype=np.float32):
    """Return a model with random gains around 1, biases around 0, and weights that keep activations near 1

    All numbers are drawn in float32, so that the model is the same in float64.
    """
    m = numpy_gpt.init(config)
    rng = np.random.default_rng(seed)
    for name, a in named(m.params):
        a[...] = rng.standard_normal(a.shape, np.float32)
        if name.endswith((".g", ".b")):
            a *= 0.3
            a += name.endswith(".g")
        else:
            a /= math.sqrt(
                a.shape[0 if name.startswith("h.") else 1]
            )  # in a block (in, out); wte, wpe, head (V or N, C)
    return m._replace(params=numpy_gpt.params.tree_map(lambda a: a.astype(dtype), m.params))


def random_batch(config, B, T, seed=0):
    """Return random tokens and targets, (B,T) each; every row contains one token at least twice"""
    rng = np.random.default_rng(seed)
    text = rng.integers(0, config.n_vocab, (B, T + 1))
    text[:, T // 2] = text[:, 0]
    return text[:, :-1], text[:, 1:]


def op_arguments(seed=0, B=2, T=5, past=3, H=3, D=4, V=13, dtype=np.float64):
    """Return {label: arguments} for every op, with distinct dimensions; a label begins with the op's name"""
    rng = np.random.default_rng(seed)
    C, O, S, N = H * D, H * D + 2, past + T, past + T + 2

    def normal(*shape, mean=0.0):
        return (mean + rng.standard_normal(shape)).astype(np.float32).astype(dtype)

    def ids(high, *shape):
        return rng.integers(0, high, shape)

    def mask(*true):
        mask = np.zeros((B, T), bool)
        mask.ravel()[list(true)] = True
        return mask

    noise = Noise(seed, step=3, sequence=5, site=2)
    return {
        "linear": (normal(B, T, C), normal(C, O), normal(O)),
        "linear without a bias": (normal(B, T, C), normal(C, O), None),
        "layernorm": (3 * normal(B, T, C, mean=0.5), normal(C, mean=1), normal(C)),
        "layernorm of nearly equal numbers": (normal(B, T, C, mean=0.5) / 256, normal(C, mean=1), normal(C)),
        "gelu": (3 * normal(B, T, C),),
        "softmax": (2 * normal(B, H, T, S),),
        "softmax of large numbers": (normal(B, H, T, S, mean=1000),),
        "dropout": (normal(B, T, C), 0.7, noise),
        "dropout at the smallest rate": (normal(B, T, C), 1 / 256, noise),
        "dropout without noise": (normal(B, T, C), 0.3, None),
        "attention": (normal(B, H, T, D), normal(B, H, T, D), normal(B, H, T, D)),
        "attention with a past": (normal(B, H, T, D), normal(B, H, S, D), normal(B, H, S, D)),
        "attention with dropout": (normal(B, H, T, D), normal(B, H, S, D), normal(B, H, S, D), 0.3, noise),
        "embedding": (ids(V, B, T) // 2, normal(V, C), normal(N, C)),
        "embedding at positions": (ids(V, B, T) // 2, normal(V, C), normal(N, C), ids(N, T)),
        "unembedding": (normal(B, T, C), normal(V, C)),
        "cross_entropy": (2 * normal(B, T, V), ids(V, B, T)),
        "cross_entropy of large numbers": (normal(B, T, V, mean=1000), ids(V, B, T)),
        "masked_cross_entropy": (2 * normal(B, T, V), ids(V, B, T), mask(0, *range(T // 2, B * T, 3))),
        "masked_cross_entropy at one position": (2 * normal(B, T, V), ids(V, B, T), mask(B * T - 1)),
        "lora": (normal(C, O), normal(C, 3), normal(3, O), 0.7),
        "lora of rank 1": (normal(C, O), normal(C, 1), normal(1, O), 16),
    }
