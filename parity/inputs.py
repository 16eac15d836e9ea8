"""Make random inputs for both sides, with no gain at 1 and no bias at 0, because those hide mistakes."""

import math
from dataclasses import replace

import numpy as np

import numpy_gpt
from numpy_gpt import Config, Noise, classifier, lora, masked_loss, named, ops
from numpy_gpt.params import Head, tree_map

TINY = Config(n_vocab=61, n_ctx=11, n_embd=48, n_head=3, n_layer=2)
VARIANTS = {
    "as released": TINY,
    "untied": replace(TINY, tied=False),
    "no qkv bias": replace(TINY, qkv_bias=False),
    "dropout": replace(TINY, dropout=0.3),
    "all three": replace(TINY, tied=False, qkv_bias=False, dropout=0.3),
}
MODULES = (ops, masked_loss, lora, classifier)  # modules of pairs


def pair(label):
    """Return the function that a label begins with, and its backward"""
    name = label.split()[0]
    module = next(module for module in MODULES if hasattr(module, f"{name}_backward"))
    return getattr(module, name), getattr(module, f"{name}_backward")


def differentiable(label, args):
    """Return the numbers of the arguments of which the backward returns gradients"""
    if label.startswith("classifier"):
        return [0, 2, 3, 4]  # x, h, ln_f, head
    if label.startswith("adapt"):
        return [1]  # the adapters; the model is fixed
    return [i for i, a in enumerate(args) if is_float(a) or (label, i) == ("linear without a bias", 2)]


def is_float(a):
    """Return whether a is an array of floating-point numbers"""
    return getattr(a, "dtype", np.dtype(int)).kind == "f"


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
    return m._replace(params=tree_map(lambda a: a.astype(dtype), m.params))


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


def tree_arguments(dtype=np.float64):
    """Return {label: arguments} for every pair of classifier.py and lora.py that has trees as arguments"""
    h = random_model(TINY, dtype=dtype).params.h
    everywhere = random_adapters(TINY, rank=3, dtype=dtype)
    somewhere = random_adapters(TINY, rank=1, targets=("attn.c_attn", "mlp.c_proj"), first=1, dtype=dtype)
    return {
        "classifier": classifier_arguments(TINY, dtype=dtype),
        "classifier with dropout": classifier_arguments(VARIANTS["dropout"], dtype=dtype),
        "classifier without qkv bias": classifier_arguments(VARIANTS["no qkv bias"], dtype=dtype),
        "classifier of the last block": classifier_arguments(VARIANTS["dropout"], first=1, dtype=dtype),
        "classifier without a block": classifier_arguments(TINY, first=2, dtype=dtype),
        "adapt_linear": (h[0].attn.c_attn, everywhere[0].attn.c_attn, 0.7),
        "adapt_linear without an adapter": (h[0].attn.c_attn, None, 0.7),
        "adapt_block": (h[1], everywhere[1], 0.7),
        "adapt": (h, everywhere, 0.7),
        "adapt of some matrices": (h, somewhere, 16),
    }


def classifier_arguments(config, first=0, B=3, T=7, K=4, seed=0, dtype=np.float32):
    """Return the arguments of classifier for texts of several lengths and the blocks from number first on"""
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((B, T, config.n_embd), np.float32), rng.standard_normal((K, config.n_embd), np.float32)
    last = T - 1 - np.arange(B) % T
    p = random_model(config, seed, dtype).params
    head = Head((w / math.sqrt(config.n_embd)).astype(dtype))
    noise = Noise(seed, step=3, site=1 + 3 * first) if config.dropout else None
    return x.astype(dtype), last, p.h[first:], p.ln_f, head, config, noise


def random_adapters(config, rank, seed=0, dtype=np.float32, **options):
    """Return adapters with random a and b, both of which change the model"""
    rng = np.random.default_rng(seed)

    def draw(a):
        return (rng.standard_normal(a.shape, np.float32) / math.sqrt(len(a))).astype(dtype)

    return tree_map(draw, lora.new_adapters(config, rank, **options))
