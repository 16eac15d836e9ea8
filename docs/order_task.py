"""Make a classification task that needs language modelling: sentences, some with words in the wrong order.

    python docs/order_task.py --data tinystories/valid.txt --out order.tsv
    python -m numpy_gpt.finetune classify --data order.tsv --out order

Each row is a passage of whole sentences, 20 to 40 words of one story. Half of the passages, drawn by the seed, have the
label "shuffled". In these, three lower-case words have changed places with the words four places after them. Each
passage occurs once, so its words without their order say nothing about its label. For an honest result, the model must
not have been trained on the stories. The storyteller wasn't trained on valid.txt.
"""

import argparse
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from numpy_gpt.errors import GPTError
from numpy_gpt.system.atomic import replacing
from numpy_gpt.system.cli import run
from numpy_gpt.text.sources import spooled
from numpy_gpt.text.token_cache import file_pieces
from numpy_gpt.text.tokenizer import EOT

SHORTEST, LONGEST = 20, 40  # words of a passage
PAIRS, DISTANCE = 3, 4  # of words that change places, and places from one to the other
BETWEEN_SENTENCES = re.compile(r"(?<=[.!?])\s+|(?<=[.!?][\"'])\s+")


def rows(text: str, count: int, seed: int) -> list[tuple[str, str]]:
    """Return labels and passages in random order, as many of each label, up to `count` in all"""
    rng = random.Random(seed)
    found = list(dict.fromkeys(passage for story in text.split(EOT) for passage in passages(story)))
    rng.shuffle(found)
    both = [(passage, other) for passage in found if (other := shuffled(passage, rng))][: count // 2 * 2]
    return [("shuffled", other) if i % 2 else ("original", passage) for i, (passage, other) in enumerate(both)]


def passages(story: str) -> Iterator[str]:
    """Yield passages of SHORTEST to LONGEST words that consist of whole sentences and don't overlap"""
    words: list[str] = []
    for sentence in BETWEEN_SENTENCES.split(story.strip()):
        words += sentence.split()
        if len(words) >= SHORTEST:
            if len(words) <= LONGEST:
                yield " ".join(words)
            words = []


def shuffled(passage: str, rng: random.Random) -> str | None:
    """Return the passage with PAIRS pairs of words exchanged, or None if it has too few words that may be"""
    words = passage.split()
    movable = [word.isalpha() and word.islower() for word in words]
    pairs = [(i, i + DISTANCE) for i in range(len(words) - DISTANCE)]
    pairs = [(i, j) for i, j in pairs if movable[i] and movable[j] and words[i] != words[j]]
    rng.shuffle(pairs)
    exchanged: set[int] = set()
    for i, j in pairs:
        if len(exchanged) < 2 * PAIRS and not {i, j} & exchanged:
            words[i], words[j] = words[j], words[i]
            exchanged |= {i, j}
    return " ".join(words) if len(exchanged) == 2 * PAIRS else None


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python docs/order_task.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, metavar="FILE", help="stories, separated by <|endoftext|>")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.tsv", help="where to write the rows")
    parser.add_argument("--rows", type=int, default=2000, metavar="N", help="the number of rows at most [2000]")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="draws the passages and their labels [0]")
    args = parser.parse_args()
    with spooled([args.data]) as pipes:
        found = rows("".join(file_pieces(pipes.get(args.data, args.data))), args.rows, args.seed)
    if not found:
        raise GPTError(f"{args.data} has no passages of {SHORTEST} to {LONGEST} words: give stories of some sentences.")
    with replacing(args.out) as f:
        f.write("".join(f"{label}\t{passage}\n" for label, passage in found).encode())
    print(f"{args.out}: {len(found):,} rows")


if __name__ == "__main__":
    sys.exit(run("order_task", main))
