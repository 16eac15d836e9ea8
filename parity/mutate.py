"""Break a function by one small change: of a sign, a term, a factor, an operand, a transpose or a constant."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

OTHER: dict[type, Any] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Lt: ast.LtE,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.Eq: ast.NotEq,
    ast.And: ast.Or,
}
COMMUTE = (ast.Add, ast.Mult, ast.BitXor)


class Mutant(NamedTuple):
    function: str
    place: str  # file:line
    change: str  # old source -> new source
    statement: str  # the first line of the changed statement
    code: CodeType
    defaults: tuple | None


def mutants(function) -> Iterator[Mutant]:
    """Yield every mutant of a function"""
    lines, first = inspect.getsourcelines(function)
    module = ast.parse(textwrap.dedent("".join(lines)))
    definition = module.body[0]
    assert isinstance(definition, ast.FunctionDef)
    if ast.get_docstring(definition):
        del definition.body[0]
    definition.returns = None
    for argument in (node for node in ast.walk(definition) if isinstance(node, ast.arg)):
        argument.annotation = None
    for node, put, statement in list(places(definition, definition)):
        texts = {ast.unparse(node)}
        for other in variants(node):
            put(other)
            changed = build(module, function)
            text = ast.unparse(other if node is statement else statement).splitlines()[0]
            put(node)
            if ast.unparse(other) not in texts:
                texts.add(ast.unparse(other))
                place = f"{Path(function.__code__.co_filename).name}:{first + node.lineno - 1}"
                change = "  ->  ".join(ast.unparse(n).splitlines()[0] for n in (node, other))
                yield Mutant(function.__qualname__, place, change, text, changed.__code__, changed.__defaults__)


def build(module, function):
    """Compile the changed source of a function in the globals of the original"""
    made: dict[str, Callable] = {}
    code = compile(ast.fix_missing_locations(module), function.__code__.co_filename, "exec")
    exec(code, function.__globals__, made)
    return made[function.__name__]


def places(parent, statement):
    """Yield every node below parent, a function that replaces it, and the statement that contains it"""
    for field, child in ast.iter_fields(parent):
        for i, node in enumerate(child if isinstance(child, list) else [child]):
            if isinstance(node, ast.AST):
                put = partial(child.__setitem__, i) if isinstance(child, list) else partial(setattr, parent, field)
                owner = node if isinstance(node, ast.stmt) else statement
                yield node, put, owner
                yield from places(node, owner)


def variants(node) -> Iterator[ast.AST]:
    """Yield the nodes that may replace node"""
    match node:
        case ast.BinOp(left, op, right):
            yield left
            yield right
            if type(op) in OTHER:
                yield ast.BinOp(left, OTHER[type(op)](), right)
            if not isinstance(op, COMMUTE):
                yield ast.BinOp(right, op, left)
        case ast.AugAssign(target, op, value):
            yield ast.Pass()
            yield ast.Assign([target], value)
            yield ast.AugAssign(target, OTHER[type(op)](), value)
        case ast.UnaryOp(ast.USub(), operand):
            yield operand
        case ast.Constant(int(value)) if not isinstance(value, bool):
            yield ast.Constant(value + 1)
        case ast.Constant(float(value)):
            yield ast.Constant(2 * value or 1.0)
        case ast.Attribute(value, "mT"):
            yield value
        case ast.Tuple([one, two, *others], ast.Load()):
            yield ast.Tuple([two, one, *others], ast.Load())
        case ast.Call(ast.Attribute(ast.Name("np" | "math")), [argument]):
            yield argument
        case ast.Call(f, [one, two, *others], keywords):
            yield ast.Call(f, [two, one, *others], keywords)
        case ast.Compare(left, [op], [right]) if type(op) in OTHER:
            yield ast.Compare(left, [OTHER[type(op)]()], [right])
        case ast.BoolOp(op, values) if type(op) in OTHER:
            yield ast.BoolOp(OTHER[type(op)](), values)
        case ast.IfExp(_, one, two):
            yield one
            yield two
        case ast.If(test, then, otherwise):
            yield ast.If(ast.UnaryOp(ast.Not(), test), then, otherwise)
