"""python -m torch_gpt.finetune: fine-tune a model on PyTorch, and use the result."""

import argparse
import os
import sys

import torch

from numpy_gpt.errors import GPTError
from numpy_gpt.finetune import __main__ as reference
from numpy_gpt.finetune.backend import Backend
from numpy_gpt.system.cli import run

from ..params import check_target, explained_placement
from . import classification, instruction
from .step import OTHER_DEVICE, SMALLER_MODEL, Trainer

OBJECTIVES = {"classify": classification.OBJECTIVE, "instruct": instruction.OBJECTIVE}
DTYPES = ("float32", "float64")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add PyTorch's options"""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help=f"cpu, cuda, cuda:1 ... (default here: {device})")
    text = "dtype of the weights and of the maths (default: the weights')"
    parser.add_argument("--dtype", choices=DTYPES, default=None, help=text)


def make_trainer(args, task, model, config, moments, options):
    """Return a trainer on the device and in the dtype of the options"""
    dtype = getattr(torch, args.dtype or str(model.params.wte.dtype))
    device = check_target(args.device)
    with explained_placement(device, SMALLER_MODEL if options else OTHER_DEVICE):
        return Trainer(OBJECTIVES[task], model, config, moments, options, device, dtype)


TORCH = Backend(command="torch_gpt.finetune", add_arguments=add_arguments, make_trainer=make_trainer)


def main() -> int:
    """Run the command that the first argument names on PyTorch; return the exit status"""
    processes = int(os.environ.get("WORLD_SIZE", 1))  # set by torchrun
    if processes > 1:
        raise GPTError(f"{processes} processes can't share a run of finetune: start one, without torchrun.")
    return reference.main(TORCH)


if __name__ == "__main__":
    sys.exit(run("finetune", main))
