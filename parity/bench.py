"""python -m parity bench: measure the speed of NumPy and PyTorch, and a lower bound of the time.

Each workload runs in turn in numpy_gpt, in torch_gpt (eager, with torch.optim.AdamW), and as a lower bound: the matmuls
with the weights alone, or for AdamW copies of as many bytes. The model has random weights in float32 and the sizes of
the 124M. Decoding is greedy. On a GPU, torch_gpt in bfloat16 runs next to Hugging Face's GPT-2. --serve measures the
server instead. Run nothing else on the machine meanwhile.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from time import perf_counter, sleep

from numpy_gpt import Config, init
from torch_gpt.fast.benchmark import PEAK, flops_per_token
from torch_gpt.params import check_target

from . import footprint, gpu_workloads, server_load
from .gpu_workloads import Sizes, peer_version, sizes_for
from .scaling import scaling, sentence
from .table import aligned, median_and_range, spread
from .workloads import PAUSE, Workload, machine, workloads

SIDES = {
    "numpy": "NumPy",
    "torch": "PyTorch",
    "fused": "PyTorch, fused AdamW",
    "compiled": "the same, compiled",
    "bound": "lower bound",
}
PEERS = {"peer", "static"}  # other projects' code, which may fail with the installed versions
NO_PEER = "Hugging Face's columns are empty: run pip install transformers to measure it."


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
        metavar="D",
        help="PyTorch's device [cpu]; on cuda, torch_gpt runs in bfloat16 next to transformers, and NumPy doesn't run",
    )
    parser.add_argument(
        "--serve",
        action="store_true",
        help="measure numpy_gpt.serve with the storyteller; exit with status 1 if a result under load is another one "
        "than alone; takes 2 minutes, and --quick some seconds",
    )
    parser.add_argument(
        "--memory", action="store_true", help="print the memory that each released size needs, and no times"
    )
    args = parser.parse_args(argv)
    check_combination(parser, args)
    if args.memory:
        footprint.show()
        return 0
    if args.serve:
        return server_load.run(args.quick, args.json)
    return bench(args.device or "cpu", args.quick, args.json)


def check_combination(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exit with status 2 if an option has no effect on what another one selects"""
    without = {"memory": ("serve", "quick", "json", "device"), "serve": ("device",)}
    for name, others in without.items():
        for other in others:
            if getattr(args, name) and getattr(args, other):
                parser.error(f"--{other} has no effect with --{name}: remove one of them.")


def bench(device: str, quick: bool, as_json: bool) -> int:
    """Measure the workloads of a CPU or a GPU, and print the results"""
    on_gpu = check_target(device).type == "cuda"
    measured: list[dict] = []
    results: dict = {"workloads": measured}
    try:
        (bench_gpu if on_gpu else bench_cpu)(device, quick, results)
    finally:  # after an error or Ctrl-C, print the workloads that were measured
        if measured:
            print(json.dumps(results) if as_json else gpu_table(results) if on_gpu else table(results))
    return 0


def bench_cpu(device: str, quick: bool, results: dict) -> None:
    """Measure NumPy and PyTorch on this machine's CPU, and add what was measured to the results"""
    config, stories = (Config(n_vocab=8192, n_layer=1), 8) if quick else (Config(), 32)
    results |= {**machine(device), "config": str(config)}
    with tempfile.TemporaryDirectory() as directory:
        measure_all(workloads(config, stories, Path(directory), device), quick, results["workloads"])
    results["scaling"] = scaling(init(config), 1 if quick else 3)


def bench_gpu(device: str, quick: bool, results: dict) -> None:
    """Measure the twin and its peer on a GPU, and add what was measured to the results"""
    config = Config(n_vocab=8192, n_layer=1) if quick else Config()
    sizes = Sizes(new=16, window=128, batch=8, steps=2) if quick else sizes_for(device)
    of_token = flops_per_token(config, sizes.window)
    results |= {**machine(device), "transformers": peer_version(), "config": str(config), "flops_per_token": of_token}
    measure_all(gpu_workloads.gpu_workloads(config, sizes, device), quick, results["workloads"])


def measure_all(workloads: Iterable[Workload], quick: bool, measured: list[dict]) -> None:
    """Measure each workload, and append its times to `measured`"""
    for workload in workloads:
        measured.append(measure(workload, 1 if quick else workload.rounds))
        if sys.stderr.isatty():
            print(workload.name, file=sys.stderr)


def measure(workload: Workload, rounds: int) -> dict:
    """Return the times of each side; the sides take turns, and the first round is a warm-up

    A peer that raises an error isn't run again, and its error is returned as well.
    """
    seconds: dict[str, list[float]] = {side: [] for side in workload.sides}
    failed: dict[str, str] = {}
    for _ in range(1 + rounds):
        for side in [side for side in seconds if side not in failed]:
            try:
                seconds[side].append(time_side(workload.sides[side]))
            except Exception as e:
                if side not in PEERS:
                    raise
                failed[side] = f"{type(e).__name__}: {e}"
    times = {side: spread(found[1:]) for side, found in seconds.items() if side not in failed}
    memory = {"memory": workload.memory} if workload.memory else {}
    errors = {"failed": failed} if failed else {}
    return {"name": workload.name, "tokens": workload.tokens, "seconds": times, **memory, **errors}


def time_side(prepare: Callable[[], Callable[[], object]]) -> float:
    """Return the seconds that the prepared function takes"""
    run = prepare()
    sleep(PAUSE)
    started = perf_counter()
    run()
    return perf_counter() - started


def table(results: dict) -> str:
    """Return milliseconds or tokens per second of each side, and two ratios of times"""
    rows = [["", *SIDES.values(), "bound / NumPy", "PyTorch / NumPy"]]
    for workload in results["workloads"]:
        seconds = workload["seconds"]
        median = {side: s["median"] for side, s in seconds.items()}
        bound = f"{median['bound'] / median['numpy']:.0%}" if "bound" in median else ""
        rows.append([*cells(workload, SIDES), bound, f"{median['torch'] / median['numpy']:.2f}"])
    where = "{cpu}, {cores} cores; Python {python}, NumPy {numpy} on {kernels}, PyTorch {torch} on {device}"
    lines = [sentence(results["scaling"])] if "scaling" in results else []
    return "\n".join([*aligned(rows), "", *lines, where.format(**results)])


def gpu_table(results: dict) -> str:
    """Return tokens per second or milliseconds of each side, and the part of the GPU that training uses"""
    sides = gpu_workloads.SIDES
    rows = [["", *sides.values()], *(cells(workload, sides) for workload in results["workloads"])]
    used = [
        f"{sides[side]} {used_by(side, workload, results)}"
        for workload in results["workloads"]
        if workload["name"].startswith("training")
        for side in workload["seconds"]
        if side != "bound"
    ]
    peer = "Hugging Face: transformers {transformers}." if results["transformers"] else NO_PEER
    where = "{device}; Python {python}, PyTorch {torch}; random weights in bfloat16"
    training = [f"Training: {'; '.join(used)}."] if used else []
    lines = [*training, peer.format(**results), *failures(results), where.format(**results)]
    return "\n".join([*aligned(rows), "", *lines])


def failures(results: dict) -> Iterator[str]:
    """Yield a line for each peer that raised an error, with the first line of the error"""
    for workload in results["workloads"]:
        for side, error in workload.get("failed", {}).items():
            yield f"{gpu_workloads.SIDES[side]} failed, {workload['name']}: {error.splitlines()[0]:.200}"


def used_by(side: str, training: dict, results: dict) -> str:
    """Return the arithmetic and the memory of the GPU that a side's training steps use"""
    flops = training["tokens"] / training["seconds"][side]["median"] * results["flops_per_token"]
    peaks = [peak for chip, peak in PEAK.items() if chip in results["device"]]
    figures = [f"{flops / 1e12:.0f} TFLOP/s", *(f"{flops / peak:.1%} MFU" for peak in peaks)]
    memory = training.get("memory", {})
    return ", ".join([*figures, *([f"{memory[side] / 1e9:.1f} GB"] if side in memory else [])])


def cells(workload: dict, sides: dict[str, str]) -> list[str]:
    """Return the name of a workload, and what was measured of each side"""
    found = {side: shown(times, workload["tokens"]) for side, times in workload["seconds"].items()}
    found |= dict.fromkeys(workload.get("failed", {}), "failed")
    return [workload["name"], *(found.get(side, "") for side in sides)]


def shown(seconds: dict[str, float], tokens: int | None) -> str:
    """Return median (lowest-highest) and the unit"""
    figures = (tokens / s if tokens else 1000 * s for s in seconds.values())
    return f"{median_and_range(figures)} {'tokens/s' if tokens else 'ms'}"
