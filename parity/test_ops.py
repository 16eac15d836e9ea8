"""Does each op equal PyTorch's kernel, and its backward autograd's?"""

from contextlib import nullcontext
from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel

import torch_gpt
from numpy_gpt import Noise

from . import trace
from .compare import FLOAT64, compare, disagreements, error
from .inputs import op_arguments, pair


def numpy_op(label, args, dy_seed=1):
    """Return y and the gradients of all arguments that have one, by name"""
    op, backward = pair(label)
    y, saved = op(*args)
    dy = np.random.default_rng(dy_seed).standard_normal(np.shape(y)).astype(np.float32).astype(y.dtype)
    gradients = [g for g in backward(dy, saved) if g is not None]
    return {"y": y} | {f"gradient {i}": g for i, g in enumerate(gradients)}


def torch_op(label, args, device, dy_seed=1, fused=False):
    """Return y and the gradients, as numpy_op

    Unless fused is true, a GPU computes attention by PyTorch's plain kernel. In float32 the errors of the fused one are
    about 4 times larger, which is too much for gradients of a few numbers.
    """
    op, _ = pair(label)
    twin = import_module(op.__module__.replace("numpy_gpt", "torch_gpt"))
    args = [to_torch(a, device) for a in args]
    with nullcontext() if fused or device == "cpu" else sdpa_kernel(SDPBackend.MATH):
        y = getattr(twin, op.__name__)(*args)
        dy = np.random.default_rng(dy_seed).standard_normal(y.shape).astype(np.float32)
        y.backward(torch.as_tensor(dy, dtype=y.dtype, device=device))
    gradients = [a.grad for a in args if isinstance(a, torch.Tensor) and a.requires_grad]
    results = {"y": y} | {f"gradient {i}": g for i, g in enumerate(gradients)}
    return {name: torch_gpt.to_numpy(a) for name, a in results.items()}


def to_torch(a, device):
    if isinstance(a, Noise):
        return torch_gpt.Noise(*a)
    if not isinstance(a, np.ndarray):
        return a
    return torch.tensor(a, device=device, requires_grad=a.dtype.kind == "f")


def rows(label, device, seed=0, fused=False, **shape):
    return compare(four_runs(label, device, fused, seed=s, **shape) for s in range(seed, seed + trace.DRAWS))


def four_runs(label, device, fused, **shape):
    single, double = (op_arguments(dtype=dtype, **shape)[label] for dtype in (np.float32, np.float64))
    return (
        numpy_op(label, single),
        torch_op(label, single, device, fused=fused),
        numpy_op(label, double),
        torch_op(label, double, device, fused=fused),
    )


@pytest.mark.parametrize("label", op_arguments())
def test_op_and_its_gradients_agree_with_pytorch(label, device):
    assert disagreements(rows(label, device)) == []


@pytest.mark.parametrize("label", ["attention", "attention with a past"])
def test_fused_attention_agrees_at_the_size_of_a_real_head(label, device):
    assert disagreements(rows(label, device, fused=True, T=64, past=32, D=64)) == []


def shapes(smallest):
    sizes = {"B": (1, 4), "T": (smallest, 17), "past": (0, 5), "H": (2, 5), "D": (3, 9), "V": (smallest, 70)}
    return st.fixed_dictionaries({"seed": st.integers(0, 2**32 - 1)} | {k: st.integers(*v) for k, v in sizes.items()})


@pytest.mark.parametrize("label", op_arguments())
@settings(max_examples=10)
@given(shape=shapes(smallest=5))
def test_op_agrees_in_any_shape(label, device, shape):
    assert disagreements(rows(label, device, **shape)) == []


@pytest.mark.parametrize("label", op_arguments())
@settings(max_examples=10)
@given(shape=shapes(smallest=2))
def test_op_agrees_in_small_shapes_in_float64(label, device, shape):
    # In float32 the error of so few numbers depends on chance
    args = op_arguments(**shape)[label]
    ours, theirs = numpy_op(label, args), torch_op(label, args, device)
    assert [name for name in ours if error(name, theirs, ours) > FLOAT64] == []


@pytest.mark.parametrize("op", ["attention", "attention with a past"])
def test_attention_to_a_single_position_has_no_gradient_of_query_and_key(op, device):
    args = op_arguments(T=1, past=0)[op]
    for side in (numpy_op(op, args), torch_op(op, args, device)):
        assert not side["gradient 0"].any()
        assert not side["gradient 1"].any()
        np.testing.assert_array_equal(side["y"], args[2])
