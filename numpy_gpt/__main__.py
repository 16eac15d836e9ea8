"""python -m numpy_gpt, and the script numpy-gpt: list the commands, or run one of them."""

import runpy
import sys
from functools import partial

from . import __version__
from .system.cli import print_stderr, run

COMMANDS = {
    "generate": "continue a prompt",
    "train": "train a model on text",
    "finetune": "train a classifier, or a model that answers instructions",
    "corpus": "make a text to train on",
    "evaluate": "measure a model on text",
    "serve": "serve a model over HTTP, with a page to write with it",
    "download": "download a released model",
    "checkpoint": "inspect, verify or convert a checkpoint",
}


def main() -> int:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in COMMANDS:
        sys.argv = [f"numpy-gpt {name}", *sys.argv[2:]]
        runpy.run_module(f"numpy_gpt.{name}", run_name="__main__", alter_sys=False)  # ends with SystemExit
    return run("numpy-gpt", partial(list_commands, name))


def list_commands(name: str) -> int:
    """Print the commands, or the version for --version; return 2 if name isn't a command"""
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name == "--version":
        print(f"numpy-gpt {__version__}")
        return 0
    print_stderr(f"numpy-gpt: {name!r} isn't a command: choose one of {', '.join(COMMANDS)}.")
    return 2


def usage() -> str:
    lines = [f"  numpy-gpt {name:12}{summary}" for name, summary in COMMANDS.items()]
    last = "numpy-gpt --version prints the version."
    return "\n".join(["GPT-2 in NumPy. Each command has its own --help:", "", *lines, "", last])


if __name__ == "__main__":
    sys.exit(main())
