"""AdamW in place, its learning rate, and clipping.

    m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g²        p = p - lr ( m̂ / (sqrt v̂ + eps) + decay p )

with m̂ = m / (1 - b1^t) and v̂ = v / (1 - b2^t), t counting from 1. Each operation below rounds once, and in one order,
so that the twin computes the same bits.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from .errors import GPTError
from .fast import threads
from .number import is_real
from .params import named, tree_map

SMALLEST = {"float64": 2.0**-1022, "float32": 2.0**-126, "bfloat16": 2.0**-126, "float16": 2.0**-14}  # normal numbers
TILE = 1 << 18  # elements: p, g, m and v of a tile stay in the cache; smaller ones keep threads waiting for Python


class Moments(NamedTuple):
    m: Any  # the running mean of the gradient, a tree like the parameters
    v: Any  # the running mean of its square


def moments(params):
    """Where Adam starts: zeros"""
    return Moments(tree_map(np.zeros_like, params), tree_map(np.zeros_like, params))


def step(params, grads, moments, t, lr, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1):
    """Step number t = 1, 2, ...: params and moments are updated in place; matrices decay, biases and gains don't"""
    check_step(params, grads, moments)
    t, lr, beta1, beta2, eps, weight_decay = check_settings(t, lr, beta1, beta2, eps, weight_decay)
    check_eps(eps, beta2, t, params)

    def update_tile(tile):
        p, g, m, v = tile
        update(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay)

    leaves = zip(named(params), named(grads), named(moments.m), named(moments.v), strict=True)
    parts = [tile for leaf in leaves for tile in tiles(*(a for _, a in leaf))]
    each = threads.shared().map if sum(p.size for p, *_ in parts) > TILE else map
    list(each(update_tile, parts))


def update(p, g, m, v, t, lr, beta1, beta2, eps, decay):
    """m̂ / (sqrt v̂ + eps) = c / (1 - b1^t) · m / (sqrt v + c eps)          c = sqrt(1 - b2^t)

    All in one array a: threads that ask for memory wait for each other.
    """
    c = math.sqrt(1 - beta2**t)
    a = (1 - beta1) * g
    m *= beta1
    m += a
    a *= g
    a *= (1 - beta2) / (1 - beta1)  # (1 - b2) g²
    v *= beta2
    v += a
    np.sqrt(v, out=a)
    a += eps * c
    np.divide(m, a, out=a)
    a *= lr * c / (1 - beta1**t)
    p *= 1 - lr * (decay if p.ndim == 2 else 0.0)
    p -= a


def tiles(*arrays):
    """The arrays in slices of whole rows, as views: what is written to a slice is written to its array"""
    rows = max(1, TILE * len(arrays[0]) // arrays[0].size)
    for start in range(0, len(arrays[0]), rows):
        yield [a[start : start + rows] for a in arrays]


def check_settings(t, lr, beta1, beta2, eps, weight_decay):
    """As Python numbers: NumPy's float64 scalars would turn float32 arithmetic into float64"""
    t, lr, beta1, beta2, eps, weight_decay = map(plain, (t, lr, beta1, beta2, eps, weight_decay))
    if not is_whole(t) or t < 1:
        raise GPTError(f"the step t is {t!r}: count 1, 2, ..., as the correction of the moments' bias needs it.")
    for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
        if not is_real(value) or not 0 <= value < math.inf:
            raise GPTError(f"{name} is {value!r}: it must be a finite number of at least 0.")
    for name, value in (("beta1", beta1), ("beta2", beta2)):
        if not is_real(value) or not 0 <= value < 1:
            raise GPTError(f"{name} is {value!r}: it must be at least 0 and less than 1.")
    return int(t), float(lr), float(beta1), float(beta2), float(eps), float(weight_decay)


def plain(x):
    """Return an array or a tensor without dimensions as the Python number that it holds"""
    return x.item() if getattr(x, "ndim", None) == 0 else x


def is_whole(x):
    return is_real(x) and math.isfinite(x) and x == int(x)


def check_eps(eps, beta2, t, params):
    """Raise GPTError if the dtype can't hold what is added to sqrt(v): an element without a gradient would be 0/0"""
    for dtype in {dtype for _, _, dtype, _ in layout(params)}:
        least = smallest_eps(dtype, beta2, t)
        if eps < least:
            raise GPTError(
                f"eps is {eps}: in {dtype} it must be at least {least:.2g}, or an update can be 0/0; choose 1e-8, the "
                "usual one."
            )


def smallest_eps(dtype, beta2, t=1):
    """eps sqrt(1 - b2^t) must be a normal number; t = 1 is the worst case"""
    return SMALLEST[dtype.removeprefix("torch.")] / math.sqrt(1 - beta2**t)


def check_step(params, grads, moments):
    if not isinstance(moments, Moments):
        raise GPTError(f"moments is {type(moments).__name__}: make it with moments(params).")
    for what, tree in (("grads", grads), ("moments.m", moments.m), ("moments.v", moments.v)):
        different = layout(params) ^ layout(tree)
        if different:
            raise GPTError(f"{what} doesn't fit params at {min(different)[0]}: both need one shape, dtype and device.")


def layout(tree):
    return {(name, tuple(a.shape), str(a.dtype), str(a.device)) for name, a in named(tree)}


def clip(grads, max_norm):
    """Scale the gradients in place so that their norm, all as one vector, is at most max_norm -> the norm before"""
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
    if not is_real(plain(max_norm)) or not max_norm > 0:
        raise GPTError(f"max_norm is {max_norm!r}: it must be more than 0.")


def sum_squares(g):
    """in float64, whatever g is"""
    total = 0.0
    for (tile,) in tiles(g):
        wide = tile.astype(np.float64).ravel()
        total += float(wide @ wide)
    return total


def cosine(step, steps, lr, min_lr=0.0, warmup=0):
    """The learning rate of step 0, 1, ...: up in a line for `warmup` steps, then down half a cosine

    It is min_lr at the last step, steps - 1, and after it.
    """
    check_schedule(step, steps, lr, min_lr, warmup)
    if step < warmup:
        return lr * (step + 1) / warmup
    if step >= steps - 1:
        return min_lr
    progress = (step - warmup) / (steps - 1 - warmup)
    return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2


def check_schedule(step, steps, lr, min_lr, warmup):
    for name, value, least in (("step", step, 0), ("number of steps", steps, 1), ("warmup", warmup, 0)):
        if not is_whole(plain(value)) or value < least:
            raise GPTError(f"the {name} of the schedule is {value!r}: it must be a whole number of at least {least}.")
    for name, value in (("lr", lr), ("min_lr", min_lr)):
        if not is_real(plain(value)) or not 0 <= value < math.inf:
            raise GPTError(f"{name} is {value!r}: it must be a finite number of at least 0.")
