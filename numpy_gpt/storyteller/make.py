"""python -m numpy_gpt.storyteller.make DATA OUT: the storyteller again, from the texts to the files of this directory.

DATA has tinystories/ and stories/. OUT gets text/, what was read; run/, which goes on if it was ended; storyteller/.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from .. import checkpoint, train
from ..command import run
from ..errors import GPTError
from ..files import make_directory, replacing
from ..tokenizer import EOT
from . import stories

NAME = "numpy_gpt.storyteller.make"
SETTINGS = Path(__file__).parent / "settings.toml"
TINY, HELD_OUT = ("train_cased.txt", "train_truecased.txt"), "valid.txt"
WEIGHT = 6  # so often is TinyStories read for each time that the books are


def main() -> int:
    parser = argparse.ArgumentParser(
        prog=f"python -m {NAME}", description="Make the storyteller again, in some hours; a run that was ended goes on."
    )
    parser.add_argument("data", metavar="DATA", type=Path, help="has tinystories/ and stories/")
    parser.add_argument("out", metavar="OUT", type=Path, help="where texts, run and model are kept")
    args = parser.parse_args()
    tiny, books, text, folder = args.data / "tinystories", args.data / "stories", args.out / "text", args.out / "run"
    for path in [*(tiny / name for name in (*TINY, HELD_OUT)), *(books / name for name in stories.NEEDED)]:
        if not path.is_file():
            raise GPTError(f"{path} isn't there: DATA needs tinystories/ and stories/, as MODEL.md names them.")
    begun = (folder / "checkpoint").exists()
    if not begun:
        make_directory(text)
        write(text / "books.txt", stories.documents(books))
        write(text / "held_out.txt", stories.of_file(books / stories.HELD_OUT))
    read = [*WEIGHT * [tiny / name for name in TINY], text / "books.txt"]
    words = ["--config", SETTINGS, "--data", *read, "--val-data", tiny / HELD_OUT, "--out", folder]
    status = train.main(NAME, words=[*map(str, words), *(["--resume"] if begun else [])])
    if status == 0:
        m = checkpoint.load(folder)
        made = m._replace(config=replace(m.config, dropout=0.0))  # that was for the training
        checkpoint.save(made, args.out / "storyteller", dtype="float16")
    return status


def write(path: Path, documents: Iterable[str]) -> None:
    documents = list(documents)  # what can't be read is said before anything is written
    with replacing(path) as f:
        f.write(f"\n{EOT}\n".join(documents).encode())
    print(f"{path}: {len(documents):,} stories, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    sys.exit(run("make", main))
