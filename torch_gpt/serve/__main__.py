"""python -m torch_gpt.serve: serve a model over HTTP, on PyTorch."""

import argparse
import sys

import torch

from numpy_gpt.serve.__main__ import Backend, main
from numpy_gpt.system.cli import run

from ..generate.__main__ import DTYPES
from ..params import load
from .engine.functions import functions
from .inspection import FUNCTIONS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help=f"cpu, cuda, cuda:1 ... (default here: {device})")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="dtype of the weights and of the maths")


TORCH = Backend(
    command="torch_gpt.serve",
    name="torch",
    add_arguments=add_arguments,
    load=lambda args: load(args.model, args.device, getattr(torch, args.dtype)),
    tune=lambda m: None,
    functions=functions,
    inspection=FUNCTIONS,
)


if __name__ == "__main__":
    sys.exit(run("serve", lambda: main(TORCH)))
