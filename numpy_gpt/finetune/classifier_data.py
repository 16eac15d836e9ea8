"""Turn a table of labels and texts into classes and token ids."""

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..checkpoint.classifier import Classifier
from ..errors import GPTError
from ..text.tokenizer import EOT, Tokenizer
from . import spam
from .batches import padded
from .options import SPAM, FinetuneOptions
from .split import Split, balanced, split
from .table import Row, read_rows


class Texts(NamedTuple):
    """Hold the tokens of texts, their classes as numbers of labels, and the split"""

    ids: list[list[int]]
    classes: np.ndarray
    labels: list[str]
    split: Split
    padding: int

    def batch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the padded tokens (B,T) of these texts, the positions of their last tokens and their classes"""
        ids = [self.ids[i] for i in numbers]
        return padded(ids, self.padding), np.array([len(row) - 1 for row in ids]), self.classes[numbers]

    def lengths(self, numbers: np.ndarray) -> np.ndarray:
        return np.array([len(self.ids[i]) for i in numbers])


def read(s: FinetuneOptions) -> list[Row]:
    """Return the rows of --data, balanced if the options say so"""
    file = str(spam.find()) if s.data == SPAM else s.data
    rows = read_rows(file, s.label_column or None, s.text_column or None)
    return [rows[i] for i in balanced([row.label for row in rows], s.seed, s.data)] if s.balance else rows


def key(rows: Sequence[Row]) -> str:
    """Return a hash of the rows, by which a resumed run recognises them"""
    return hashlib.sha256(json.dumps(rows).encode("utf-8", "surrogatepass")).hexdigest()


def prepare(rows: Sequence[Row], m: Classifier, s: FinetuneOptions) -> Texts:
    """Return the tokens and classes of the rows, and their split"""
    names = [row.label for row in rows]
    parts = split(names, s.seed, s.data)
    numbers = {label: k for k, label in enumerate(m.labels)}
    classes = np.array([numbers[name] for name in names])
    ids = [encode(row.text, m.tokenizer, m.context) for row in rows]
    return Texts(ids, classes, m.labels, parts, padding_of(m.tokenizer))


def encode(text: str, tokenizer: Tokenizer, context: int) -> list[int]:
    """Return a text's first tokens, at most context; <|endoftext|> for an empty text"""
    ids = tokenizer.encode(text)[:context]
    if ids:
        return ids
    if tokenizer.eot is None:
        raise GPTError(f"a text is empty, and the tokenizer has no {EOT} to stand for it: remove that text.")
    return [tokenizer.eot]


def padding_of(tokenizer: Tokenizer) -> int:
    """Return the token that fills up the shorter texts of a batch: any, since no text's result depends on it"""
    return 0 if tokenizer.eot is None else tokenizer.eot
