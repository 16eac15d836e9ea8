"""python -m numpy_gpt.storyteller.recite FILE...: measure whether a model repeats the text that it was trained on.

The samples are those of `python -m numpy_gpt.generate --seed 1 --num-samples 1000`.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from .. import fast, generate
from ..checkpoint.source import load
from ..checks import check_tokenizer
from ..errors import GPTError
from ..params import Model
from ..system.cli import run
from ..text import token_cache

SAMPLES, BATCH = 1000, 100
LONGEST = 49  # tokens in a row that a sample may share with the text
ROW_END, TEXT_END = 1, 0  # after each row and after the text; tokens start at 2


def main() -> int:
    fast.tune()
    parser = argparse.ArgumentParser(
        prog="python -m numpy_gpt.storyteller.recite",
        description=f"Find the longest run of tokens that {SAMPLES} samples share with a text; exit 1 above {LONGEST}.",
        epilog="example:\n  python -m numpy_gpt.storyteller.recite train_cased.txt train_truecased.txt books.txt",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="the text that the model was trained on")
    parser.add_argument("--model", default="storyteller", metavar="M", help="a name or a path (default: storyteller)")
    args = parser.parse_args()
    m = load(args.model)
    check_tokenizer(m.tokenizer, m.config, args.model)
    if m.tokenizer.eot is None:
        raise GPTError(
            f"the tokenizer of {args.model} has no <|endoftext|>, which each sample starts with: choose another model."
        )
    text = token_cache.tokenize(args.files, m.tokenizer)
    if len(text) <= LONGEST:
        raise GPTError(
            f"the text has {len(text)} tokens, so no run of {LONGEST + 1} can be found in it: give the text that the "
            "model was trained on."
        )
    sample, run_of_tokens = longest_common_run(list(samples(m)), text)
    shared = m.tokenizer.decode(run_of_tokens.tolist())
    print(f"the longest run has {len(run_of_tokens)} tokens, with --seed 1 --sample {sample}: {shared!r}")
    return int(len(run_of_tokens) > LONGEST)


def samples(m: Model) -> Iterator[np.ndarray]:
    """Yield the tokens of each sample"""
    eot = m.tokenizer.eot
    for first in tqdm(range(0, SAMPLES, BATCH), "samples", leave=False, disable=None if sys.stderr else True):
        batch = generate.complete_batch(m, [[eot]] * BATCH, 200, 0.8, 0, 0.95, seed=1, stop=[eot], sample=first)
        yield from (np.array(ids, np.int64) for ids in batch)


def longest_common_run(rows: Sequence[np.ndarray], text: np.ndarray) -> tuple[int, np.ndarray]:
    """Return the longest run of consecutive tokens that a row and the text share, after the number of the row

    A shared run of n + 1 tokens starts with a shared run of n. So each pass extends the shared runs by one token and
    keeps those that are still shared. A run is represented by a number: equal runs have equal numbers.
    """
    row_tokens = np.concatenate([np.append(row + 2, ROW_END) for row in rows])
    text_tokens = np.append(text.astype(np.int64) + 2, TEXT_END)
    base = 1 + max(row_tokens.max(), text_tokens.max())
    row_starts, text_starts = np.arange(len(row_tokens)), np.arange(len(text_tokens))
    row_runs, text_runs = np.zeros_like(row_starts), np.zeros_like(text_starts)
    length = 0
    while True:
        row_runs = row_runs * base + row_tokens[row_starts + length]
        text_runs = text_runs * base + text_tokens[text_starts + length]
        shared = np.intersect1d(row_runs, text_runs)
        if not len(shared):
            first = int(row_starts[0])
            return int((row_tokens[:first] == ROW_END).sum()), row_tokens[first : first + length] - 2
        in_rows, in_text = np.isin(row_runs, shared), np.isin(text_runs, shared)
        row_starts, row_runs = row_starts[in_rows], np.searchsorted(shared, row_runs[in_rows])
        text_starts, text_runs = text_starts[in_text], np.searchsorted(shared, text_runs[in_text])
        length += 1


if __name__ == "__main__":
    sys.exit(run("recite", main, failed=2))
