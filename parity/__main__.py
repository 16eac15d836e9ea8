"""python -m parity report | mutants"""

import argparse
import importlib
import os
import sys

from numpy_gpt import GPTError

COMMANDS = {
    "report": "the error of numpy_gpt and of torch_gpt against float64, tensor by tensor",
    "mutants": "change numpy_gpt's maths in one place at a time, and name the test that sees it",
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
        status = importlib.import_module(f".{command}", __package__).main(sys.argv[2:])
        sys.stdout.flush()
        return status
    except ModuleNotFoundError as e:
        return fail(
            f'{e.name} is not installed: run pip install "numpy-gpt[test]", or pip install -e ".[test]" in a clone.'
        )
    except GPTError as e:
        return fail(e)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at exit
        return 0


def fail(sentence):
    print(f"parity: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
