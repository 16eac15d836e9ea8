"""Run python -m parity report, mutants or bench."""

import argparse
import importlib
import sys

from numpy_gpt import GPTError, fast
from numpy_gpt.system.cli import run

COMMANDS = {
    "report": "print the error of numpy_gpt and of torch_gpt against float64 for each tensor of a training step",
    "mutants": "break numpy_gpt's maths in one place at a time, and print the test that fails",
    "bench": "measure the speed of both, and of the matmuls alone",
}


def main():
    parser = argparse.ArgumentParser(
        prog="python -m parity",
        description="Compare numpy_gpt with torch_gpt.",
        epilog="\n".join(f"{name:9}{summary}" for name, summary in COMMANDS.items())
        + "\n\nexample: python -m parity report --n-layer 4\nEach command has its own --help.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS)
    command = parser.parse_args(sys.argv[1:2]).command
    fast.tune()
    try:
        return importlib.import_module(f".{command}", __package__).main(sys.argv[2:])
    except ModuleNotFoundError as e:
        raise GPTError(
            f'{e.name} is not installed: run pip install "numpy-gpt[test]", or pip install -e ".[test]" in a clone.'
        ) from None


if __name__ == "__main__":
    sys.exit(run("parity", main, failed=2))  # 1 is the status of a difference
