"""The gradient check of every op and of the model: one random direction, one random covector, central differences."""

import numpy as np

H = 1e-5  # the two errors of a central difference, H² and 2^-53 / H, are both far below the tolerance
TOLERANCE = 1e-7  # relative, in float64


def directional_error(f, arrays, gradients, dy, rng):
    """|(f(x + h u) - f(x - h u)) · dy / 2h  -  Σ gradient · u|  /  |Σ gradient · u|, along a random u as wide as x"""
    u = [rng.standard_normal(a.shape) * a.std() for a in arrays]
    ahead = f(*(a + H * d for a, d in zip(arrays, u, strict=True)))
    behind = f(*(a - H * d for a, d in zip(arrays, u, strict=True)))
    numeric = np.sum((ahead - behind) * dy) / (2 * H)
    analytic = sum(np.sum(g * d) for g, d in zip(gradients, u, strict=True))
    assert analytic != 0, "this direction tells nothing"
    return abs(numeric - analytic) / abs(analytic)
