"""python -m numpy_gpt.storyteller.recite FILE...: does it tell stories, or recite those it was trained on?

The samples are those of `python -m numpy_gpt.generate --seed 1 --num-samples 1000`.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from .. import generate
from ..checkpoint.source import load
from ..checks import check_tokenizer
from ..errors import GPTError
from ..fast import memory
from ..params import Model
from ..system.cli import run
from ..text import token_cache

SAMPLES, AT_ONCE = 1000, 100
LONGEST = 49  # tokens that a sample may have in a row as the text has them


def main() -> int:
    memory.keep_freed()
    parser = argparse.ArgumentParser(
        prog="python -m numpy_gpt.storyteller.recite",
        description=f"The longest run of tokens that {SAMPLES} stories share with a text; exit 1 above {LONGEST}.",
        epilog="example:\n  python -m numpy_gpt.storyteller.recite train_cased.txt train_truecased.txt books.txt",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="what the model was trained on")
    parser.add_argument("--model", default="storyteller", metavar="M", help="a name or a path (default: storyteller)")
    args = parser.parse_args()
    m = load(args.model)
    check_tokenizer(m.tokenizer, m.config, args.model)
    if m.tokenizer.eot is None:
        raise GPTError(f"the tokenizer of {args.model} has no <|endoftext|>, which each sample starts with.")
    text = token_cache.tokenize(args.files, m.tokenizer)
    if len(text) <= LONGEST:
        raise GPTError(f"the text has {len(text)} tokens, and so no run of {LONGEST + 1}: give what it was trained on.")
    number, words = longest_common(list(samples(m)), text)
    told = m.tokenizer.decode(words.tolist())
    print(f"the longest run has {len(words)} tokens, with --seed 1 --sample {number}: {told!r}")
    return int(len(words) > LONGEST)


def samples(m: Model) -> Iterator[np.ndarray]:
    eot = m.tokenizer.eot
    for first in tqdm(range(0, SAMPLES, AT_ONCE), "samples", leave=False, disable=None if sys.stderr else True):
        told = generate.complete_batch(m, [[eot]] * AT_ONCE, 200, 0.8, 0, 0.95, seed=1, stop=[eot], sample=first)
        yield from (np.array(ids, np.int64) for ids in told)


def longest_common(rows: Sequence[np.ndarray], text: np.ndarray) -> tuple[int, np.ndarray]:
    """-> the longest run of tokens in a row that the text has too, the number of the row first

    Where a run of n tokens begins in both, one of n + 1 may: those are followed, until there are none in both.
    """
    told = np.concatenate([np.append(row + 2, 1) for row in rows])  # 1 ends a row, 0 the text: there no run goes on
    text = np.append(text.astype(np.int64) + 2, 0)
    base = 1 + max(told.max(), text.max())
    starts, places = np.arange(len(told)), np.arange(len(text))
    names, those = np.zeros_like(starts), np.zeros_like(places)  # of the runs, the same where they are
    length = 0
    while True:
        names, those = names * base + told[starts + length], those * base + text[places + length]
        common = np.intersect1d(names, those)
        if not len(common):
            first = int(starts[0])
            return int((told[:first] == 1).sum()), told[first : first + length] - 2
        kept, here = np.isin(names, common), np.isin(those, common)
        starts, names = starts[kept], np.searchsorted(common, names[kept])
        places, those = places[here], np.searchsorted(common, those[here])
        length += 1


if __name__ == "__main__":
    sys.exit(run("recite", main, failed=2))
