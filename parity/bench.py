"""python -m parity bench: how fast are NumPy and PyTorch, and how fast could they be?

Each work is done in turn by numpy_gpt, by torch_gpt without compiling (with torch.optim.AdamW), and as its floor: the
products with the weights alone, or for AdamW the bytes alone. The model has random weights, the sizes of the 124M, and
float32; tokens are drawn greedily. Nothing else should run meanwhile.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from numpy_gpt import Config, init
from numpy_gpt.fast import memory

from . import footprint
from .scaling import scaling, sentence
from .workloads import SETTLE, Work, machine, works


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m parity bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="medians, minima and maxima in seconds, and the machine")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one layer of the twelve, a sixth of the vocabulary, a quarter of the stories, and one round",
    )
    parser.add_argument(
        "--device", default="cpu", help="PyTorch's; cuda also decodes compiled, in bfloat16, up to 64 at once"
    )
    parser.add_argument("--memory", action="store_true", help="instead: the memory that each released size needs")
    args = parser.parse_args(argv)
    if args.memory:
        footprint.show()
        return 0
    memory.keep_freed()
    config, stories = (Config(n_vocab=8192, n_layer=1), 8) if args.quick else (Config(), 32)
    found = []
    with tempfile.TemporaryDirectory() as directory:
        for work in works(config, stories, Path(directory), args.device):
            found.append(measure(work, 1 if args.quick else work.rounds))
            if sys.stderr.isatty():
                print(work.name, file=sys.stderr)
    costs = scaling(init(config), 1 if args.quick else 3)
    told = {**machine(args.device), "config": str(config), "works": found, "scaling": costs}
    print(json.dumps(told) if args.json else table(told))
    return 0


def measure(work: Work, rounds: int) -> dict:
    """The seconds of each side in every round; a round before them warms up"""
    seconds: dict[str, list[float]] = {side: [] for side in work.sides}
    for _ in range(1 + rounds):
        for side, prepare in work.sides.items():
            run = prepare()
            time.sleep(SETTLE)
            started = time.perf_counter()
            run()
            seconds[side].append(time.perf_counter() - started)
    return {"name": work.name, "tokens": work.tokens, "seconds": {s: spread(times[1:]) for s, times in seconds.items()}}


def spread(times: list[float]) -> dict[str, float]:
    return {"median": statistics.median(times), "min": min(times), "max": max(times)}


def table(told: dict) -> str:
    """Seconds, or tokens a second; the floor's share is how near NumPy comes to it"""
    sides = ["numpy", "torch", "fused", "floor"]
    rows = [["", "NumPy", "PyTorch", "its AdamW fused", "floor", "NumPy is at", "PyTorch / NumPy"]]
    for work in told["works"]:
        seconds = work["seconds"]
        cells = [shown(seconds[side], work["tokens"]) if side in seconds else "" for side in sides]
        median = {side: s["median"] for side, s in seconds.items()}
        at = f"{median['floor'] / median['numpy']:.0%} of it" if "floor" in median else ""
        ratio = f"{median['torch'] / median['numpy']:.2f}" if "numpy" in median else ""
        rows.append([work["name"], *cells, at, ratio])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    where = "{cpu}, {cores} cores; Python {python}, NumPy {numpy} on {kernels}, PyTorch {torch} on {device}"
    return "\n".join([*lines, "", sentence(told["scaling"]), where.format(**told)])


def shown(seconds: dict[str, float], tokens: int | None) -> str:
    """median (lowest-highest)"""
    numbers = sorted(tokens / s if tokens else 1000 * s for s in seconds.values())
    low, median, high = (f"{number:.0f}" if number >= 10 else f"{number:.1f}" for number in numbers)
    return f"{median} ({low}-{high}) {'tokens/s' if tokens else 'ms'}"
