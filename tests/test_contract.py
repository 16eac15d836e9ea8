"""Does every pair keep the contract at the top of ops.py?"""

import ast
import inspect
from collections import Counter

import numpy as np
import pytest

from numpy_gpt import model, ops, params
from parity.inputs import op_arguments

LABELS = list(op_arguments())
PAIRS = sorted(name for name in vars(ops) if f"{name}_backward" in vars(ops))
DTYPES = [np.float32, np.float64]


def run(label, dtype):
    args = op_arguments(dtype=dtype)[label]
    op, backward = getattr(ops, label.split()[0]), getattr(ops, label.split()[0] + "_backward")
    y, saved = op(*args)
    dy = np.random.default_rng(1).standard_normal(np.shape(y)).astype(dtype)
    return args, y, saved, dy, backward


def arrays(tree):
    if isinstance(tree, tuple | list):
        return [a for part in tree for a in arrays(part)]
    return [tree] if isinstance(tree, np.ndarray) else []


def test_inputs_cover_every_pair():
    assert {label.split()[0] for label in LABELS} == set(PAIRS)
    assert PAIRS


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("label", LABELS)
def test_backward_returns_one_gradient_per_array_argument(label, dtype):
    args, _, saved, dy, backward = run(label, dtype)
    expected = [a for a in args if (a is None and "bias" in label) or (isinstance(a, np.ndarray) and a.dtype == dtype)]
    gradients = backward(dy, saved)
    assert isinstance(gradients, tuple)
    assert len(gradients) == len(expected)
    for g, a in zip(gradients, expected, strict=True):
        assert (g is None) == (a is None)
        assert g is None or (g.shape, g.dtype) == (a.shape, a.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("label", LABELS)
def test_dtype_of_results_and_saved_is_that_of_the_arguments(label, dtype):
    _, y, saved, _, _ = run(label, dtype)
    assert y.dtype == dtype
    assert {a.dtype for a in arrays(saved) if a.dtype.kind == "f"} <= {np.dtype(dtype)}


@pytest.mark.parametrize("label", LABELS)
def test_arguments_dy_and_saved_are_not_written_to(label):
    args, y, saved, dy, backward = run(label, np.float64)
    before = [a.copy() for a in arrays([args, y, saved, dy])]
    first = arrays(backward(dy, saved))
    second = arrays(backward(dy, saved))
    for a, b in zip([*before, *first], [*arrays([args, y, saved, dy]), *second], strict=True):
        np.testing.assert_array_equal(a, b)
    for a, fresh in zip(arrays(args), arrays(op_arguments()[label]), strict=True):
        np.testing.assert_array_equal(a, fresh)


def functions(module):
    return {f.name: f for f in ast.parse(inspect.getsource(module)).body if isinstance(f, ast.FunctionDef)}


OPS, MODEL = functions(ops), functions(model)
BACKWARDS = [name for name in OPS | MODEL if name.endswith("_backward")]


def both(backward):
    """Return the forward and the statements of the backward without its docstring"""
    fs = OPS | MODEL
    statements = fs[backward].body
    return fs[backward.removesuffix("_backward")], statements[isinstance(statements[0], ast.Expr) :]


def names(nodes, kind=ast.expr_context):
    """Return the names in nodes: all of them, or only those assigned to (ast.Store) or read (ast.Load)"""
    found = [n for node in nodes for n in ast.walk(node) if isinstance(n, ast.Name)]
    return [n.id for n in found if isinstance(n.ctx, kind)]


@pytest.mark.parametrize("name", BACKWARDS)
def test_first_line_of_a_backward_unpacks_saved_and_all_of_it_is_read(name):
    _, (first, *rest) = both(name)
    assert ast.unparse(first).endswith(" = saved")
    assert set(names([first], ast.Store)) <= set(names(rest, ast.Load))


@pytest.mark.parametrize("name", BACKWARDS)
def test_backward_unpacks_saved_under_the_names_of_the_forward(name):
    forward, (first, *_) = both(name)
    returned = [n.value.elts[1] for n in ast.walk(forward) if isinstance(n, ast.Return)]
    saved = [tuple_ for r in returned for tuple_ in ast.walk(r) if isinstance(tuple_, ast.Tuple)][-1]
    for kept, unpacked in zip(saved.elts, names([first], ast.Store), strict=True):
        assert not isinstance(kept, ast.Name) or kept.id == unpacked


@pytest.mark.parametrize("name", BACKWARDS)
def test_backward_assigns_to_each_name_once(name):
    _, statements = both(name)
    targets = [t for line in statements for n in ast.walk(line) if isinstance(n, ast.Assign) for t in n.targets]
    assigned = Counter(names(targets, ast.Store))
    if name == "gpt2_backward":
        assert assigned.pop("dx") == 2  # after ln_f, and in the loop over blocks
    assert set(assigned.values()) <= {1}


@pytest.mark.parametrize("name", BACKWARDS)
def test_backward_assigns_to_d_and_the_name_of_a_forward_variable(name):
    forward, (_, *rest) = both(name)
    variables = {a.arg for a in forward.args.args} | set(names([forward]))
    parts = {field for tree in (params.GPT2, params.Block, params.Attn, params.MLP) for field in tree._fields}
    parts |= {"i", "w"}  # one block of h, the head's weights
    if name in MODEL:
        variables |= parts
    statements = [n for line in rest for n in ast.walk(line) if isinstance(n, ast.Assign | ast.AugAssign)]
    assigned = names([t for n in statements for t in getattr(n, "targets", None) or [n.target]], ast.Store)
    for target in assigned:
        variable = target.removeprefix("d").removeprefix("_" if name in MODEL else "")
        local_derivative = set(variable.split("_d"))  # du_dx
        assert target.startswith("d")
        assert variable in variables or local_derivative <= variables, target
