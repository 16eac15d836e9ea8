"""python -m parity bench: measure the speed of NumPy and PyTorch, and a lower bound of the time.

Each workload runs in turn in numpy_gpt, in torch_gpt (eager, with torch.optim.AdamW), and as a lower bound: the matmuls
with the weights alone, or for AdamW copies of as many bytes. The model has random weights in float32 and the sizes of
the 124M. Decoding is greedy. Run nothing else on the machine meanwhile.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter, sleep

from numpy_gpt import Config, fast, init

from . import footprint
from .scaling import scaling, sentence
from .workloads import PAUSE, Workload, machine, workloads

SIDES = {"numpy": "NumPy", "torch": "PyTorch", "fused": "PyTorch, fused AdamW", "bound": "lower bound"}


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m parity bench",
        description=__doc__,
        epilog="example: python -m parity bench --quick",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print medians, minima and maxima in seconds as JSON")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="measure one round with 1 layer of 12, a sixth of the vocabulary and a quarter of the stories",
    )
    parser.add_argument(
        "--device",
        default="cpu",
        help="PyTorch's device [cpu]; cuda adds decoding in bfloat16, compiled, at batches 1 to 64",
    )
    parser.add_argument(
        "--memory", action="store_true", help="print the memory that each released size needs, and no times"
    )
    args = parser.parse_args(argv)
    if args.memory:
        footprint.show()
        return 0
    fast.tune()
    config, stories = (Config(n_vocab=8192, n_layer=1), 8) if args.quick else (Config(), 32)
    measured = []
    with tempfile.TemporaryDirectory() as directory:
        for workload in workloads(config, stories, Path(directory), args.device):
            measured.append(measure(workload, 1 if args.quick else workload.rounds))
            if sys.stderr.isatty():
                print(workload.name, file=sys.stderr)
    costs = scaling(init(config), 1 if args.quick else 3)
    results = {**machine(args.device), "config": str(config), "workloads": measured, "scaling": costs}
    print(json.dumps(results) if args.json else table(results))
    return 0


def measure(workload: Workload, rounds: int) -> dict:
    """Return the times of each side; the sides take turns, and the first round is a warm-up"""
    seconds: dict[str, list[float]] = {side: [] for side in workload.sides}
    for _ in range(1 + rounds):
        for side, prepare in workload.sides.items():
            run = prepare()
            sleep(PAUSE)
            started = perf_counter()
            run()
            seconds[side].append(perf_counter() - started)
    times = {side: spread(found[1:]) for side, found in seconds.items()}
    return {"name": workload.name, "tokens": workload.tokens, "seconds": times}


def spread(times: list[float]) -> dict[str, float]:
    return {"median": statistics.median(times), "min": min(times), "max": max(times)}


def table(results: dict) -> str:
    """Return milliseconds or tokens per second of each side, and two ratios of times"""
    rows = [["", *SIDES.values(), "bound / NumPy", "PyTorch / NumPy"]]
    for workload in results["workloads"]:
        seconds = workload["seconds"]
        cells = [shown(seconds[side], workload["tokens"]) if side in seconds else "" for side in SIDES]
        median = {side: s["median"] for side, s in seconds.items()}
        bound = f"{median['bound'] / median['numpy']:.0%}" if "bound" in median else ""
        ratio = f"{median['torch'] / median['numpy']:.2f}" if "numpy" in median else ""
        rows.append([workload["name"], *cells, bound, ratio])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    where = "{cpu}, {cores} cores; Python {python}, NumPy {numpy} on {kernels}, PyTorch {torch} on {device}"
    return "\n".join([*lines, "", sentence(results["scaling"]), where.format(**results)])


def shown(seconds: dict[str, float], tokens: int | None) -> str:
    """Return median (lowest-highest) and the unit"""
    numbers = sorted(tokens / s if tokens else 1000 * s for s in seconds.values())
    low, median, high = (f"{number:.0f}" if number >= 10 else f"{number:.1f}" for number in numbers)
    return f"{median} ({low}-{high}) {'tokens/s' if tokens else 'ms'}"
