"""Check arguments before the computation and results after it; a failed check raises GPTError."""

from contextlib import contextmanager

import numpy as np

from .config import Config
from .errors import GPTError
from .params import GPT2, Model, grow, named


def check_tokens(tokens, config, what="tokens"):
    """Return tokens as an array (B,T) of ids below n_vocab with T at most n_ctx

    `what` is the name of the argument in error messages.
    """
    try:
        tokens = np.asarray(tokens)
    except ValueError:
        raise GPTError(f"{what} has rows of different lengths: make every sequence of a batch equally long.") from None
    except (TypeError, RuntimeError) as e:  # a tensor on a GPU, or one that requires a gradient
        raise GPTError(f"{what} can't be made a NumPy array ({e}): give token ids as whole numbers.") from None
    if tokens.ndim != 2:
        raise GPTError(f"{what} has the shape {tokens.shape}: it must be (B,T), a batch of sequences of token ids.")
    if not tokens.size:
        raise GPTError(f"{what} is empty, of shape {tokens.shape}: give at least one sequence of at least one token.")
    check_ids(tokens, config, what)
    if tokens.shape[1] > config.n_ctx:
        raise GPTError(f"{what} has {tokens.shape[1]} positions, and the model's n_ctx is {config.n_ctx}: shorten it.")
    return tokens


def check_ids(ids, config, what):
    """Raise GPTError unless ids, a non-empty array of any shape, contains only ids below n_vocab"""
    if not np.issubdtype(ids.dtype, np.integer):
        raise GPTError(f"{what} has the dtype {ids.dtype}: token ids must be whole numbers.")
    for i in (ids.min(), ids.max()):
        if not 0 <= i < config.n_vocab:
            raise GPTError(f"{what} has the id {i}: the model's vocabulary is 0 to {config.n_vocab - 1}.")


def check_batch(tokens, targets, config):
    """Return tokens and targets as arrays of the same shape (B,T)"""
    tokens, targets = check_tokens(tokens, config), check_tokens(targets, config, "targets")
    if targets.shape != tokens.shape:
        raise GPTError(f"targets has the shape {targets.shape} and tokens {tokens.shape}: each token needs one target.")
    return tokens, targets


def check_tree(m, kind):
    """Raise GPTError unless m is a Model whose parameters all have the type kind: np.ndarray or torch.Tensor"""
    if not isinstance(m, Model):
        raise GPTError(f"m is a {type(m).__name__}: it must be a Model, such as init and load return.")
    if not isinstance(m.config, Config) or not isinstance(m.params, GPT2) or not isinstance(m.params.h, list | tuple):
        raise GPTError("m has no Config or no tree of parameters: create it with init or load.")
    for name, a in named(m.params):
        if isinstance(a, kind):
            continue
        if isinstance(a, np.ndarray):
            raise GPTError("the model holds NumPy arrays: convert it with torch_gpt.from_numpy(m).")
        if hasattr(a, "detach"):
            raise GPTError(
                "the model holds tensors: m._replace(params=torch_gpt.to_numpy(m.params)) returns one of NumPy arrays."
            )
        raise GPTError(f"parameter {name} is a {type(a).__name__}: it must be a {kind.__module__}.{kind.__name__}.")


def check_model(m, dtypes=(np.float32, np.float64), kind=np.ndarray):
    """Raise GPTError unless the parameters have the names and shapes of the config and one of the dtypes"""
    check_tree(m, kind)
    c, p = m.config, m.params
    names = dict(named(p)).keys()
    biased = any(name.endswith(".attn.c_attn.b") for name in names)
    wte, wpe = (getattr(a, "shape", ()) for a in (p.wte, p.wpe))
    found = (*wte, *wpe, len(p.h), p.head is None, not biased)
    if found != (c.n_vocab, c.n_embd, c.n_ctx, c.n_embd, c.n_layer, c.tied, not c.qkv_bias):
        raise GPTError(f"the parameters are not those of {c}: create or load both together.")
    shapes: dict[str, tuple[int, ...]] = {}
    grow(c, lambda name, *shape: shapes.setdefault(name, shape))
    missing = shapes.keys() - names
    if missing:
        raise GPTError(f"parameter {min(missing)} is missing: {c} needs it.")
    extra = names - shapes.keys()
    if extra:
        raise GPTError(f"parameter {min(extra)} isn't part of {c}: remove it, or change the config.")
    for name, a in named(p):
        if tuple(a.shape) != shapes[name]:
            raise GPTError(f"parameter {name} has the shape {tuple(a.shape)}: {c} needs {shapes[name]}.")
        if a.dtype not in dtypes:
            raise GPTError(f"parameter {name} has the dtype {a.dtype}, which isn't supported: convert it to float32.")
        if a.dtype != p.wte.dtype:
            raise GPTError(f"parameter {name} has the dtype {a.dtype} and wte {p.wte.dtype}: use one dtype for all.")


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
    """Raise GPTError if there is no tokenizer, or error if it has more tokens than the model has embeddings

    source is the model's name for error messages.
    """
    check_has_tokenizer(tokenizer, source)
    if tokenizer.n_vocab > config.n_vocab:
        raise error(
            f"{source} has the vocabulary of another model: {tokenizer.encoder} has {tokenizer.n_vocab} tokens and the "
            f"model's n_vocab is {config.n_vocab}; put the files that this model was trained with in its place."
        )


def check_noise(noise, kind):
    """Raise GPTError unless noise is None or of the type kind, a Noise"""
    if not isinstance(noise, kind | None):
        raise GPTError(
            f"noise is {noise!r}: it must be None or a {kind.__module__.partition('.')[0]}.Noise(seed, step)."
        )


def check_kv(kv, groups, params):
    """Raise GPTError unless every group of tokens fits its kv: in batch size, dtype and free positions"""
    for past, tokens in zip(kv, groups, strict=True):
        B, _, N, _ = past[0].k.shape
        if len(tokens) != B or past[0].k.dtype != params.wte.dtype:
            raise GPTError(
                f"the kv is for {B} sequences in {past[0].k.dtype}, and the tokens are {len(tokens)} sequences for a "
                f"model in {params.wte.dtype}: create it with new_kv(config, dtype, B)."
            )
        if past[0].length + tokens.shape[1] > N:
            raise GPTError(
                f"the kv has room for {N} positions, holds {past[0].length} and can't take {tokens.shape[1]} more: "
                "create a larger one, or shorten the tokens."
            )


def check_finite(what, x, params, isfinite=np.isfinite):
    """Raise GPTError if x has an inf or a NaN; `what` is the name of x in the message"""
    if not isfinite(x).all():
        raise not_finite(what, params, isfinite)


def not_finite(what, params, isfinite=np.isfinite):
    """Return an error for a result with an inf or a NaN; it names the first parameter that has one, or the overflow"""
    for name, a in named(params):
        if not isfinite(a).all():
            return GPTError(f"{what} is not finite because parameter {name} isn't: load an earlier checkpoint.")
    return GPTError(
        f"{what} is not finite though every parameter is: some parameters are too large, so that {params.wte.dtype} "
        "overflows; load an earlier checkpoint, or train with a lower learning rate."
    )


@contextmanager
def no_overflow(what, params):
    """Raise GPTError if NumPy's arithmetic overflows in this context or in the threads that it uses

    A result can be finite in spite of an overflow: if the variance in LayerNorm is inf, the output is the bias.
    """
    try:
        with np.errstate(over="log", call=Overflow, invalid="ignore"):
            yield
    except FloatingPointError:
        raise not_finite(what, params) from None


class Overflow:
    """Receive NumPy's overflow reports, and raise FloatingPointError for every operation except matmul

    The reports of matmul are unreliable: OpenBLAS's threads report nothing, and Apple's Accelerate reports overflows
    that didn't happen. After a real overflow in a matmul, its result contains inf, and check_finite finds that.
    """

    @staticmethod
    def write(report):
        """Raise FloatingPointError for a report such as 'Warning: overflow encountered in multiply'"""
        if "matmul" not in report:
            raise FloatingPointError(report)


def check_gradients(grads, params):
    """Raise GPTError if a gradient has an inf or a NaN

    The gradients of wte and the head aren't read, since they can't overflow in a matmul. Each of their rows is a mean
    of x with weights (p - onehot) of at most 1. The embedding adds rows without a matmul, and the same rows to wpe.
    """
    for name, g in named(grads):
        if name not in ("wte", "head.w") and not all_finite(g):
            raise not_finite(f"the gradient of {name}", params)


def all_finite(a):
    """Return whether a has no inf and no NaN

    a @ a is finite only if a is, and reads memory once. It can overflow though a is finite; then a is read again.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return np.isfinite(np.vdot(a, a)) or np.isfinite(a).all()
