"""python -m torch_gpt.generate: numpy_gpt's command, on PyTorch"""

import argparse
import sys

import torch

from numpy_gpt.generate.__main__ import main
from numpy_gpt.system.cli import run

from .. import generate
from ..params import load

DTYPES = ("float32", "float64", "bfloat16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help=f"cpu, cuda, cuda:1 ... (default here: {device})")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the weights and of the maths")
    parser.add_argument("--compile", action="store_true", help="compile a token's step; on CUDA as one graph")


def load_model(args: argparse.Namespace):
    return load(args.model, args.device, getattr(torch, args.dtype))


def draws(args: argparse.Namespace, m, prompts, settings, stop, with_logits):
    return generate.draws(m, prompts, settings, stop, with_logits, args.compile)


if __name__ == "__main__":
    sys.exit(run("generate", lambda: main("torch_gpt.generate", add_arguments, load_model, draws)))
