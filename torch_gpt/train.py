"""python -m torch_gpt.train: numpy_gpt's command, on PyTorch, on as many GPUs as torchrun gives it"""

import argparse
import os
import sys

import torch
import torch.distributed as dist

from numpy_gpt import train
from numpy_gpt.command import run

from .benchmark import benchmark
from .generate import DTYPES
from .trainer import How, Trainer, in_words

NAME = "torch_gpt.train"
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
    what = "how fast is a step? by default of the 124M, T = 1024; needs no --data and no --out"
    add("--benchmark", action="store_true", default=False, help=what)
    parser.epilog = f"{parser.epilog}\n\n{EPILOG}"
    return parser


def make(args: argparse.Namespace, m, moments, settings) -> Trainer:
    world, device = processes(), args.device
    if world > 1:
        if torch.device(device).type == "cuda":
            device = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
    dtype = getattr(torch, args.dtype or str(m.params.wte.dtype))
    how = How(device, dtype, args.compile, args.shard, rank(), world)
    return Trainer(m, moments, settings, how)


def processes() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))  # torchrun sets it, and RANK and LOCAL_RANK


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def benchmarked(args: argparse.Namespace) -> int | None:
    return benchmark(args, make) if args.benchmark else None


def main() -> int:
    status = train.main(NAME, add_arguments, make, rank() == 0, processes(), instead=benchmarked)
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
