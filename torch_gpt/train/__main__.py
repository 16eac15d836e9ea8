"""python -m torch_gpt.train: train a model on text, in one process or in several that torchrun starts."""

import argparse
import os
import sys
import time
from functools import partial

import torch
import torch.distributed as dist

from numpy_gpt.adamw import Moments
from numpy_gpt.errors import GPTError
from numpy_gpt.params import Model
from numpy_gpt.system.cli import parse, run
from numpy_gpt.train import options
from numpy_gpt.train.__main__ import train
from numpy_gpt.train.backend import Backend
from numpy_gpt.train.options import TrainOptions

from ..fast import benchmark
from ..generate.__main__ import DTYPES
from ..params import check_target
from .step import SMALLER_MODEL, Execution, Trainer, explained_errors

GRACE = 30  # seconds in which the leader prints an error
EPILOG = (
    "torchrun --nproc-per-node 8 -m torch_gpt.train ... shares every batch among 8 processes: the same run, up to "
    "rounding."
)


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add PyTorch's options to those of numpy_gpt.train"""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add = parser.add_argument
    add("--device", default=device, help=f"cpu, cuda, cuda:1 ... (default here: {device})")
    text = "dtype of the matmuls; bfloat16 keeps the weights in float32 (default: the weights' dtype)"
    add("--dtype", choices=DTYPES, default=None, help=text)
    add("--compile", action="store_true", default=False, help="compile the step")
    text = "split the weights between the processes (FSDP2); prints no samples"
    add("--shard", action="store_true", default=False, help=text)
    text = "time steps on random tokens, by default of the 124M with T = 1024; takes no --data and no --out"
    add("--benchmark", action="store_true", default=False, help=text)
    parser.epilog = f"{parser.epilog}\n\n{EPILOG}"
    return parser


def make_trainer(args: argparse.Namespace, m: Model, moments: Moments, options: TrainOptions) -> Trainer:
    """Join the other processes, if there are any, and return this one's trainer"""
    device = local_device(args.device)
    if world() > 1:
        if device.startswith("cuda"):
            torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
    dtype = getattr(torch, args.dtype or str(m.params.wte.dtype))
    execution = Execution(device, dtype, args.compile, args.shard, rank(), world())
    with explained_errors(SMALLER_MODEL):
        return Trainer(m, moments, options, execution)


def local_device(device: str) -> str:
    """Return this process's device: each of several processes has a GPU of its own"""
    return f"cuda:{os.environ['LOCAL_RANK']}" if world() > 1 and device.startswith("cuda") else device


def check_numbers() -> None:
    """Raise GPTError if there are several processes and this one's number is missing"""
    missing = [name for name in ("RANK", "LOCAL_RANK") if name not in os.environ]
    if world() > 1 and missing:
        raise GPTError(
            f"the environment sets WORLD_SIZE to {world()} without {' and '.join(missing)}: start the processes with "
            "torchrun, or unset WORLD_SIZE."
        )


def check_gpus(device: str) -> None:
    """Raise GPTError if this machine has fewer GPUs than processes of this run"""
    processes, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    if device.startswith("cuda") and 0 < gpus < processes:
        raise GPTError(
            f"{processes} processes need a GPU each, and this machine has {gpus}: start torchrun with "
            f"--nproc-per-node {gpus}, or give --device cpu."
        )


def world() -> int:
    """Return the number of processes"""
    return int(os.environ.get("WORLD_SIZE", 1))  # set by torchrun, as are RANK and LOCAL_RANK


def rank() -> int:
    """Return this process's number; the leader's is 0"""
    return int(os.environ.get("RANK", 0))


def main() -> int:
    """Train on PyTorch, or run the benchmark, with the options of the command line; return the exit status"""
    parser = add_arguments(options.parser("torch_gpt.train"))
    args = parse(parser, sys.argv[1:])
    trainer = partial(make_trainer, args)
    try:
        check_numbers()
        check_gpus(args.device)
        check_target(local_device(args.device))
        status = (
            benchmark.run(args, parser, trainer)
            if args.benchmark
            else train(args, parser, Backend(trainer, rank() == 0, world()))
        )
    except GPTError:
        if rank():  # torchrun ends this process meanwhile if the leader has the same error
            time.sleep(GRACE)
        raise
    if dist.is_initialized():
        with explained_errors():
            dist.barrier()
        dist.destroy_process_group()
    return status


if __name__ == "__main__":
    status = run("train", main)
    if "WORLD_SIZE" in os.environ:
        os._exit(status)  # a thread of gloo may still run when Python ends, and would abort it
    sys.exit(status)
