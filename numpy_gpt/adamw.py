"""Implement the AdamW optimiser in place, its learning rate schedule, and gradient clipping.

    m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g²        p = p - lr ( m̂ / (sqrt v̂ + eps) + decay p )

with m̂ = m / (1 - b1^t) and v̂ = v / (1 - b2^t), t = 1, 2, ... Every operation below rounds once, and their order is
fixed, so torch_gpt computes the same bits.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from .errors import GPTError
from .fast import threads
from .number import is_real
from .params import GPT2, named, tree_map

SMALLEST = {"float64": 2.0**-1022, "float32": 2.0**-126, "bfloat16": 2.0**-126, "float16": 2.0**-14}  # normal numbers
ELEMENTS = 1 << 18  # of p in a tile: its p, g, m and v stay in the cache; with fewer, threads wait for Python's lock


class Moments(NamedTuple):
    """Hold Adam's running means, each a tree like the parameters"""

    m: Any  # of the gradient
    v: Any  # of the gradient's square


def moments(params: GPT2) -> Moments:
    """Return Adam's moments before the first step: two trees like params, full of zeros

    Example:
        >>> import numpy_gpt
        >>> m = numpy_gpt.init(numpy_gpt.Config(n_vocab=9, n_ctx=4, n_embd=6, n_head=2, n_layer=1))
        >>> numpy_gpt.adamw.moments(m.params).v.wte.shape
        (9, 6)
    """
    return Moments(tree_map(np.zeros_like, params), tree_map(np.zeros_like, params))


def step(
    params: GPT2,
    grads: GPT2,
    moments: Moments,
    t: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.95,
    eps: float = 1e-8,
    weight_decay: float = 0.1,
) -> None:
    """Update params and moments in place with the gradients grads; only matrices decay, not biases and gains

    Arguments:
        params: the parameters, a tree of arrays or tensors such as m.params.
        grads: the gradients, a tree like params, as loss_and_grads returns it.
        moments: the moments of the step before; moments(params) before the first step.
        t: the number of the step, from 1.
        lr: the learning rate.
        beta1, beta2: the factors of the running means m and v, from 0 to less than 1.
        eps: a number that is added to sqrt v̂.
        weight_decay: the rate at which matrices decay, times lr.

    Raises GPTError if an argument is invalid; nothing is changed then.

    Example:
        >>> import numpy_gpt
        >>> m = numpy_gpt.init(numpy_gpt.Config(n_vocab=9, n_ctx=4, n_embd=6, n_head=2, n_layer=1))
        >>> moments = numpy_gpt.adamw.moments(m.params)
        >>> for t in range(1, 101):
        ...     loss, grads = numpy_gpt.loss_and_grads(m, tokens=[[1, 2, 3]], targets=[[2, 3, 4]])
        ...     numpy_gpt.adamw.step(m.params, grads, moments, t, lr=0.01)
        >>> bool(loss < 0.1)
        True
    """
    check_step(params, grads, moments)
    t, lr, beta1, beta2, eps, weight_decay = check_settings(t, lr, beta1, beta2, eps, weight_decay)
    check_eps(eps, beta2, t, params)

    def update_tile(tile):
        p, g, m, v = tile
        update(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay)

    leaves = zip(named(params), named(grads), named(moments.m), named(moments.v), strict=True)
    parts = [tile for leaf in leaves for tile in tiles(*(a for _, a in leaf))]
    each = threads.shared().map if sum(p.size for p, *_ in parts) > ELEMENTS else map
    list(each(update_tile, parts))


def update(p, g, m, v, t, lr, beta1, beta2, eps, decay):
    """
    m = b1 m + (1 - b1) g                  v = b2 v + (1 - b2) g²
    m̂ = m / (1 - b1^t)                     v̂ = v / (1 - b2^t)
    p = p - lr ( m̂ / (sqrt v̂ + eps) + decay p )

    With c = sqrt(1 - b2^t), sqrt v̂ = sqrt(v) / c and m̂ / (sqrt v̂ + eps) = c / (1 - b1^t) · m / (sqrt v + c eps).
    All intermediate values share one array a, since threads that allocate memory wait for each other.
    """
    c = math.sqrt(1 - beta2**t)
    a = (1 - beta1) * g  # (1 - b1) g
    m *= beta1
    m += a
    a *= g
    a *= (1 - beta2) / (1 - beta1)  # (1 - b2) g²
    v *= beta2
    v += a
    np.sqrt(v, out=a)
    a += eps * c
    np.divide(m, a, out=a)  # m / (sqrt v + c eps)
    a *= lr * c / (1 - beta1**t)  # lr m̂ / (sqrt v̂ + eps)
    p *= 1 - lr * (decay if p.ndim == 2 else 0.0)
    p -= a


def tiles(*arrays):
    """Yield the arrays in slices of whole rows; they are views, so writing to a slice writes to its array"""
    rows = max(1, ELEMENTS * len(arrays[0]) // arrays[0].size)
    for start in range(0, len(arrays[0]), rows):
        yield [a[start : start + rows] for a in arrays]


def check_settings(t, lr, beta1, beta2, eps, weight_decay):
    """Return the arguments of step as Python numbers: NumPy's float64 would turn float32 arithmetic into float64"""
    t, lr, beta1, beta2, eps, weight_decay = map(to_python, (t, lr, beta1, beta2, eps, weight_decay))
    if not is_whole(t) or t < 1:
        raise GPTError(f"the step t is {t!r}: it must be a whole number of at least 1, since 1 - beta**t is a divisor.")
    for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
        if not is_real(value) or not 0 <= value < math.inf:
            raise GPTError(f"{name} is {value!r}: it must be a finite number of at least 0.")
    for name, value in (("beta1", beta1), ("beta2", beta2)):
        if not is_real(value) or not 0 <= value < 1:
            raise GPTError(f"{name} is {value!r}: it must be at least 0 and less than 1.")
    return int(t), float(lr), float(beta1), float(beta2), float(eps), float(weight_decay)


def to_python(x):
    """Return the Python number in an array or tensor without dimensions, and anything else as it is"""
    return x.item() if getattr(x, "ndim", None) == 0 else x


def is_whole(x):
    """Return whether x is a number without a fractional part"""
    return is_real(x) and math.isfinite(x) and x == int(x)


def check_eps(eps, beta2, t, params):
    """Raise GPTError if eps sqrt(1 - b2^t) underflows: the update of an element without a gradient would be 0/0"""
    for dtype in {dtype for _, _, dtype, _ in layout(params)}:
        least = smallest_eps(dtype, beta2, t)
        if eps < least:
            raise GPTError(
                f"eps is {eps}: in {dtype} it must be at least {least:.2g}, or an update can be 0/0; 1e-8 is usual."
            )


def smallest_eps(dtype, beta2, t=1):
    """Return the smallest eps for which eps sqrt(1 - b2^t) is a normal number; t = 1 is the worst case"""
    return SMALLEST[dtype.removeprefix("torch.")] / math.sqrt(1 - beta2**t)


def check_step(params, grads, moments):
    """Raise GPTError unless grads and both moments have the names, shapes, dtypes and devices of params"""
    if not isinstance(moments, Moments):
        raise GPTError(f"moments is a {type(moments).__name__}: create it with moments(params).")
    for name, tree in (("grads", grads), ("moments.m", moments.m), ("moments.v", moments.v)):
        different = layout(params) ^ layout(tree)
        if different:
            raise GPTError(f"{name} doesn't fit params at {min(different)[0]}: both need one shape, dtype and device.")


def layout(tree):
    """Return the set of (name, shape, dtype, device) of the leaves"""
    return {(name, tuple(a.shape), str(a.dtype), str(a.device)) for name, a in named(tree)}


def clip(grads: GPT2, max_norm: float) -> float:
    """Scale the gradients in place so that the norm of all of them, as one vector, is at most max_norm

    Arguments:
        grads: the gradients, a tree such as loss_and_grads returns.
        max_norm: the largest norm, more than 0; inf measures the norm and changes nothing.

    Returns the norm before scaling.

    Raises GPTError if max_norm is invalid, or if a gradient has an inf or a NaN; nothing is changed then.

    Example:
        >>> import numpy as np, numpy_gpt
        >>> grads = [np.array([3.0]), np.array([4.0])]
        >>> numpy_gpt.adamw.clip(grads, max_norm=1.0)
        5.0
        >>> [round(float(g[0]), 6) for g in grads]
        [0.6, 0.8]
    """
    check_max_norm(max_norm)
    squares = {name: sum_squares(g) for name, g in named(grads)}
    for name, s in squares.items():
        if not math.isfinite(s):
            raise GPTError(f"the gradient of {name} is not finite: nothing was updated; lower the learning rate.")
    norm = math.sqrt(sum(squares.values()))
    if norm > max_norm:
        for _, g in named(grads):
            g *= float(max_norm / norm)
    return norm


def check_max_norm(max_norm):
    if not is_real(to_python(max_norm)) or not max_norm > 0:
        raise GPTError(f"max_norm is {max_norm!r}: it must be more than 0.")


def sum_squares(g):
    """Return Σ g², summed in float64"""
    total = 0.0
    for (tile,) in tiles(g):
        wide = tile.astype(np.float64).ravel()
        total += float(wide @ wide)
    return total


def cosine(step: int, steps: int, lr: float, min_lr: float = 0.0, warmup: int = 0) -> float:
    """Return the learning rate of a step: a linear rise to lr, then half a cosine down to min_lr

    Arguments:
        step: the number of the step, from 0.
        steps: the number of all steps. The last one, steps - 1, has the rate min_lr, as has every later step.
        lr, min_lr: the highest rate and the last.
        warmup: the number of steps of the rise.

    Raises GPTError if an argument is invalid.

    Example:
        >>> import numpy_gpt
        >>> [numpy_gpt.adamw.cosine(step, steps=7, lr=1.0, warmup=2) for step in (0, 1, 2, 4, 6)]
        [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    check_schedule(step, steps, lr, min_lr, warmup)
    if step < warmup:
        return lr * (step + 1) / warmup
    if step >= steps - 1:
        return min_lr
    progress = (step - warmup) / (steps - 1 - warmup)
    return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2


def check_schedule(step, steps, lr, min_lr, warmup):
    """Raise GPTError if an argument of cosine is invalid"""
    for name, value, least in (("step", step, 0), ("number of steps", steps, 1), ("warmup", warmup, 0)):
        if not is_whole(to_python(value)) or value < least:
            raise GPTError(f"the {name} of the schedule is {value!r}: it must be a whole number of at least {least}.")
    for name, value in (("lr", lr), ("min_lr", min_lr)):
        if not is_real(to_python(value)) or not 0 <= value < math.inf:
            raise GPTError(f"{name} is {value!r}: it must be a finite number of at least 0.")
