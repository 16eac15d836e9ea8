"""Draw errors.svg: the errors that `python -m parity report` prints, those of NumPy and PyTorch for every tensor."""

import math
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import svg

from parity.compare import FEW_ULP, Row
from parity.inputs import TINY
from parity.trace import compare_steps, enough_draws

B, T = 2, 7  # the defaults of the report
WIDTH, TOP, LINE = 860, 92, 16.5
EXPONENTS = (-8, -7, -6)  # the ticks
LOW, HIGH = -8.4, -5.8  # where the axis ends; an error of 0 is drawn at LOW
STYLE = """
    .code { font-size: 11px } .pair { stroke: #bbb; stroke-width: 1.5 } .band { fill: #8884; fill-opacity: .18 }
    .pytorch { fill: #fff; stroke-width: 2 }"""
DARK = """
    .pair { stroke: #555 } .pytorch { fill: #16181c }"""


class Column(NamedTuple):
    """Describe one of the columns of points"""

    title: str
    prefix: str  # of its tensors' names
    x: float
    width: float


VALUES = (Column("values", "", 118, 150), Column("their gradients", "grad.act.", 286, 150))
PARAMETERS = (Column("gradients of parameters", "grad.param.", 622, 214),)


def draw(argv: list[str]) -> str:
    ArgumentParser(prog="make.py errors").parse_args(argv)
    rows = {row.name: row for row in compare_steps(TINY, B, T, draws=enough_draws(TINY, T))}
    values = [name for name in rows if not name.startswith("grad.")]
    parameters = [name.removeprefix("grad.param.") for name in rows if name.startswith("grad.param.")]
    parts = [*head(), *panel(values, 12, 110, VALUES, rows), *panel(parameters, 472, 614, PARAMETERS, rows)]
    height = TOP + LINE * max(len(values), len(parameters)) + 40
    return svg.document("Errors of NumPy and PyTorch", WIDTH, height, parts, STYLE, DARK)


def head() -> Iterator[str]:
    yield svg.text(16, 26, "Error of each tensor in a training step in float32: ||x - truth|| / ||truth||", "title")
    rule = f"The truth is the same step in float64. Neither error may exceed twice the other + {FEW_ULP:.1e}."
    yield svg.text(16, 46, rule)
    for x, css, name in ((650, svg.NUMPY, "NumPy"), (740, svg.PYTORCH, "PyTorch")):
        yield point(x, 22, css)
        yield svg.text(x + 10, 26, name)


def panel(
    names: Sequence[str], left: float, end: float, columns: Sequence[Column], rows: dict[str, Row]
) -> Iterator[str]:
    """Yield the names of tensors, right-aligned at x = end, and one or more columns with their errors"""
    for i in range(0, len(names), 2):
        yield svg.rectangle(left, TOP + i * LINE, columns[-1].x + columns[-1].width - left, LINE, "band")
    for i, name in enumerate(names):
        yield svg.text(end, TOP + (i + 0.72) * LINE, name, "code", "end")
    for column in columns:
        yield svg.text(column.x + column.width / 2, TOP - 8, column.title, "", "middle")
        yield from axis(column, TOP + len(names) * LINE)
        for i, name in enumerate(names):
            if row := rows.get(column.prefix + name):
                yield from pair(column, TOP + (i + 0.5) * LINE, row)


def axis(column: Column, bottom: float) -> Iterator[str]:
    yield svg.text(column.x, bottom + 18, "0", "small", "middle")
    for exponent in EXPONENTS:
        x = place(column, 10.0**exponent)
        yield svg.path(f"M{x:.1f},{TOP} V{bottom + 4:.1f}", "grid")
        yield svg.text(x, bottom + 18, f"1e{exponent}", "small", "middle")


def pair(column: Column, y: float, row: Row) -> Iterator[str]:
    """Yield both errors of a tensor, which a line connects, with the figures as a tooltip"""
    a, b = place(column, row.numpy), place(column, row.torch)
    figures = f"<title>{row.name}: NumPy {row.numpy:.1e}, PyTorch {row.torch:.1e}</title>"
    line = svg.path(f"M{a:.1f},{y:.1f} H{b:.1f}", "pair")
    yield f"<g>{figures}{line}{point(b, y, svg.PYTORCH)}{point(a, y, svg.NUMPY)}</g>"


def point(x: float, y: float, css: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3.6 if css == svg.PYTORCH else 3}" class="{css}"/>'


def place(column: Column, error: float) -> float:
    """Return the x of an error on the logarithmic axis"""
    exponent = math.log10(error) if error > 0 else LOW
    return column.x + column.width * (min(max(exponent, LOW), HIGH) - LOW) / (HIGH - LOW)
