"""Draw layernorm.svg: layernorm and layernorm_backward from numpy_gpt/ops.py as highlighted source."""

import inspect
import io
import keyword
import tokenize
from argparse import ArgumentParser
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from xml.sax.saxutils import escape

import svg

from numpy_gpt import ops

SOURCE = "../../numpy_gpt/ops.py"
COLUMN, LINE = 7.83, 18.5  # the width of a character and the height of a line at 13px
LEFT, INDENT, GAP = 12, 14, 12  # of a panel, of its text, between two panels
STYLE = """
    .keyword { fill: #cf222e } .name { fill: #8250df } .number { fill: #0550ae } .comment { fill: #6e7781 }
    .formula { fill: #0a3069; font-weight: 600 } .saved { fill: #fff3c4; stroke: #d4a72c }
    .arrow { fill: none; stroke: #d4a72c; stroke-width: 2 } .code { fill: #24292f } .head { fill: #d4a72c }"""
DARK = """
    .keyword { fill: #ff7b72 } .name { fill: #d2a8ff } .number { fill: #79c0ff } .comment { fill: #8b949e }
    .formula { fill: #a5d6ff } .saved { fill: #3d3211; stroke: #bb8009 }
    .arrow { stroke: #bb8009 } .code { fill: #e6edf3 } .head { fill: #bb8009 }"""


def draw(argv: list[str]) -> str:
    ArgumentParser(prog="make.py layernorm").parse_args(argv)
    forward, backward = inspect.getsource(ops.layernorm), inspect.getsource(ops.layernorm_backward)
    columns = max(len(line) for line in (forward + backward).splitlines())
    width = 2 * (LEFT + INDENT) + columns * COLUMN
    below = LEFT + panel_height(forward) + GAP
    parts = [
        *panel(forward, LEFT, width, "(n, rstd, g)"),
        *panel(backward, below, width, "n, rstd, g = saved"),
        *arrow(place(forward, LEFT, "(n, rstd, g)"), place(backward, below, "n, rstd, g = saved")),
    ]
    height = below + panel_height(backward) + LEFT
    return svg.document("layernorm and its backward", width, height, [svg.link(SOURCE, *parts)], STYLE, DARK)


def panel_height(source: str) -> float:
    return len(source.splitlines()) * LINE + 16


def panel(source: str, top: float, width: float, saved: str) -> Iterator[str]:
    """Yield a panel with the source, and a mark behind the tensors that are saved"""
    yield svg.rectangle(LEFT, top, width - 2 * LEFT, panel_height(source), "panel", 6)
    x, y, mark = place(source, top, saved)
    yield svg.rectangle(x - 3, y - 14, mark + 6, LINE, "saved", 4)
    for i, on_line in groupby(spans(source), key=itemgetter(0)):
        tokens = "".join(token(LEFT + INDENT + column * COLUMN, css, content) for _, column, css, content in on_line)
        yield f'<text y="{top + 8 + i * LINE + 14:.1f}" class="code" xml:space="preserve">{tokens}</text>'


def token(x: float, css: str, content: str) -> str:
    """Return a token at its own x, so that columns are kept in a font of any width"""
    css = f' class="{css}"' if css else ""
    return f'<tspan x="{x:.1f}"{css}>{escape(content)}</tspan>'


def place(source: str, top: float, part: str) -> tuple[float, float, float]:
    """Return x, y and the width of a part of the source in a panel"""
    i, line = next((i, line) for i, line in enumerate(source.splitlines()) if part in line)
    return LEFT + INDENT + line.index(part) * COLUMN, top + 8 + i * LINE + 14, len(part) * COLUMN


def arrow(start: tuple[float, float, float], end: tuple[float, float, float]) -> Iterator[str]:
    """Yield an arrow from the saved tensors in the forward to those in the backward, right of the lines between them"""
    (x, y, width), (to_x, to_y, to_width) = start, end
    far, first, last, tip = 640, y - 5, to_y - 5, to_x + to_width + 5
    out, back = f"M{x + width + 4:.1f},{first:.1f} H{far - 12} q12,0 12,12", f"q0,12 -12,12 H{tip + 6:.1f}"
    yield svg.path(f"{out} V{last - 12:.1f} {back}", "arrow")
    yield svg.path(f"M{tip:.1f},{last:.1f} l9,-5 v10 z", "head")


def spans(source: str) -> Iterator[tuple[int, int, str, str]]:
    """Yield the line, the column, the CSS class and the text of each token; a docstring is split into its lines"""
    previous = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        line, column = token.start
        for i, part in enumerate(token.string.splitlines()):
            indent = len(part) - len(part.lstrip())
            if part.strip():
                yield line - 1 + i, indent + (0 if i else column), css_class(token, previous), part.strip()
        previous = token.string


def css_class(token: tokenize.TokenInfo, previous: str) -> str:
    kinds = {tokenize.COMMENT: "comment", tokenize.STRING: "formula", tokenize.NUMBER: "number"}
    if keyword.iskeyword(token.string):
        return "keyword"
    return "name" if previous == "def" else kinds.get(token.type, "")
