"""Draw losses.svg: the losses of both packages in the same training run, NumPy's as lines and PyTorch's as rings.

python docs/pictures/make.py losses --data FILE [options of the train commands]
python docs/pictures/make.py losses --logs numpy/log.jsonl pytorch/log.jsonl
"""

import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from pathlib import Path

import svg

from numpy_gpt import GPTError
from numpy_gpt.train import chart, log
from numpy_gpt.train.pretraining import FORMAT

PACKAGES = {"NumPy": "numpy_gpt", "PyTorch": "torch_gpt"}
LOSSES = {"train_loss": "training", "val_loss": "validation"}
WIDTH, HEIGHT = 860, 440
LEFT, RIGHT, TOP, BOTTOM = 48, 730, 56, 396  # of the axes
STYLE = """
    .numpy { fill: none; stroke-width: 2.5; stroke-linejoin: round } .pytorch { fill: none; stroke-width: 1.8 }
    .grid { stroke-width: 1 }"""
DARK = """
    .numpy, .pytorch { fill: none }"""


def draw(argv: list[str]) -> str:
    parser = ArgumentParser(prog="make.py losses", allow_abbrev=False)
    parser.add_argument("--logs", nargs=2, type=Path, metavar=("NUMPY", "PYTORCH"), help="log.jsonl of two runs")
    args, options = parser.parse_known_args(argv)
    if args.logs:
        return overlaid(*(log.read(path, FORMAT) for path in args.logs))
    with tempfile.TemporaryDirectory() as folder:
        logs = [train(package, Path(folder), options) for package in PACKAGES.values()]
        return overlaid(*(log.read(path, FORMAT) for path in logs))


def train(package: str, folder: Path, options: list[str]) -> Path:
    """Train a model and return its log; the command's output goes to stderr"""
    out = folder / package
    command = [sys.executable, "-m", f"{package}.train", *options, "--out", str(out)]
    if subprocess.run(command, stdout=sys.stderr).returncode:
        raise GPTError(f"{' '.join(command[1:])} failed: see its message above.")
    return out / log.LOG


def overlaid(ours: Sequence[log.Entry], theirs: Sequence[log.Entry]) -> str:
    steps = [entry["step"] for entry in ours]
    if not steps or steps != [entry["step"] for entry in theirs]:
        raise GPTError("the two logs have different steps: give the logs of two runs with the same options.")
    xs = chart.ticks(steps)
    ys = chart.ticks([entry[loss] for entry in (*ours, *theirs) for loss in LOSSES])
    apart = max(abs(a[loss] - b[loss]) for a, b in zip(ours, theirs, strict=True) for loss in LOSSES)
    title = f"Loss of the same training run in both packages: at most {apart:.0e} apart"
    parts = [svg.text(LEFT, 26, title, "title"), *axes(xs, ys), *legend()]
    ends = []
    for loss in LOSSES:
        lines = [[(across(entry["step"], xs), up(entry[loss], ys)) for entry in entries] for entries in (ours, theirs)]
        parts += [svg.path("M" + " ".join(f"{x:.1f},{y:.1f}" for x, y in lines[0]), svg.NUMPY)]
        parts += [ring(x, y) for x, y in lines[1]]
        ends.append(lines[0][-1][1])
    for (loss, name), y in zip(LOSSES.items(), chart.apart(ends), strict=True):
        parts.append(svg.text(RIGHT + 12, y + 4, f"{name} {ours[-1][loss]:.3f}"))
    return svg.document(title, WIDTH, HEIGHT, parts, STYLE, DARK)


def across(step: float, xs: Sequence[float]) -> float:
    return LEFT + (step - xs[0]) / (xs[-1] - xs[0]) * (RIGHT - LEFT)


def up(loss: float, ys: Sequence[float]) -> float:
    return BOTTOM - (loss - ys[0]) / (ys[-1] - ys[0]) * (BOTTOM - TOP)


def axes(xs: Sequence[float], ys: Sequence[float]) -> Iterator[str]:
    for x in xs:
        yield svg.text(across(x, xs), BOTTOM + 20, f"{x:,g}", "", "middle")
    for y in ys:
        yield svg.path(f"M{LEFT},{up(y, ys):.1f} H{RIGHT}", "grid")
        yield svg.text(LEFT - 8, up(y, ys) + 4, f"{y:g}", "", "end")
    yield svg.text((LEFT + RIGHT) / 2, BOTTOM + 38, "step", "", "middle")


def legend() -> Iterator[str]:
    yield svg.path(f"M{RIGHT - 176},{TOP + 22} h24", svg.NUMPY)
    yield svg.text(RIGHT - 144, TOP + 26, "NumPy")
    yield ring(RIGHT - 82, TOP + 22)
    yield svg.text(RIGHT - 70, TOP + 26, "PyTorch")


def ring(x: float, y: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="{svg.PYTORCH}"/>'
