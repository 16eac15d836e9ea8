"""What is asked of input before the maths starts and of results before they are used; each no is one sentence."""

from contextlib import contextmanager

import numpy as np

from .config import Config
from .errors import GPTError
from .params import GPT2, Model, grow, named


def check_tokens(tokens, config, what="tokens"):
    """-> an array (B,T) of ids that the model's vocabulary and context can take"""
    try:
        tokens = np.asarray(tokens)
    except ValueError:
        raise GPTError(f"{what} has rows of different lengths: make every sequence of a batch equally long.") from None
    except (TypeError, RuntimeError) as e:  # of a tensor that is on a GPU, or that requires a gradient
        raise GPTError(f"{what} can't be made a NumPy array ({e}): give token ids as whole numbers.") from None
    if tokens.ndim != 2:
        raise GPTError(f"{what} has the shape {tokens.shape}: it must be (B,T), a batch of sequences of token ids.")
    if not tokens.size:
        raise GPTError(f"{what} is empty, of shape {tokens.shape}: give at least one sequence of at least one token.")
    check_ids(tokens, config, what)
    if tokens.shape[1] > config.n_ctx:
        raise GPTError(f"{what} has {tokens.shape[1]} positions and the model knows {config.n_ctx}: shorten it.")
    return tokens


def check_ids(ids, config, what):
    """Check an array, not empty, of token ids of any shape"""
    if not np.issubdtype(ids.dtype, np.integer):
        raise GPTError(f"{what} has the dtype {ids.dtype}: token ids must be whole numbers.")
    for i in (ids.min(), ids.max()):
        if not 0 <= i < config.n_vocab:
            raise GPTError(f"{what} has the id {i}: the model's vocabulary is 0 to {config.n_vocab - 1}.")


def check_batch(tokens, targets, config):
    tokens, targets = check_tokens(tokens, config), check_tokens(targets, config, "targets")
    if targets.shape != tokens.shape:
        raise GPTError(f"targets has the shape {targets.shape} and tokens {tokens.shape}: each token needs one target.")
    return tokens, targets


def check_tree(m, kind):
    """Check that m is a Model, and that every parameter is of this kind: an array of NumPy's or a tensor"""
    if not isinstance(m, Model):
        raise GPTError(f"m is a {type(m).__name__}: it must be a Model, as init and load return it.")
    if not isinstance(m.config, Config) or not isinstance(m.params, GPT2) or not isinstance(m.params.h, list | tuple):
        raise GPTError("m lacks a Config or the tree of its parameters: make it with init or load.")
    for name, a in named(m.params):
        if isinstance(a, kind):
            continue
        if isinstance(a, np.ndarray):
            raise GPTError("the model holds NumPy arrays: torch_gpt.from_numpy(m) makes one of tensors.")
        if hasattr(a, "detach"):
            raise GPTError(
                "the model holds tensors: m._replace(params=torch_gpt.to_numpy(m.params)) makes one of NumPy arrays."
            )
        raise GPTError(f"parameter {name} is a {type(a).__name__}: it must be a {kind.__module__}.{kind.__name__}.")


def check_model(m, dtypes=(np.float32, np.float64), kind=np.ndarray):
    """The parameters are those of the config, all of one dtype, and that one of the allowed"""
    check_tree(m, kind)
    c, p = m.config, m.params
    names = dict(named(p)).keys()
    biased = any(name.endswith(".attn.c_attn.b") for name in names)
    wte, wpe = (getattr(a, "shape", ()) for a in (p.wte, p.wpe))
    found = (*wte, *wpe, len(p.h), p.head is None, not biased)
    if found != (c.n_vocab, c.n_embd, c.n_ctx, c.n_embd, c.n_layer, c.tied, not c.qkv_bias):
        raise GPTError(f"the parameters are not those of {c}: make or load both together.")
    shapes: dict[str, tuple[int, ...]] = {}
    grow(c, lambda name, *shape: shapes.setdefault(name, shape))
    missing = shapes.keys() - names
    if missing:
        raise GPTError(f"parameter {min(missing)} is missing, and {c} has it.")
    extra = names - shapes.keys()
    if extra:
        raise GPTError(f"parameter {min(extra)} is there, and {c} hasn't it.")
    for name, a in named(p):
        if tuple(a.shape) != shapes[name]:
            raise GPTError(f"parameter {name} has the shape {tuple(a.shape)}, and {shapes[name]} is that of {c}.")
        if a.dtype not in dtypes:
            raise GPTError(
                f"parameter {name} has the dtype {a.dtype}, which the maths can't use: convert it to float32."
            )
        if a.dtype != p.wte.dtype:
            raise GPTError(f"parameter {name} has the dtype {a.dtype} and wte {p.wte.dtype}: use one for all.")


VOCABULARY_MISSING = (
    "put the vocabulary that this model was trained with beside its weights, as encoder.json and vocab.bpe or as "
    "vocab.json and merges.txt"
)


def check_has_tokenizer(tokenizer, source, advice=VOCABULARY_MISSING):
    """Return the tokenizer of source; raise GPTError with this advice if it has none"""
    if tokenizer is None:
        raise GPTError(f"{source} has no tokenizer: {advice}.")
    return tokenizer


def check_tokenizer(tokenizer, config, source, error=GPTError):
    """Raise unless there is a tokenizer and the model of source has an embedding for each of its tokens"""
    check_has_tokenizer(tokenizer, source)
    if tokenizer.n_vocab > config.n_vocab:
        raise error(
            f"{source} has the vocabulary of another model: {tokenizer.encoder} has {tokenizer.n_vocab} tokens and the "
            f"model's n_vocab is {config.n_vocab}; put the files that this model was trained with in its place."
        )


def check_noise(noise, kind):
    if not isinstance(noise, kind | None):
        raise GPTError(
            f"noise is {noise!r}: it must be None or a {kind.__module__.partition('.')[0]}.Noise(seed, step)."
        )


def check_kv(kv, groups, params):
    """Each group has a kv of its own, with room for the group's tokens"""
    for past, tokens in zip(kv, groups, strict=True):
        B, _, N, _ = past[0].k.shape
        if len(tokens) != B or past[0].k.dtype != params.wte.dtype:
            raise GPTError(
                f"the kv is for {B} sequences in {past[0].k.dtype}, and here are {len(tokens)} in {params.wte.dtype}: "
                "make one with new_kv(config, B, dtype)."
            )
        if past[0].length + tokens.shape[1] > N:
            raise GPTError(
                f"the kv has room for {N} positions, holds {past[0].length} and can't take {tokens.shape[1]} more."
            )


def check_finite(what, x, params, isfinite=np.isfinite):
    """x holds no inf and no nan; otherwise the first parameter that does is named"""
    if not isfinite(x).all():
        raise not_finite(what, params, isfinite)


def not_finite(what, params, isfinite=np.isfinite):
    """Return the error that names the first parameter with an inf or a NaN, if there is one"""
    for name, a in named(params):
        if not isfinite(a).all():
            return GPTError(f"{what} is not finite because parameter {name} isn't: load an earlier checkpoint.")
    return GPTError(
        f"{what} is not finite though every parameter is: some have grown too large for {params.wte.dtype}."
    )


@contextmanager
def no_overflow(what, params):
    """Raise GPTError if NumPy's arithmetic overflows in this context or in the threads that it uses

    A result can look right after an overflow: where LayerNorm's variance is inf, its output is its bias.
    """
    try:
        with np.errstate(over="log", call=Overflow, invalid="ignore"):
            yield
    except FloatingPointError:
        raise not_finite(what, params) from None


class Overflow:
    """Receive NumPy's reports of overflow; raise FloatingPointError for every operation but matmul

    The reports of matmul can't be used: OpenBLAS's threads make none, and Apple's Accelerate makes false ones. After a
    real overflow, the product contains inf, and so does all that follows from it: check_finite finds it.
    """

    @staticmethod
    def write(report):
        if "matmul" not in report:
            raise FloatingPointError(report)


def check_gradients(grads, params):
    """Raise GPTError if a gradient has an inf or a NaN

    wte and the head aren't read, since their gradients can't overflow in a matmul. Each of their rows is a mean of x
    with weights (p - onehot) of at most 1. The embedding adds its rows without a matmul, and the same rows to wpe.
    """
    for name, g in named(grads):
        if name not in ("wte", "head.w") and not all_finite(g):
            raise not_finite(f"the gradient of {name}", params)


def all_finite(a):
    """a @ a reads memory once, and is finite only if a is; it can overflow where a doesn't"""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.isfinite(np.vdot(a, a)) or np.isfinite(a).all()
