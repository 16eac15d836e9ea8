"""python -m numpy_gpt.storyteller.make DATA OUT: train the storyteller again from its texts.

DATA contains the texts that texts.sha256 names. OUT receives three directories: text/ with the stories from the books,
run/ with the training run, and storyteller/ with the model.
"""

import argparse
import hashlib
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..checkpoint import save
from ..checkpoint.source import load
from ..errors import GPTError
from ..system.atomic import make_directory, replacing
from ..system.cli import run
from ..text.sources import opened
from ..text.tokenizer import EOT
from ..train.__main__ import main as train
from ..train.start import has_checkpoint
from . import stories

NAME = "numpy_gpt.storyteller.make"
SETTINGS = Path(__file__).parent / "settings.toml"
TEXTS = Path(__file__).parent / "texts.sha256"  # in the order in which they are read
WEIGHT = 6  # TinyStories is read six times for each time that the books are read


class Texts(NamedTuple):
    tinystories: list[Path]
    books: list[Path]
    validation: Path  # held out, like oz
    oz: Path


def main() -> int:
    parser = argparse.ArgumentParser(
        prog=f"python -m {NAME}",
        description="Train the storyteller again: some hours. If interrupted, run the command again to resume.",
        epilog=f"example:\n  python -m {NAME} texts made && python -m numpy_gpt.generate --model made/storyteller",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", metavar="DATA", type=Path, help="directory of the texts that texts.sha256 lists")
    parser.add_argument("out", metavar="OUT", type=Path, help="directory for the stories, the run and the model")
    args = parser.parse_args()
    text, folder, model = (args.out / name for name in ("text", "run", "storyteller"))
    if (model / "checkpoint").exists():
        print(f"{model} contains the model already")
        return 0
    texts, started = find_texts(args.data), has_checkpoint(folder)
    if not started:
        for directory in (text, model):
            make_directory(directory)
        write_stories(text / "books.txt", stories.from_files(texts.books))
        write_stories(text / "held_out.txt", stories.from_file(texts.oz))
    data = [*WEIGHT * texts.tinystories, text / "books.txt"]
    options = ["--config", SETTINGS, "--data", *data, "--val-data", texts.validation, "--out", folder]
    status = train([*map(str, options), *(["--resume"] if started else [])], NAME)
    if status == 0:
        m = load(folder)
        save(m._replace(config=replace(m.config, dropout=0.0)), model, format="openai", dtype="float16")
        print(f"{model} contains the model")
    return status


def find_texts(data: Path) -> Texts:
    """Return the paths of all texts; a missing or different one raises GPTError"""
    paths = {}
    for line in TEXTS.read_text().splitlines():
        digest, name = line.split()
        path = paths[name] = data / name
        if not path.is_file():
            raise GPTError(f"{path} is missing: DATA needs all the files that texts.sha256 lists.")
        with opened(path) as f:
            if hashlib.file_digest(f, "sha256").hexdigest() != digest:
                raise GPTError(f"{path} has another SHA-256 than in texts.sha256: get the edition that was used.")
    tinystories = [paths.pop(f"tinystories/{name}.txt") for name in ("train_cased", "train_truecased")]
    validation, oz = paths.pop("tinystories/valid.txt"), paths.pop("stories/baum_wizard_of_oz.txt")
    return Texts(tinystories, list(paths.values()), validation, oz)


def write_stories(path: Path, documents: Iterable[str]) -> None:
    """Write the stories to a file, separated by <|endoftext|>, and print how many there are"""
    documents = list(documents)
    with replacing(path) as f:
        f.write(f"\n{EOT}\n".join(documents).encode())
    print(f"{path}: {len(documents):,} stories, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    sys.exit(run("make", main))
