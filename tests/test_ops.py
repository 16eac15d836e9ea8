"""Is every backward the derivative of its forward?"""

import numpy as np
import pytest
from directional import TOLERANCE, directional_error

from numpy_gpt import Noise, named, ops
from numpy_gpt.masked_loss import masked_cross_entropy, masked_cross_entropy_backward
from numpy_gpt.params import tree_map
from parity.inputs import differentiable, is_float, op_arguments, pair, tree_arguments

ARGUMENTS = op_arguments()
TREES = {label: args for label, args in tree_arguments().items() if label != "adapt_linear without an adapter"}


def floats(tree):
    """Return the floating-point arrays of a tree"""
    return [a for _, a in named(tree) if is_float(a)]


@pytest.mark.parametrize("label", ARGUMENTS | TREES)
def test_backward_is_the_derivative_of_the_forward(label):
    args = list((ARGUMENTS | TREES)[label])
    places = differentiable(label, args)
    op, backward = pair(label)
    rng = np.random.default_rng(1)
    y, saved = op(*args)
    dy = tree_map(lambda a: rng.standard_normal(np.shape(a)), y)
    gradients = floats(backward(dy, saved))

    def forward(*arrays):
        changed = iter(arrays)
        varied = [
            tree_map(lambda a: next(changed) if is_float(a) else a, a) if i in places else a for i, a in enumerate(args)
        ]
        return flat(op(*varied)[0])

    arrays = floats([args[i] for i in places])
    assert len(gradients) == len(arrays)
    assert directional_error(forward, arrays, gradients, flat(dy), rng) < TOLERANCE
    for i in range(len(arrays)):  # one array at a time, so that a large gradient can't hide a wrong small one
        alone = [g if j == i else 0 * g for j, g in enumerate(gradients)]

        def along(a, i=i):
            return forward(*arrays[:i], a, *arrays[i + 1 :])

        assert directional_error(along, arrays[i : i + 1], alone[i : i + 1], flat(dy), rng) < TOLERANCE


def flat(tree):
    """Return the numbers of a tree as a vector"""
    return np.concatenate([np.ravel(a) for a in floats(tree)])


def test_embedding_backward_adds_the_gradients_of_a_token_that_occurs_twice():
    tokens = np.array([[1, 0, 1]])
    _, saved = ops.embedding(tokens, np.zeros((2, 1)), np.zeros((3, 1)))
    dwte, dwpe = ops.embedding_backward(np.array([[[1.0], [10.0], [100.0]]]), saved)
    assert dwte.ravel().tolist() == [10, 101]
    assert dwpe.ravel().tolist() == [1, 10, 100]


def test_embedding_backward_adds_its_gradient_to_out():
    tokens, wte, wpe = ARGUMENTS["embedding"]
    dx = np.random.default_rng(2).standard_normal((*tokens.shape, wte.shape[1]))
    _, saved = ops.embedding(tokens, wte, wpe)
    alone, _ = ops.embedding_backward(dx, saved)
    head = np.full_like(wte, 7.0)
    together, _ = ops.embedding_backward(dx, saved, out=head)
    assert together is head
    np.testing.assert_allclose(together, alone + 7, rtol=1e-12)


def test_attention_output_is_independent_of_later_keys():
    q, k, v = ARGUMENTS["attention with a past"]
    y, _ = ops.attention(q, k, v)
    for t in range(q.shape[2]):
        later = slice(k.shape[2] - q.shape[2] + t + 1, None)
        k2, v2 = k.copy(), v.copy()
        k2[:, :, later], v2[:, :, later] = 1e3, 1e3
        y2, _ = ops.attention(q, k2, v2)
        np.testing.assert_array_equal(y2[:, :, : t + 1], y[:, :, : t + 1])


def test_dropout_drops_at_its_rate_and_keeps_the_mean():
    x = np.ones((4, 50_000))
    for rate in (0.1, 0.5, 0.9):
        y, _ = ops.dropout(x, rate, Noise(seed=1, step=1))
        assert abs((y == 0).mean() - rate) < 0.005  # rate is rounded by up to 1/512; plus five standard deviations
        assert abs(y.mean() - 1) < 5 * np.sqrt(rate / (1 - rate) / x.size)


def test_cross_entropy_is_log_v_for_equal_logits_and_0_for_a_certain_prediction():
    z = np.zeros((1, 1, 8))
    assert abs(ops.cross_entropy(z, np.array([[3]]))[0] - np.log(8)) < 1e-15
    z[0, 0, 3] = 1e4
    assert ops.cross_entropy(z, np.array([[3]]))[0] == 0
    assert ops.cross_entropy(z, np.array([[4]]))[0] == 1e4


def test_masked_cross_entropy_with_a_full_mask_equals_cross_entropy():
    z, targets, _ = ARGUMENTS["masked_cross_entropy"]
    (ours, saved), (loss, plain) = masked_cross_entropy(z, targets, targets >= 0), ops.cross_entropy(z, targets)
    (dz,), (expected,) = masked_cross_entropy_backward(2.0, saved), ops.cross_entropy_backward(2.0, plain)
    assert abs(ours - loss) < 1e-14
    np.testing.assert_allclose(dz, expected, rtol=0, atol=1e-16)


def test_masked_cross_entropy_is_independent_of_positions_outside_the_mask():
    z, targets, mask = ARGUMENTS["masked_cross_entropy"]
    elsewhere = np.where(mask[..., None], z, np.nan)
    loss, saved = masked_cross_entropy(elsewhere, np.where(mask, targets, -100), mask)
    (dz,) = masked_cross_entropy_backward(1.0, saved)
    assert loss == masked_cross_entropy(z, targets, mask)[0]
    assert not dz[~mask].any()
    assert dz[mask].all()
