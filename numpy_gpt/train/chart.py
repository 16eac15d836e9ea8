"""Draw curves as an SVG file, with Python's standard library alone."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from ..evaluate.metrics import format_number

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 56, 92, 40, 48  # margins for axes and labels
COLOURS = ("#2a6fbb", "#d1602b", "#3a8f5c", "#8456a8")
STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #444 }
    .title { font-size: 15px; fill: #222 }
    .grid { stroke: #ddd }
    .curve { fill: none; stroke-width: 2; stroke-linejoin: round }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #16181c } text { fill: #bbb } .title { fill: #eee } .grid { stroke: #333 }
    }"""

Points = Sequence[tuple[float, float]]


def svg(title: str, curves: Mapping[str, Points], x_label: str) -> str:
    """Return a chart of named curves; each is labelled at its end with its name and last value"""
    xs = ticks([x for points in curves.values() for x, _ in points])
    ys = ticks([y for points in curves.values() for _, y in points])

    def place(x, y):
        """Return the pixels of a point"""
        across = (x - xs[0]) / (xs[-1] - xs[0]) * (WIDTH - LEFT - RIGHT)
        up = (y - ys[0]) / (ys[-1] - ys[0]) * (HEIGHT - TOP - BOTTOM)
        return LEFT + across, HEIGHT - BOTTOM - up

    middle = (LEFT + WIDTH - RIGHT) / 2
    parts = [text(LEFT, 24, title, 'class="title"'), text(middle, HEIGHT - 8, x_label, 'text-anchor="middle"')]
    for x in xs:
        parts.append(text(place(x, 0)[0], HEIGHT - BOTTOM + 20, f"{x:,g}", 'text-anchor="middle"'))
    for y in ys:
        at = place(0, y)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(text(LEFT - 8, at + 4, f"{y:g}", 'text-anchor="end"'))
    ends = apart([place(*points[-1])[1] for points in curves.values()])
    for (name, points), end, colour in zip(curves.items(), ends, COLOURS, strict=False):
        line = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in points)
        parts.append(f'<polyline class="curve" stroke="{colour}" points="{line}"/>')
        label = f"{name} {format_number(points[-1][1], 3)}"
        parts.append(text(place(*points[-1])[0] + 6, end + 4, label, f'style="fill: {colour}"'))
    body = "\n  ".join(parts)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">
  <title>{escape(title)}</title>
  <style>{STYLE}
  </style>
  <rect class="paper" width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>
  {body}
</svg>
"""


def ticks(values: Sequence[float]) -> list[float]:
    """Return evenly spaced round numbers; the first is at most the minimum, the last at least the maximum"""
    low, high = min(values), max(values)
    rough = (high - low or abs(high) or 1) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(n * power for n in (1, 2, 5, 10) if n * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, max(last, first + 1) + 1)]


def apart(heights: Sequence[float], least: float = 16) -> list[float]:
    """Return the heights of labels, moved down where two would overlap"""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    moved = list(heights)
    for a, b in pairwise(order):
        moved[b] = max(moved[b], moved[a] + least)
    return moved


def text(x: float, y: float, content: str, attributes: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(content)}</text>'


def escape(content: str) -> str:
    """Replace XML's special characters by entities"""
    return content.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
