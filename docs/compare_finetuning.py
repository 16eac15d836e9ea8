"""Compare ways to fine-tune the storyteller as a classifier, and print their test accuracy as a Markdown table.

    python docs/compare_finetuning.py --data sms_spam.tsv --balance
    python docs/compare_finetuning.py --data order.tsv --only "all layers" "random weights"

Each run is python -m numpy_gpt.finetune classify with these options and the defaults for all others. The first token is
the whole text of --context 1, since it attends to nothing else.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bag_of_words

import numpy_gpt
from numpy_gpt.errors import GPTError

RANDOM = "RANDOM"  # replaced by a model of the storyteller's shape
METHODS = {
    "all layers": [],
    "last two blocks": ["--train", "2"],
    "last block": ["--train", "last"],
    "head": ["--train", "head"],
    "LoRA, rank 16": ["--lora", "16"],
    "first token": ["--context", "1"],
    "random weights": ["--init-from", RANDOM],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="FILE")
    parser.add_argument("--balance", action="store_true")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    args = parser.parse_args()
    seeds = range(args.seeds)
    print(f"| method | test accuracy, mean of {args.seeds} seeds | each | seconds |")
    print("|---|---|---|---|")
    show("logistic regression on words", [words(args, seed, neighbours=False) for seed in seeds])
    show("logistic regression on words and pairs", [words(args, seed, neighbours=True) for seed in seeds])
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only:
            show(name, [finetune(args, METHODS[name], seed, Path(folder)) for seed in seeds])


def show(name: str, results: list[tuple[float, float]]) -> None:
    """Print a row of the table; a result is an accuracy and the seconds that it took"""
    accuracies, seconds = zip(*results, strict=True)
    each = ", ".join(f"{100 * accuracy:.2f}" for accuracy in accuracies)
    mean = 100 * sum(accuracies) / len(accuracies)
    print(f"| {name} | {mean:.2f} % | {each} | {sum(seconds) / len(seconds):.0f} |", flush=True)


def words(args: argparse.Namespace, seed: int, neighbours: bool) -> tuple[float, float]:
    """Return the accuracy of logistic regression, and the seconds that it took"""
    started = time.perf_counter()
    accuracy = bag_of_words.accuracy(args.data, args.balance, seed, neighbours)
    return accuracy, time.perf_counter() - started


def finetune(args: argparse.Namespace, options: list[str], seed: int, folder: Path) -> tuple[float, float]:
    """Return the accuracy of a run, and the seconds that it took"""
    options = [random_model(folder, seed) if option == RANDOM else option for option in options]
    options += ["--data", args.data, *(["--balance"] if args.balance else [])]
    with tempfile.TemporaryDirectory(dir=folder) as out:
        command = [sys.executable, "-m", "numpy_gpt.finetune", "classify", *options, "--seed", str(seed)]
        started = time.perf_counter()
        done = subprocess.run([*command, "--out", f"{out}/run", "--json"], stdout=subprocess.PIPE)
        if done.returncode:
            raise GPTError(f"{' '.join(command[1:])} failed: see its message above.")
        return json.loads(done.stdout)["test"]["accuracy"], time.perf_counter() - started


def random_model(folder: Path, seed: int) -> str:
    """Save a new model of the storyteller's shape and with its tokenizer; return its path"""
    m = numpy_gpt.load("storyteller")
    path = folder / f"random-{seed}"
    numpy_gpt.save(numpy_gpt.init(m.config, seed)._replace(tokenizer=m.tokenizer), path)
    return str(path)


if __name__ == "__main__":
    main()
