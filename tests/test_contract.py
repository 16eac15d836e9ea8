"""Does every pair keep the contract at the top of ops.py?"""

import ast
import inspect
from collections import Counter

import numpy as np
import pytest

from numpy_gpt import classifier, lora, masked_loss, model, named, ops, params
from numpy_gpt.params import tree_map
from parity.inputs import MODULES, differentiable, op_arguments, pair, tree_arguments

LABELS = list(op_arguments() | tree_arguments())
DTYPES = [np.float32, np.float64]


def arguments(label, dtype=np.float64):
    return list((op_arguments(dtype=dtype) | tree_arguments(dtype))[label])


def run(label, dtype):
    args = arguments(label, dtype)
    op, backward = pair(label)
    y, saved = op(*args)
    rng = np.random.default_rng(1)
    dy = tree_map(lambda a: rng.standard_normal(np.shape(a)).astype(dtype), y)
    return args, y, saved, dy, backward


def arrays(tree):
    return [a for _, a in named(tree) if isinstance(a, np.ndarray)]


def test_inputs_cover_every_pair():
    names = {name for module in MODULES for name in functions(module)}
    assert {label.split()[0] for label in LABELS} == {name for name in names if f"{name}_backward" in names}


def layout(tree):
    """Return the types of a tree with the dtype and shape of each array"""
    return repr(tree_map(lambda a: (str(a.dtype), a.shape), tree))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("label", LABELS)
def test_backward_returns_one_gradient_per_array_argument(label, dtype):
    args, _, saved, dy, backward = run(label, dtype)
    gradients = backward(dy, saved)
    if label.startswith("adapt"):  # one gradient, not a tuple of gradients
        gradients = (gradients,)
    assert isinstance(gradients, tuple)
    assert layout(list(gradients)) == layout([args[i] for i in differentiable(label, args)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("label", LABELS)
def test_dtype_of_results_and_saved_is_that_of_the_arguments(label, dtype):
    _, y, saved, _, _ = run(label, dtype)
    assert {a.dtype for _, a in named(y)} == {np.dtype(dtype)}
    assert {a.dtype for a in arrays(saved) if a.dtype.kind == "f"} <= {np.dtype(dtype)}


@pytest.mark.parametrize("label", LABELS)
def test_arguments_dy_and_saved_are_not_written_to(label):
    args, y, saved, dy, backward = run(label, np.float64)
    before = [a.copy() for a in arrays([args, y, saved, dy])]
    first = arrays(backward(dy, saved))
    second = arrays(backward(dy, saved))
    for a, b in zip([*before, *first], [*arrays([args, y, saved, dy]), *second], strict=True):
        np.testing.assert_array_equal(a, b)
    for a, fresh in zip(arrays(args), arrays(arguments(label)), strict=True):
        np.testing.assert_array_equal(a, fresh)


def functions(module):
    return {f.name: f for f in ast.parse(inspect.getsource(module)).body if isinstance(f, ast.FunctionDef)}


OPS, MODEL = functions(ops) | functions(masked_loss), functions(model) | functions(classifier) | functions(lora)
TREES = (params.GPT2, params.Block, params.Attn, params.MLP, lora.Adapter)
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
    if name in ("gpt2_backward", "classifier_backward"):
        assert assigned.pop("dx") == 2  # after ln_f, and in the loop over blocks
    assert set(assigned.values()) <= {1}


@pytest.mark.parametrize("name", BACKWARDS)
def test_backward_assigns_to_d_and_the_name_of_a_forward_variable(name):
    forward, (_, *rest) = both(name)
    variables = {a.arg for a in forward.args.args} | set(names([forward]))
    parts = {field for tree in TREES for field in tree._fields}
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
