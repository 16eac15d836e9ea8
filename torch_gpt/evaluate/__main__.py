"""python -m torch_gpt.evaluate: measure a model on text, on PyTorch."""

import argparse
import sys

import torch

from numpy_gpt.evaluate.__main__ import Backend, main
from numpy_gpt.system.cli import run

from ..generate.__main__ import DTYPES
from ..params import load
from .scoring import scorer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help=f"cpu, cuda, cuda:1 ... (default here: {device})")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="dtype of the weights and of the maths")


TORCH = Backend(
    command="torch_gpt.evaluate",
    add_arguments=add_arguments,
    load=lambda args: load(args.model, args.device, getattr(torch, args.dtype)),
    scorer=scorer,
)


if __name__ == "__main__":
    sys.exit(run("evaluate", lambda: main(TORCH)))
