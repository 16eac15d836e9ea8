"""python -m numpy_gpt.finetune classify: train a classifier, and report how it does on texts that it hasn't seen."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..adamw import Moments
from ..checkpoint import classifier
from ..checkpoint.classifier import Classifier
from ..checks import check_tokenizer
from ..params import Head
from ..train.loop import Run
from . import classifier_data, metrics, options, run_files
from .backend import Backend
from .classifier_data import Texts
from .classifier_task import FORMAT, Classification
from .options import FinetuneOptions
from .run import (
    Opened,
    base_of,
    check_same,
    in_dtype_of,
    initial_model,
    is_complete,
    opened,
    parse,
    restore,
    save_adapters,
    trainable,
)


def main(argv: list[str], backend: Backend) -> int:
    """Train a classifier with the options of the command line; return the exit status"""
    args, parser = parse("classify", argv, backend)
    with opened("classify", args, parser, FORMAT) as run:
        rows = classifier_data.read(run.options)
        key = classifier_data.key(rows)
        check_same(run, "text", key, f"the data in {run.options.data}")
        m = initial_classifier(run, sorted({row.label for row in rows}))
        texts = classifier_data.prepare(rows, m, run.options)
        s = options.complete(run.options, "classify", m.config, len(texts.split.train))
        schedule = options.schedule(s, len(texts.split.train))
        complete = is_complete(run, schedule.steps)
        about = {"task": "classify", "settings": asdict(s), "text": key, **base_of(run, m.params)}
        params = in_dtype_of(run, m.params)
        model = trainable(params, s, m.config, params.head)
        moments = restore(run, model)
        run.check_signals()
        trainer = backend.make_trainer(args, "classify", model, m.config, moments, s)
        task = Classification(trainer, texts, s.batch_size, s.seed, saver(m, s, about))
        step = run.previous.step if run.previous else 0
        training = Run(run.out, step, trainer, task, schedule, quiet=args.json)
        training.print(describe(m, texts))
        status = 0 if complete else training.train()
        if training.step >= schedule.steps:
            report(task, args.json, training.print)
        return status or training.end()  # the report may have been the first output that can't be written


def initial_classifier(run: Opened, labels: list[str]) -> Classifier:
    """Return the classifier that a run starts from: one with a new head, or that of the run to resume

    With adapters, a resumed run starts from the model that it was started with, since its own has them merged.
    """
    s = run.options
    if run.previous and not s.lora:
        m = classifier.read(run.out)
        check_tokenizer(m.tokenizer, m.config, run.out)
        return m._replace(config=replace(m.config, dropout=s.dropout))
    base = initial_model(run)
    check_tokenizer(base.tokenizer, base.config, s.init_from)
    rng = np.random.default_rng([s.seed, len(labels)])
    w = (0.02 * rng.standard_normal((len(labels), base.config.n_embd))).astype(base.params.wte.dtype)
    config = replace(base.config, tied=True)  # the head for tokens isn't part of a classifier
    context = options.context(s, base.config)
    return Classifier(config, base.params._replace(head=Head(w)), labels, base.tokenizer, context)


def saver(m: Classifier, s: FinetuneOptions, about: dict[str, Any]) -> Callable[[Path, int, Any], None]:
    """Return a function that saves the state of a run; with adapters, it writes them to a directory of their own too"""

    def save(out: Path, step: int, state: tuple[Any, ...]) -> None:
        params, trained, *moments = state
        save_adapters(out, s, trained.h, trained.head.w if s.lora else None, m.config)
        trees = run_files.trees_to_save(trained, Moments(*moments), adapters=bool(s.lora))
        run_files.save(out, lambda part: classifier.fill(part, m._replace(params=params)), step, about, trees)

    return save


def describe(m: Classifier, texts: Texts) -> str:
    """Return a line about the data"""
    counts = [f"{metrics.printable(label)} {int((texts.classes == k).sum()):,}" for k, label in enumerate(m.labels[:8])]
    more = ", ..." if len(m.labels) > 8 else ""
    train, val, test = map(len, texts.split)
    return (
        f"{len(texts.ids):,} texts of {len(m.labels)} labels ({', '.join(counts)}{more}): {train:,} to train on, "
        f"{val:,} to validate, {test:,} to test"
    )


def report(task: Classification, as_json: bool, show: Callable[[str], None]) -> None:
    """Print the measures on the validation texts and on the test texts"""
    texts, found = task.texts, {}
    for name, numbers in (("validation", texts.split.val), ("test", texts.split.test)):
        predicted = task.logits(numbers).argmax(-1)
        found[name] = metrics.confusion(texts.classes[numbers], predicted, len(texts.labels))
    if as_json:
        print(json.dumps({name: metrics.as_dict(matrix, texts.labels) for name, matrix in found.items()}))
        return
    for name, matrix in found.items():
        show(f"\n{name}\n{metrics.report(matrix, texts.labels)}")
    show(f"\ntest accuracy {metrics.scores(found['test']).accuracy:.3f}")
