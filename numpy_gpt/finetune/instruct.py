"""python -m numpy_gpt.finetune instruct: train a model to answer instructions."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..adamw import Moments
from ..checkpoint import huggingface, read_checkpoint
from ..checkpoint.source import find
from ..checks import check_tokenizer
from ..errors import CheckpointError
from ..params import Model, named
from ..text import template as templates
from ..text.template import ALPACA, Template
from ..train.loop import Run
from ..train.start import load_initial
from . import instruction_task, options, run_files
from .backend import Backend
from .instruction_task import FORMAT, Data, Instructions
from .instructions import Entry, read_entries
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
    """Train a model with the options of the command line; return the exit status"""
    args, parser = parse("instruct", argv, backend)
    with opened("instruct", args, parser, FORMAT) as run:
        entries = read_entries(run.options.data)
        text = key(entries)
        check_same(run, "text", text, f"the data in {run.options.data}")
        template = find_template(run, given="template" in args)
        m = initial(run)
        context = options.context(run.options, m.config)
        data = instruction_task.prepare(entries, template, m.tokenizer, context, run.options.seed, run.options.data)
        s = options.complete(run.options, "instruct", m.config, len(data.train))
        schedule = options.schedule(s, len(data.train))
        if is_complete(run, schedule.steps):
            return 0
        about = {"task": "instruct", "settings": asdict(s), "text": text, "template": template._asdict()}
        about |= base_of(run, m.params)
        params = in_dtype_of(run, m.params)
        model = trainable(params, s, m.config, None)
        moments = restore(run, model)
        run.check_signals()
        trainer = backend.make_trainer(args, "instruct", model, m.config, moments, s)
        task = Instructions(trainer, data, template, m.tokenizer, s, saver(m, s, template, about))
        training = Run(run.out, run.previous.step if run.previous else 0, trainer, task, schedule)
        training.print(describe(data, template))
        return training.train()


def key(entries: Sequence[Entry]) -> str:
    """Return a hash of the entries, by which a resumed run recognises them"""
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def find_template(run: Opened, given: bool) -> Template:
    """Return the template of the run to resume, or that of --template or of the model to start from, or Alpaca's"""
    s = run.options
    if s.template and (given or not run.previous):
        template = templates.read(s.template)
        check_same(run, "template", template._asdict(), f"the template in {s.template}")
        return template
    if run.previous:
        try:
            return Template(**run.previous.about["template"])
        except (KeyError, TypeError):
            raise CheckpointError(f"{run.out} has lost the template of its run: start a new run.") from None
    return read_checkpoint(find(s.init_from)).template or ALPACA


def initial(run: Opened) -> Model:
    """Return the model that a run starts from; with adapters, a resumed run starts from the unmerged model again"""
    s = run.options
    if run.previous and not s.lora:
        return load_initial(str(run.out.absolute()), s.dropout)
    m = initial_model(run)
    check_tokenizer(m.tokenizer, m.config, s.init_from)
    return m


def saver(
    m: Model, s: FinetuneOptions, template: Template, about: dict[str, Any]
) -> Callable[[Path, int, tuple[Any, ...]], None]:
    """Return a function that saves the state of a run"""

    def save(out: Path, step: int, state: tuple[Any, ...]) -> None:
        params, trained, *moments = state
        arrays, dtype = dict(named(params)), params.wte.dtype
        trees = run_files.trees_to_save(trained, Moments(*moments), adapters=bool(s.lora))

        def fill(part: Path) -> None:
            huggingface.fill(part, m.config, arrays, dtype, m.tokenizer, template)

        save_adapters(out, s, trained.h, None, m.config, template)
        run_files.save(out, fill, step, about, trees)

    return save


def describe(data: Data, template: Template) -> str:
    """Return a line about the data, and one with the template"""
    left_out = f" ({data.left_out:,} left out: their prompts fill the context)" if data.left_out else ""
    shown = json.dumps(template.prompt, ensure_ascii=False)
    return f"{len(data.train):,} examples to train on, {len(data.val):,} held out{left_out}\ntemplate {shown}"
