"""Measure a classifier: accuracy, precision, recall, F1 and the confusion matrix."""

import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

MOST_COLUMNS = 20  # labels up to which report shows the confusion matrix
WIDEST = 40  # columns of a label in a report; a longer one is cut
WIDTH = 100  # columns of a confusion matrix with labels as its header; a wider one has their numbers


class Scores(NamedTuple):
    """Hold the measures of a classifier; the arrays have an entry for each label"""

    accuracy: float
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    macro_f1: float
    support: np.ndarray


def confusion(truth: np.ndarray, predicted: np.ndarray, K: int) -> np.ndarray:
    """Return how many texts of each label, a row, were predicted to have each label, a column: (K,K) ints"""
    return np.bincount(np.asarray(truth, int) * K + np.asarray(predicted, int), minlength=K * K).reshape(K, K)


def scores(matrix: np.ndarray) -> Scores:
    """Return the measures that a confusion matrix implies; 0 / 0 counts as 0

    precision = right / predicted        recall = right / support        F1 = 2 right / (support + predicted)
    """
    right, support, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    f1 = ratio(2 * right, support + predicted)
    accuracy = float(ratio(right.sum(), support.sum()))
    return Scores(accuracy, ratio(right, predicted), ratio(right, support), f1, float(f1.mean()), support)


def ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, and 0 where b is 0"""
    return a / np.maximum(b, 1)


def as_dict(matrix: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Return the measures and the confusion matrix as an object for JSON"""
    s = scores(matrix)
    rows = zip(labels, s.precision.tolist(), s.recall.tolist(), s.f1.tolist(), s.support.tolist(), strict=True)
    return {
        "accuracy": s.accuracy,
        "macro_f1": s.macro_f1,
        "labels": {label: {"precision": p, "recall": r, "f1": f, "support": n} for label, p, r, f, n in rows},
        "confusion": matrix.tolist(),
    }


def report(matrix: np.ndarray, labels: Sequence[str]) -> str:
    """Return tables of the measures and of the confusion matrix, as text in columns"""
    s, shown = scores(matrix), [printable(label) for label in labels]
    rows = [["", "precision", "recall", "f1", "texts"]]
    for label, *measures, n in zip(shown, s.precision, s.recall, s.f1, s.support, strict=True):
        rows.append([label, *(f"{x:.3f}" for x in measures), f"{n:,}"])
    means = s.precision.mean(), s.recall.mean(), s.macro_f1
    rows.append(["macro average", *(f"{x:.3f}" for x in means), f"{s.support.sum():,}"])
    rows.append(["accuracy", "", "", f"{s.accuracy:.3f}", f"{s.support.sum():,}"])
    return f"{table(rows)}\n\n{confusion_table(matrix, shown)}"


def confusion_table(matrix: np.ndarray, shown: Sequence[str]) -> str:
    """Return the confusion matrix as text in columns"""
    if len(shown) > MOST_COLUMNS:
        return f"The confusion matrix of {len(shown):,} labels is in the output of --json."
    counts = [[f"{n:,}" for n in row] for row in matrix.tolist()]
    title = "a row is a label, a column is a predicted label"
    text = table([["", *shown], *([label, *row] for label, row in zip(shown, counts, strict=True))])
    if max(map(width, text.split("\n"))) > WIDTH:
        numbers = [str(k) for k in range(1, len(shown) + 1)]
        rows = [[f"{k} {label}", *row] for k, label, row in zip(numbers, shown, counts, strict=True)]
        text = table([["", *numbers], *rows])
    return f"{title}\n{text}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as text in columns: the first one is aligned on the left, the others on the right"""
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [" " * (w - width(cell)) + cell for cell, w in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first + " " * (widths[0] - width(first)), *cells]).rstrip())
    return "\n".join(lines)


def printable(label: str) -> str:
    """Return a label in at most WIDEST columns; characters that can't be printed are written as escapes"""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in label)
    if width(text) <= WIDEST:
        return text
    n = 0
    while width(text[: n + 1]) < WIDEST:  # one column is for the dots
        n += 1
    return text[:n] + "…"


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes"""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
