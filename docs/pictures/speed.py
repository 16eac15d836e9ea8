"""Draw speed.svg: the speed of several implementations of GPT-2, from the figures of docs/measure_peers.py."""

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import svg

FIGURES = Path(__file__).parent.parent / "speed.json"
WIDTH, START, END = 860, 158, 690  # of the picture; where bars start and the longest ends
BAR, LINE, TOP = 16, 27, 70  # height of a bar, from one to the next, y of the first panel
COLOURS = {"NumPy": svg.NUMPY, "PyTorch eager": svg.PYTORCH, "PyTorch compiled": svg.PYTORCH}
STYLE = """
    .other { fill: #8c959f } .range { stroke: #222; stroke-width: 1.5 } .axis { stroke: #8c959f }
    .value, .panel-title { fill: #222; font-weight: 600 }"""
DARK = """
    .other { fill: #6e7681 } .range { stroke: #eee } .value, .panel-title { fill: #eee }"""


def draw(argv: list[str]) -> str:
    parser = ArgumentParser(prog="make.py speed")
    parser.add_argument("--json", type=Path, default=FIGURES, metavar="FILE", help="default: docs/speed.json")
    figures = json.loads(parser.parse_args(argv).json.read_text())
    decode, train = figures["decode"], figures["train"]
    B, T = train["batch"]
    title = "GPT-2 124M in float32 on {cpu}, {cores} cores".format(**figures["machine"])
    below = TOP + LINE * len(decode["seconds"]) + 50
    end = below + LINE * len(train["seconds"])
    parts = [
        svg.text(16, 26, title, "title"),
        *panel("Decoding: tokens a second", TOP, decode),
        *panel(f"Training with AdamW, {B} x {T} tokens a step: tokens a second", below, train),
        svg.text(16, end + 20, "The median of several rounds, and a line from the slowest to the fastest.", "small"),
    ]
    return svg.document(title, WIDTH, end + 34, parts, STYLE, DARK)


def panel(title: str, top: float, work: dict) -> Iterator[str]:
    """Yield a bar for each implementation, as long as its rate"""
    seconds, tokens = work["seconds"], work["tokens"]
    scale = (END - START) * min(times["min"] for times in seconds.values())
    yield svg.text(16, top - 10, title, "panel-title")
    for i, (name, times) in enumerate(seconds.items()):
        y = top + i * LINE + 4
        slowest, median, fastest = (START + scale / times[which] for which in ("max", "median", "min"))
        yield svg.text(START - 10, y + 12.5, name, "", "end")
        yield svg.rectangle(START, y, median - START, BAR, COLOURS.get(name, "other"), 2)
        yield svg.path(f"M{slowest:.1f},{y + BAR / 2} H{fastest:.1f}", "range")
        yield svg.text(fastest + 8, y + 12.5, rate(tokens / times["median"]), "value")
    yield svg.path(f"M{START},{top} V{top + len(seconds) * LINE}", "axis")


def rate(tokens_per_second: float) -> str:
    return f"{tokens_per_second:,.{0 if tokens_per_second >= 10 else 1}f}"
