"""Classify texts by the words that they contain: logistic regression, a baseline for numpy_gpt.finetune.

    python docs/bag_of_words.py --data sms_spam.tsv --balance --seeds 3

The rows of a seed are those of `python -m numpy_gpt.finetune classify` with this seed. The classifier is fitted to the
training rows and measured on the test rows. The order of words, their counts and the values of digits are ignored. With
--neighbours, each pair of neighbouring words counts as a word too.
"""

import argparse
import re
import statistics
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from numpy_gpt.finetune.split import balanced, split
from numpy_gpt.finetune.table import read_rows
from numpy_gpt.system.cli import run

WORD = re.compile(r"\w+|[^\w\s]")  # a punctuation mark counts as a word
L2 = 1e-4
STEPS = 1000


class Classifier(NamedTuple):
    """Hold the index of each word, the labels, and weights (V,K) and biases (K)"""

    neighbours: bool
    vocabulary: dict[str, int]
    labels: list[str]
    w: np.ndarray
    b: np.ndarray


def fit(texts: Sequence[str], labels: Sequence[str], neighbours: bool = False) -> Classifier:
    """Minimise the mean cross-entropy + L2/2 Σ w², by gradient descent with Nesterov's momentum

    z = b + Σ w of the words        p = softmax z        dz = (p - y) / n        dw = Σ dz of the texts + L2 w
    """
    bags = [words(text, neighbours) for text in texts]
    vocabulary = {word: i for i, word in enumerate(sorted(set().union(*bags)))}
    names = sorted(set(labels))
    y = np.array([[label == name for name in names] for label in labels], float)  # (n,K)
    text, word = pairs(bags, vocabulary)
    rate = 1 / (0.5 * (1 + len(text) / len(texts)) + L2)  # 1 / an upper bound of the second derivative
    ahead = last = np.zeros((len(vocabulary), len(names))), np.zeros(len(names))
    for step in range(STEPS):
        w, b = ahead
        dz = (softmax(logits(w, b, text, word, len(texts))) - y) / len(y)
        dw = L2 * w
        np.add.at(dw, word, dz[text])
        new = w - rate * dw, b - rate * dz.sum(0)
        ahead = tuple(a + step / (step + 3) * (a - before) for a, before in zip(new, last, strict=True))
        last = new
    return Classifier(neighbours, vocabulary, names, *last)


def predict(classifier: Classifier, texts: Sequence[str]) -> list[str]:
    """Return the most probable label of each text"""
    bags = [words(text, classifier.neighbours) for text in texts]
    z = logits(classifier.w, classifier.b, *pairs(bags, classifier.vocabulary), len(texts))
    return [classifier.labels[k] for k in z.argmax(1)]


def words(text: str, neighbours: bool = False) -> set[str]:
    """Return the words of a text in lower case, with 0 for each digit, and its pairs of neighbouring words if wanted"""
    found = WORD.findall(re.sub(r"\d", "0", text.lower()))
    return {*found, *(map(" ".join, pairwise(found)) if neighbours else ())}


def pairs(bags: Sequence[set[str]], vocabulary: dict[str, int]) -> np.ndarray:
    """Return the index of a text and that of a word in it, for each known word of each text: (2,P)"""
    found = [(i, vocabulary[word]) for i, bag in enumerate(bags) for word in sorted(bag & vocabulary.keys())]
    return np.array(found, int).reshape(-1, 2).T


def logits(w: np.ndarray, b: np.ndarray, text: np.ndarray, word: np.ndarray, n: int) -> np.ndarray:
    z = np.tile(b, (n, 1))
    np.add.at(z, text, w[word])
    return z  # (n,K)


def softmax(z: np.ndarray) -> np.ndarray:
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def accuracy(file: str, balance: bool, seed: int, neighbours: bool = False) -> float:
    """Return the share of the test rows of a seed whose label is predicted"""
    rows = read_rows(file)
    if balance:
        rows = [rows[i] for i in balanced([row.label for row in rows], seed, file)]
    train, _, test = ([rows[i] for i in part] for part in split([row.label for row in rows], seed, file))
    classifier = fit([row.text for row in train], [row.label for row in train], neighbours)
    predicted = predict(classifier, [row.text for row in test])
    return sum(label == row.label for label, row in zip(predicted, test, strict=True)) / len(test)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python docs/bag_of_words.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, metavar="FILE", help="a .tsv or .csv file of labels and texts")
    parser.add_argument("--balance", action="store_true", help="use as many texts of each label as the rarest has")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="measure with the seeds 0 to N - 1 [3]")
    parser.add_argument("--neighbours", action="store_true", help="count pairs of neighbouring words too")
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error(f"--seeds is {args.seeds}: it must be at least 1.")
    found = []
    for seed in range(args.seeds):
        found.append(accuracy(args.data, args.balance, seed, args.neighbours))
        print(f"seed {seed}: test accuracy {found[-1]:.4f}", flush=True)
    print(f"mean: test accuracy {statistics.mean(found):.4f}")


if __name__ == "__main__":
    sys.exit(run("bag_of_words", main))
