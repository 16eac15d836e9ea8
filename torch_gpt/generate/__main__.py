"""python -m torch_gpt.generate: continue a prompt on PyTorch."""

import argparse
import sys

import torch

from numpy_gpt.checkpoint import source
from numpy_gpt.generate.__main__ import Backend, main
from numpy_gpt.params import Model
from numpy_gpt.system.cli import run
from numpy_gpt.text.template import Template

from .. import generate
from ..params import check_target, from_numpy

DTYPES = ("float32", "float64", "bfloat16")


def add_device_and_dtype(parser: argparse.ArgumentParser) -> None:
    """Add the options that load_on_device reads"""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help=f"cpu, cuda, cuda:1 ... (default here: {device})")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="dtype of the weights and of the maths")


def load_on_device(args: argparse.Namespace) -> Model:
    """Return the model of --model on the device and in the dtype of the options"""
    return load_with_template(args)[0]


def load_with_template(args: argparse.Namespace) -> tuple[Model, Template | None]:
    """Return this model, and its template of instructions or None"""
    dtype = getattr(torch, args.dtype)
    check_target(args.device, dtype)
    m, template = source.load_with_template(args.model)
    return from_numpy(m, args.device, dtype), template


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_device_and_dtype(parser)
    parser.add_argument("--compile", action="store_true", help="compile the step of a token; on CUDA into one graph")


TORCH = Backend(
    command="torch_gpt.generate",
    add_arguments=add_arguments,
    load=load_with_template,
    draws=lambda args, m, prompts, options, stop, with_logits: generate.draws(
        m, prompts, options, stop, with_logits, args.compile
    ),
)


if __name__ == "__main__":
    sys.exit(run("generate", lambda: main(TORCH)))
