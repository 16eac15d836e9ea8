"""Is every backward the derivative of its forward?"""

import numpy as np
import pytest
from directional import TOLERANCE, directional_error

from numpy_gpt import Noise, ops
from parity.inputs import op_arguments

ARGUMENTS = op_arguments()


def is_float(a):
    return isinstance(a, np.ndarray) and a.dtype.kind == "f"


@pytest.mark.parametrize("label", ARGUMENTS)
def test_backward_is_the_derivative_of_the_forward(label):
    args = ARGUMENTS[label]
    op, backward = getattr(ops, label.split()[0]), getattr(ops, label.split()[0] + "_backward")
    rng = np.random.default_rng(1)
    y, saved = op(*args)
    dy = rng.standard_normal(np.shape(y))
    gradients = [g for g in backward(dy, saved) if g is not None]

    def forward(*arrays):
        changed = iter(arrays)
        return op(*(next(changed) if is_float(a) else a for a in args))[0]

    arrays = [a for a in args if is_float(a)]
    assert len(gradients) == len(arrays)
    assert directional_error(forward, arrays, gradients, dy, rng) < TOLERANCE
    for i in range(len(arrays)):  # one argument at a time, so that a large gradient can't hide a wrong small one
        alone = [g if j == i else 0 * g for j, g in enumerate(gradients)]

        def along(a, i=i):
            return forward(*arrays[:i], a, *arrays[i + 1 :])

        assert directional_error(along, arrays[i : i + 1], alone[i : i + 1], dy, rng) < TOLERANCE


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
