"""python -m numpy_gpt.download 124M: download a released model."""

import argparse
import sys
from pathlib import Path

from ..checkpoint.hub import NAMES
from ..system.cli import print_stderr, run
from .fetch import download


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m numpy_gpt.download",
        description="Download a released checkpoint, or its missing and corrupt files, and print its directory.",
        epilog="example:\n  python -m numpy_gpt.download 124M",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", choices=NAMES, help="the size or the alias of the model", metavar="{" + ",".join(NAMES) + "}"
    )
    parser.add_argument(
        "--dir", type=Path, metavar="D", help="write to D/124M (default: $GPT2_MODELS, or else the user's cache)"
    )
    args = parser.parse_args()
    try:
        print(download(args.model, args.dir))
    except KeyboardInterrupt:
        print_stderr("download: interrupted; the received bytes are kept: run the command again to resume.")
        raise
    return 0


if __name__ == "__main__":
    sys.exit(run("download", main))
