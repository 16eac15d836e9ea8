"""python -m numpy_gpt.finetune predict: classify texts with a trained classifier."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .. import fast
from ..adamw import Moments
from ..checkpoint import classifier
from ..checkpoint.classifier import Classifier
from ..checks import check_tokenizer
from ..errors import GPTError
from ..system import cli
from . import metrics
from .backend import Backend
from .batches import padded, sorted_batches
from .classifier_data import encode, padding_of
from .classifier_task import Evaluator
from .trainable import select

BLOCK = 1 << 16  # bytes that are read from a file or a pipe at a time
BATCH = 32
EPILOG = """examples:
  python -m {0} predict spam "You have won a prize! Call now."
  python -m {0} predict spam -f messages.txt
  tail -f messages.log | python -m {0} predict spam --json

Each result is a line: the label, a tab, and the label's probability. In a file and in piped stdin, each line is a text,
and an empty line is an empty text. A text is cut at the --context of the training."""


def main(argv: list[str], backend: Backend) -> int:
    """Classify the texts of the command line, a file or stdin; return the exit status"""
    args = parse(argv, backend)
    fast.tune()
    m = classifier.read(Path(args.classifier))
    check_tokenizer(m.tokenizer, m.config, args.classifier)
    frozen = select(m.params, len(m.params.h))
    evaluator = backend.make_trainer(args, "classify", frozen, m.config, Moments(None, None), None)
    for texts in [[args.text]] if args.text is not None else read_texts(args.file):
        for p in probabilities(m, evaluator, texts):
            print(result(m.labels, p, args.json))
        if sys.stdout:
            sys.stdout.flush()
    return 0


def parse(argv: list[str], backend: Backend) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {backend.command} predict",
        description="Classify texts with a classifier that classify has trained.",
        epilog=EPILOG.format(backend.command),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("classifier", metavar="DIR", help="directory of the classifier")
    parser.add_argument("text", metavar="TEXT", nargs="?", help="a text (default: the lines of piped stdin)")
    parser.add_argument("-f", "--file", help="classify the lines of this file")
    parser.add_argument("--json", action="store_true", help="print an object with the probabilities of all labels")
    backend.add_arguments(parser)
    args = cli.parse(parser, argv, intermixed=True)
    for option, value, advice in (
        ("DIR", args.classifier, "the directory of a classifier"),
        ("--file", args.file, "a file"),
    ):
        if value == "":
            parser.error(f"{option} is empty: give {advice}.")
    if args.text is not None and args.file is not None:
        parser.error("the command line has a text and --file: give one of them.")
    if args.text is None and args.file is None and (sys.stdin is None or sys.stdin.isatty()):
        parser.error("there is no text: give one, or --file, or pipe texts to stdin.")
    return args


def read_texts(file: str | None) -> Iterator[list[str]]:
    """Yield the lines of a file or of stdin as they arrive"""
    name, number = file or "stdin", 0
    try:
        with open(0 if file is None else file, "rb", closefd=file is not None) as stream:
            for lines in complete_lines(stream):
                yield from decoded(lines, name, number)
                number += len(lines)
    except OSError as e:
        raise GPTError(f"{name} can't be read: {e.strerror}.") from None


def complete_lines(stream: Any) -> Iterator[list[bytes]]:
    """Yield the lines that have arrived, without line breaks; the last one may end without a line break"""
    rest = b""
    while block := stream.read1(BLOCK):
        *lines, rest = (rest + block).split(b"\n")
        if lines:
            yield lines
    if rest:
        yield [rest]


def decoded(lines: list[bytes], name: str, before: int) -> Iterator[list[str]]:
    """Yield lines as texts; raise GPTError at the first one that isn't UTF-8, after those in front of it

    before is the number of lines that came earlier.
    """
    texts: list[str] = []
    for number, line in enumerate(lines, before + 1):
        try:
            text = line.removesuffix(b"\r").decode()
        except UnicodeDecodeError as e:
            yield texts
            raise GPTError(
                f"{name}, line {number} isn't UTF-8 text: byte {e.start} of the line is {line[e.start]:#04x}: save the "
                "texts as UTF-8."
            ) from None
        texts.append(text.removeprefix("\ufeff") if number == 1 else text)
    yield texts


def probabilities(m: Classifier, evaluator: Evaluator, texts: list[str]) -> np.ndarray:
    """Return the probabilities (n,K) of the labels of texts"""
    ids = [encode(text, m.tokenizer, m.context) for text in texts]
    found = np.empty((len(texts), len(m.labels)))
    for rows in sorted_batches(np.array([len(row) for row in ids]), BATCH):
        batch = [ids[i] for i in rows]
        found[rows] = evaluator.evaluate(
            (padded(batch, padding_of(m.tokenizer)), np.array([len(b) - 1 for b in batch]))
        )
    if not np.isfinite(found).all():
        raise GPTError("a logit of the classifier isn't finite: its weights are too large; train it again.")
    e = np.exp(found - found.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def result(labels: list[str], p: np.ndarray, as_json: bool) -> str:
    """Return the result for a text as a line"""
    best = int(p.argmax())
    if as_json:
        all_labels = dict(zip(labels, p.tolist(), strict=True))
        return json.dumps({"label": labels[best], "probability": float(p[best]), "probabilities": all_labels})
    return f"{metrics.printable(labels[best])}\t{p[best]:.3f}"
