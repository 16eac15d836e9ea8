"""python -m numpy_gpt.storyteller.make DATA OUT: the storyteller again, from the texts to the files of this directory.

DATA has the texts that texts.sha256 names. OUT gets text/, what was read; run/, which goes on if it was ended; and
storyteller/, the model.
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
WEIGHT = 6  # so often is TinyStories read for each time that the books are


class Texts(NamedTuple):
    tiny: list[Path]
    books: list[Path]
    valid: Path  # this and oz are held out
    oz: Path


def main() -> int:
    parser = argparse.ArgumentParser(
        prog=f"python -m {NAME}",
        description="Make the storyteller again, in some hours; a run that was ended goes on.",
        epilog=f"example:\n  python -m {NAME} texts made && python -m numpy_gpt.generate --model made/storyteller",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", metavar="DATA", type=Path, help="has the texts that MODEL.md names")
    parser.add_argument("out", metavar="OUT", type=Path, help="where texts, run and model are kept")
    args = parser.parse_args()
    text, folder, model = (args.out / name for name in ("text", "run", "storyteller"))
    if (model / "checkpoint").exists():
        print(f"{model}: the model, which is made already")
        return 0
    texts, begun = find(args.data), has_checkpoint(folder)
    if not begun:
        for directory in (text, model):
            make_directory(directory)
        write(text / "books.txt", stories.documents(texts.books))
        write(text / "held_out.txt", stories.of_file(texts.oz))
    words = ["--config", SETTINGS, "--data", *WEIGHT * texts.tiny, text / "books.txt", "--val-data", texts.valid]
    status = train([*map(str, words), "--out", str(folder), *(["--resume"] if begun else [])], NAME)
    if status == 0:
        m = load(folder)
        made = m._replace(config=replace(m.config, dropout=0.0))  # that was for the training
        save(made, model, dtype="float16")
        print(f"{model}: the model")
    return status


def find(data: Path) -> Texts:
    """Each as it was when the model that ships was trained"""
    found: dict[str, Path] = {}
    for line in TEXTS.read_text().splitlines():
        digest, name = line.split()
        path = found[name] = data / name
        if not path.is_file():
            raise GPTError(f"{path} isn't there: DATA needs the texts that MODEL.md names.")
        with opened(path) as f:
            if hashlib.file_digest(f, "sha256").hexdigest() != digest:
                raise GPTError(f"{path} isn't what the storyteller was made of: get the text that MODEL.md names.")
    tiny = [found.pop(f"tinystories/{name}.txt") for name in ("train_cased", "train_truecased")]
    valid, oz = found.pop("tinystories/valid.txt"), found.pop("stories/baum_wizard_of_oz.txt")
    return Texts(tiny, list(found.values()), valid, oz)


def write(path: Path, documents: Iterable[str]) -> None:
    documents = list(documents)
    with replacing(path) as f:
        f.write(f"\n{EOT}\n".join(documents).encode())
    print(f"{path}: {len(documents):,} stories, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    sys.exit(run("make", main))
