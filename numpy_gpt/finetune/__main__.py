"""python -m numpy_gpt.finetune classify | instruct | predict | merge: fine-tune a model, and use the result."""

import argparse
import sys

from ..system.cli import run
from . import classification, classify, instruct, instruction, merge, predict
from .backend import Backend
from .step import Trainer

OBJECTIVES = {"classify": classification.OBJECTIVE, "instruct": instruction.OBJECTIVE}
COMMANDS = {
    "classify": (classify.main, "train a classifier"),
    "instruct": (instruct.main, "train a model to answer instructions"),
    "merge": (lambda argv, backend: merge.main(argv, backend.command), "merge adapters into a model"),
    "predict": (predict.main, "classify texts"),
}
NUMPY = Backend(
    command="numpy_gpt.finetune",
    add_arguments=lambda parser: None,
    make_trainer=lambda args, task, *rest: Trainer(OBJECTIVES[task], *rest),
)


def main(backend: Backend = NUMPY) -> int:
    """Run the command that the first argument names; return the exit status"""
    summaries = "\n".join(f"  {name:10}{summary}" for name, (_, summary) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog=f"python -m {backend.command}",
        description="Fine-tune a model, and use the result. Each command has its own --help.",
        epilog=f"commands:\n{summaries}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, help="see below")
    args = parser.parse_args(sys.argv[1:2])
    return COMMANDS[args.command][0](sys.argv[2:], backend)


if __name__ == "__main__":
    sys.exit(run("finetune", main))
