"""python docs/pictures/make.py layernorm | block | losses | errors | speed: draw a picture of README.md as SVG."""

import argparse
import importlib
import sys
from pathlib import Path

from numpy_gpt.system.cli import run

FOLDER = Path(__file__).parent
PICTURES = {
    "layernorm": "the source of a forward and its backward",
    "block": "a transformer block with the tensors that it saves for the backward; each box is a link to its source",
    "losses": "the losses of both packages in the same training run: give --data FILE, or --logs with two log.jsonl",
    "errors": "the error of every tensor in a training step, of NumPy and of PyTorch",
    "speed": "the speed of several implementations, from docs/speed.json",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python docs/pictures/make.py",
        description="Draw a picture of README.md as SVG.",
        epilog="\n".join(f"{name:11}{content}" for name, content in PICTURES.items())
        + "\n\nexample: python docs/pictures/make.py losses --data tinyshakespeare.txt --eval-every 100",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("picture", choices=PICTURES)
    parser.add_argument("--to", type=Path, metavar="FILE", help="default: PICTURE.svg beside make.py")
    args, options = parser.parse_known_args()
    picture = importlib.import_module(args.picture).draw(options)
    (args.to or FOLDER / f"{args.picture}.svg").write_text(picture, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(run("make.py", main))
