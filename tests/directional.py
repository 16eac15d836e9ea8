"""Check gradients by central differences along one random direction, with a random dy."""

import numpy as np

H = 1e-5  # the two errors of a central difference, H² and 2^-53 / H, are both far below the tolerance
TOLERANCE = 1e-7  # relative, in float64


def directional_error(f, arrays, gradients, dy, rng):
    """|(f(x + h u) - f(x - h u)) · dy / 2h  -  Σ gradient · u|  /  |Σ gradient · u|

    The direction u is random, with the standard deviation of each array.
    """
    u = [rng.standard_normal(a.shape) * a.std() for a in arrays]
    ahead = f(*(a + H * d for a, d in zip(arrays, u, strict=True)))
    behind = f(*(a - H * d for a, d in zip(arrays, u, strict=True)))
    numeric = np.sum((ahead - behind) * dy) / (2 * H)
    analytic = sum(np.sum(g * d) for g, d in zip(gradients, u, strict=True))
    assert analytic != 0, "the derivative in this direction is 0, so it can't be compared"
    return abs(numeric - analytic) / abs(analytic)
