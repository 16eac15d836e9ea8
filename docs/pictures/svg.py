"""Write the parts that the pictures share: an SVG document, its colours in light and dark mode, text and links."""

from collections.abc import Iterable
from xml.sax.saxutils import escape, quoteattr

NUMPY, PYTORCH = "numpy", "pytorch"  # classes: the colours of both packages in every picture
STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #444 }
    .code { font: 13px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre }
    .title { font-size: 15px; fill: #222 }
    .small { font-size: 11px }
    .paper { fill: #fff }
    .panel { fill: #f6f8fa; stroke: #d8dee4 }
    .grid { stroke: #ddd }
    .numpy { fill: #2a6fbb; stroke: #2a6fbb }
    .pytorch { fill: #d1602b; stroke: #d1602b }
    text.numpy, text.pytorch { stroke: none }"""
DARK = """
    text { fill: #bbb } .title { fill: #eee } .paper { fill: #16181c }
    .panel { fill: #1e2126; stroke: #33373d } .grid { stroke: #333 }
    .numpy { fill: #62a0e8; stroke: #62a0e8 } .pytorch { fill: #ee8a5a; stroke: #ee8a5a }
    text.numpy, text.pytorch { stroke: none }"""


def document(title: str, width: float, height: float, parts: Iterable[str], style: str = "", dark: str = "") -> str:
    """Return an SVG document; style and dark are CSS rules that are added to those for light and for dark mode"""
    body = "\n  ".join(parts)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img">
  <title>{escape(title)}</title>
  <style>{STYLE}{style}
    @media (prefers-color-scheme: dark) {{{DARK}{dark}
    }}
  </style>
  <rect class="paper" width="{width:g}" height="{height:g}"/>
  {body}
</svg>
"""


def text(x: float, y: float, content: str, css: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class={quoteattr(css)} text-anchor="{anchor}">{escape(content)}</text>'


def rectangle(x: float, y: float, width: float, height: float, css: str, radius: float = 0) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius:g}" class="{css}"/>'


def path(d: str, css: str) -> str:
    return f'<path d="{d}" class="{css}"/>'


def link(href: str, *parts: str) -> str:
    return f"<a href={quoteattr(href)}>{''.join(parts)}</a>"
