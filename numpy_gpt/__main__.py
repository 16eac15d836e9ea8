"""python -m numpy_gpt, and the script numpy-gpt: list the commands, or run one of them"""

import runpy
import sys

COMMANDS = {
    "generate": "continue a prompt",
    "train": "train a model on text",
    "evaluate": "measure a model on text",
    "download": "fetch a released model",
    "checkpoint": "look into a checkpoint, verify it, or convert it",
}


def main() -> int:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in COMMANDS:
        sys.argv = [f"numpy-gpt {name}", *sys.argv[2:]]
        runpy.run_module(f"numpy_gpt.{name}", run_name="__main__", alter_sys=False)  # ends with SystemExit
    if name in ("-h", "--help"):
        print(usage())
        return 0
    print(f"numpy-gpt: there is no command {name!r}: choose one of {', '.join(COMMANDS)}.", file=sys.stderr)
    return 2


def usage() -> str:
    lines = [f"  numpy-gpt {name:12}{what}" for name, what in COMMANDS.items()]
    return "\n".join(["GPT-2 in NumPy. The commands, each with --help:", "", *lines])


if __name__ == "__main__":
    sys.exit(main())
