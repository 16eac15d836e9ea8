"""python -m parity report | mutants | bench"""

import argparse
import importlib
import sys

from numpy_gpt import GPTError
from numpy_gpt.system.cli import run

COMMANDS = {
    "report": "the error of numpy_gpt and of torch_gpt against float64, tensor by tensor",
    "mutants": "change numpy_gpt's maths in one place at a time, and name the test that sees it",
    "bench": "the speed of both, and of the matrix products alone",
}


def main():
    parser = argparse.ArgumentParser(
        prog="python -m parity",
        description="The proof that numpy_gpt and torch_gpt are the same.",
        epilog="\n".join(f"{name:9}{what}" for name, what in COMMANDS.items())
        + "\n\nexample: python -m parity report --n-layer 4\nEach command has a --help of its own.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS)
    command = parser.parse_args(sys.argv[1:2]).command
    try:
        return importlib.import_module(f".{command}", __package__).main(sys.argv[2:])
    except ModuleNotFoundError as e:
        raise GPTError(
            f'{e.name} is not installed: run pip install "numpy-gpt[test]", or pip install -e ".[test]" in a clone.'
        ) from None


if __name__ == "__main__":
    sys.exit(run("parity", main, failed=2))  # 1 says that something differs
