"""Measure the speed of GPT-2 in several implementations on this machine, and write the figures that speed.svg shows.

    python docs/measure_peers.py --picogpt DIR --llmc DIR --json docs/speed.json

The model has random weights, the sizes of the 124M, and float32. Each implementation runs in its own process, because
idle threads of one library slow down another. They take turns, round by round, and a first round warms up. DIR is a
clone of github.com/jaymody/picoGPT or of github.com/karpathy/llm.c, where `make train_gpt2 CC=gcc` has run. Needs
Linux. Nothing else should run meanwhile.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn.functional import cross_entropy

import numpy_gpt
import torch_gpt
from numpy_gpt import Config, fast
from parity import workloads
from parity.inputs import random_batch
from parity.workloads import PAUSE, B, T

PROMPT, BEFORE, NEW = 16, 2, 32  # tokens of the prompt, those drawn before the clock starts, those timed
LLMC_STEPS = 3  # timed in each round, after a first one that allocates memory
LLMC_DATA = "dev/data/tinyshakespeare/tiny_shakespeare_{}.bin"
QUICK = Config(n_vocab=512, n_ctx=128, n_embd=48, n_head=3, n_layer=2)

Side = Callable[[], float]  # returns the seconds of one round


def main() -> int:
    args = arguments().parse_args()
    config = QUICK if args.quick else Config()
    rounds = 1 if args.quick else args.rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_inputs(config, folder)
        decode = measure("decode", decoding(config, folder, args.picogpt), rounds)
        train = measure("training step", training(config, folder, args.llmc), rounds)
    figures = {
        "command": "python docs/measure_peers.py --picogpt DIR --llmc DIR --json docs/speed.json",
        "machine": workloads.machine("cpu") | {"transformers": transformers.__version__},
        "config": str(config),
        "decode": {"tokens": NEW, "prompt": PROMPT, "seconds": decode},
        "train": {"tokens": B * T, "batch": [B, T], "seconds": train},
    }
    args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python docs/measure_peers.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--picogpt", type=Path, required=True, metavar="DIR", help="a clone of picoGPT")
    parser.add_argument(
        "--llmc", type=Path, required=True, metavar="DIR", help="a clone of llm.c, with train_gpt2 built"
    )
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="where to write the figures")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds that are timed [5]")
    parser.add_argument("--quick", action="store_true", help="a tiny model and one round, to try the command")
    return parser


def measure(name: str, sides: dict[str, Callable[[], Side]], rounds: int) -> dict[str, dict[str, float]]:
    """Return the median, the minimum and the maximum seconds of each side; a side is prepared in its own process"""
    processes = multiprocessing.get_context("spawn")
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    with contextlib.ExitStack() as stack:
        workers = {}
        for side, prepare in sides.items():
            workers[side], there = processes.Pipe()
            process = processes.Process(target=work, args=(prepare, there), daemon=True)
            process.start()
            stack.callback(process.kill)
        for i in range(1 + rounds):
            for side, worker in workers.items():
                worker.send("go")
                seconds[side].append(worker.recv())
                print(f"{name}, round {i}: {side} {seconds[side][-1]:.3f} s", file=sys.stderr)
    timed = {side: times[1:] for side, times in seconds.items()}
    return {
        side: {"median": statistics.median(times), "min": min(times), "max": max(times)}
        for side, times in timed.items()
    }


def work(prepare: Callable[[], Side], connection) -> None:
    """Prepare a side, and send the seconds of a round for each message"""
    fast.tune()
    time_round = None
    while connection.recv():
        time_round = time_round or prepare()  # in the first round, so that no other side is timed meanwhile
        connection.send(time_round())


def clocked(work: Callable[[], Any]) -> float:
    """Return the seconds that work takes; before it, a pause lets the threads of the previous side fall asleep"""
    time.sleep(PAUSE)
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def prepared(prepare: Callable[[], Callable[[], Any]]) -> float:
    return clocked(prepare())


def decoding(config: Config, folder: Path, picogpt: Path) -> dict[str, Callable[[], Side]]:
    """Return the sides of greedy decoding: NEW tokens after a prompt of PROMPT and BEFORE further ones"""
    return {
        "NumPy": partial(package_decode, "numpy_gpt", config),
        "PyTorch eager": partial(package_decode, "torch_gpt", config),
        "PyTorch compiled": partial(package_decode, "torch_gpt", config, compiled=True),
        "Hugging Face": partial(transformers_decode, folder),
        "picoGPT": partial(picogpt_decode, picogpt, config),
    }


def package_decode(name: str, config: Config, **options) -> Side:
    package = import_module(name)
    m = package.init(config)
    return partial(prepared, partial(workloads.decode, package, m, 1, PROMPT, BEFORE, NEW, **options))


def transformers_decode(folder: Path) -> Side:
    """Return a function that times the last NEW tokens of generate, which has a cache of keys and values"""
    peer = transformers.GPT2LMHeadModel.from_pretrained(folder)
    peer.generation_config.eos_token_id = None
    ids = torch.arange(PROMPT)[None] % peer.config.vocab_size

    def decode() -> float:
        ends: list[float] = []
        time.sleep(PAUSE)
        peer.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=BEFORE + NEW,
            do_sample=False,
            pad_token_id=0,
            streamer=Streamer(ends),
        )
        _, *ends = ends  # generate puts the prompt first
        return ends[-1] - ends[BEFORE - 1]

    return decode


class Streamer:
    """Record the time of each token that generate draws"""

    def __init__(self, ends: list[float]):
        self.ends = ends

    def put(self, ids) -> None:
        self.ends.append(time.perf_counter())

    def end(self) -> None:
        pass


def picogpt_decode(picogpt: Path, config: Config) -> Side:
    """Return a function that times NEW tokens; picoGPT has no cache and recomputes all tokens for each of them"""
    sys.path.insert(0, str(picogpt))
    from gpt2 import generate

    p = numpy_gpt.init(config).params
    params = {"wte": p.wte, "wpe": p.wpe, "blocks": [nested(block) for block in p.h], "ln_f": nested(p.ln_f)}
    ids = [i % config.n_vocab for i in range(PROMPT + BEFORE)]

    def decode():
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            generate(list(ids), params, config.n_head, NEW)

    return partial(clocked, decode)


def nested(p) -> dict[str, Any]:
    return {name: nested(part) if isinstance(part, tuple) else part for name, part in p._asdict().items()}


def training(config: Config, folder: Path, llmc: Path) -> dict[str, Callable[[], Side]]:
    """Return the sides of a training step: a forward, a backward and AdamW, on a batch of B sequences of T tokens"""
    return {
        "NumPy": partial(numpy_step, config),
        "PyTorch eager": partial(eager_step, config),
        "PyTorch compiled": partial(compiled_step, config),
        "Hugging Face": partial(transformers_step, config, folder),
        "llm.c": partial(partial, llmc_step, llmc / "train_gpt2", folder),
    }


def numpy_step(config: Config) -> Side:
    m = numpy_gpt.init(config)
    return partial(clocked, workloads.train(workloads.losses(numpy_gpt, m, B, T), workloads.our_adamw(m)))


def eager_step(config: Config) -> Side:
    m = torch_gpt.init(config)
    return partial(clocked, workloads.train(workloads.losses(torch_gpt, m, B, T), workloads.their_adamw(m, fused=True)))


def compiled_step(config: Config) -> Side:
    return partial(clocked, workloads.compiled_step(config, B, T))


def transformers_step(config: Config, folder: Path) -> Side:
    peer = transformers.GPT2LMHeadModel.from_pretrained(folder)
    peer.eval()  # without dropout, as all others
    tokens, targets = map(torch.from_numpy, random_batch(config, B, T))
    optimiser = torch.optim.AdamW(peer.parameters(), lr=1e-4)
    return partial(
        clocked, partial(step, optimiser, lambda: cross_entropy(peer(tokens).logits.flatten(0, 1), targets.flatten()))
    )


def step(optimiser: torch.optim.Optimizer, loss_of_batch: Callable[[], torch.Tensor]) -> float:
    loss = loss_of_batch()
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()
    return loss.item()


def save_inputs(config: Config, folder: Path) -> None:
    """Write the weights for transformers and llm.c, and two texts of random tokens, which train_gpt2 reads"""
    m = numpy_gpt.init(config)
    numpy_gpt.save(m, folder, format="huggingface")
    numpy_gpt.save(m, folder / "gpt2_124M.bin")
    tokens = np.random.default_rng(0).integers(0, config.n_vocab, 64 * B * T + 1).astype("<u2")
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, len(tokens)  # its magic number and version
    for part in ("train", "val"):
        path = folder / LLMC_DATA.format(part)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(header.tobytes() + tokens.tobytes())


def llmc_step(train_gpt2: Path, folder: Path) -> float:
    """Return the median of the times that train_gpt2 prints; its batch is 4 x 64 as well"""
    command = ["stdbuf", "-oL", str(train_gpt2.resolve())]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        try:
            times = (re.match(r"step \d+: .*took ([\d.]+) ms", line) for line in process.stdout or ())
            _, *timed = islice((float(found[1]) / 1000 for found in times if found), 1 + LLMC_STEPS)
            return statistics.median(timed)
        finally:
            process.kill()


if __name__ == "__main__":
    sys.exit(main())
