"""python -m torch_gpt.train: numpy_gpt's command, on PyTorch, on as many GPUs as torchrun gives it"""

import argparse
import os
import sys
import time

import torch
import torch.distributed as dist

from numpy_gpt.errors import GPTError
from numpy_gpt.system.cli import run
from numpy_gpt.train.__main__ import main as train

from ..fast import benchmark
from ..generate.__main__ import DTYPES
from ..params import check_target
from .step import How, Trainer, in_words

NAME = "torch_gpt.train"
PATIENCE = 30  # seconds
EPILOG = "torchrun --nproc-per-node 8 -m torch_gpt.train ... shares every batch among 8: the same run, to rounding."


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add = parser.add_argument
    add("--device", default=device, help=f"cpu, cuda, cuda:1 ... (default here: {device})")
    what = "bfloat16: of the products, with weights in float32 (default: that of the weights)"
    add("--dtype", choices=DTYPES, default=None, help=what)
    add("--compile", action="store_true", default=False, help="compile the step")
    add(
        "--shard",
        action="store_true",
        default=False,
        help="every process keeps a share of the weights (FSDP2); no samples",
    )
    what = "time steps on random tokens, by default of the 124M with T = 1024; takes no --data and no --out"
    add("--benchmark", action="store_true", default=False, help=what)
    parser.epilog = f"{parser.epilog}\n\n{EPILOG}"
    return parser


def make(args: argparse.Namespace, m, moments, settings) -> Trainer:
    device = own_device(args.device)
    if world() > 1:
        if device.startswith("cuda"):
            torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
    dtype = getattr(torch, args.dtype or str(m.params.wte.dtype))
    how = How(device, dtype, args.compile, args.shard, rank(), world())
    return Trainer(m, moments, settings, how)


def own_device(asked: str) -> str:
    """Return this process's device: of several processes each has a GPU of its own"""
    return f"cuda:{os.environ['LOCAL_RANK']}" if world() > 1 and asked.startswith("cuda") else asked


def world() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))  # set by torchrun, as are RANK and LOCAL_RANK


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def benchmarked(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int | None:
    """Check the device, and run the benchmark if the options ask for it"""
    check_target(own_device(args.device))
    if not args.benchmark:
        return None
    try:
        settings, config = benchmark.benchmark_options(args)
    except GPTError as e:
        parser.error(str(e))
    return benchmark.benchmark(args, settings, config, make)


def main() -> int:
    try:
        status = train(NAME, add_arguments, make, rank() == 0, world(), instead=benchmarked)
    except GPTError:
        if rank():  # if the leader has the same error, it prints it, and torchrun ends this process meanwhile
            time.sleep(PATIENCE)
        raise
    if dist.is_initialized():
        with in_words():
            dist.barrier()
        dist.destroy_process_group()
    return status


if __name__ == "__main__":
    status = run("train", main)
    if "WORLD_SIZE" in os.environ:
        os._exit(status)  # a thread of gloo's may be there still when Python ends, and aborts it
    sys.exit(status)
