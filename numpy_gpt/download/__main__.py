"""python -m numpy_gpt.download 124M: fetch a released model"""

import argparse
import sys
from pathlib import Path

from ..checkpoint.hub import NAMES
from ..system.cli import run
from .fetch import download, remark


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m numpy_gpt.download",
        description="Fetch a released checkpoint, or what is missing of it, and print the directory that it is in.",
        epilog="example:\n  python -m numpy_gpt.download 124M",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", choices=NAMES, help="by its size or its alias", metavar="{" + ",".join(NAMES) + "}")
    parser.add_argument(
        "--dir", type=Path, metavar="D", help="put it in D/124M; default: $GPT2_MODELS, or else the user's cache"
    )
    args = parser.parse_args()
    try:
        print(download(args.model, args.dir))
    except KeyboardInterrupt:
        remark("interrupted; what has come is kept, and the same command goes on from there.")
        raise
    return 0


if __name__ == "__main__":
    sys.exit(run("download", main))
