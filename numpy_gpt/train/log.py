"""Log a run's evaluations: in log.jsonl, in loss.svg, and as lines on stdout."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import GPTError
from ..evaluate.metrics import format_measures, format_number
from ..system.atomic import replacing
from ..system.cli import print_stderr
from .chart import svg

LOG, CURVE = "log.jsonl", "loss.svg"
PLOTTED = ("step", "train_loss", "val_loss")
Entry = dict[str, Any]


class Journal:
    """Collect evaluations; each rewrites both files atomically"""

    def __init__(self, directory: Path, step: int, show: Callable[[str], None]):
        """Read the entries up to the step that a run is resumed at; later ones will be repeated"""
        self.directory, self.show = directory, show
        self.entries = [entry for entry in read(directory / LOG) if entry["step"] <= step] if step else []

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.show(line(entry))
        log = "".join(json.dumps(entry) + "\n" for entry in self.entries)
        try:
            for name, text in ((LOG, log), (CURVE, curve(self.directory, self.entries))):
                with replacing(self.directory / name) as f:
                    f.write(text.encode(errors="backslashreplace"))
        except GPTError as e:
            print_stderr(f"train: {e} The run continues.")


def read(log: Path) -> list[Entry]:
    """Return the entries of a log, or none if there is no such file"""
    if not os.path.exists(log):
        return []
    try:
        entries = [json.loads(text) for text in log.read_text(encoding="utf-8").splitlines()]
        if not all(math.isfinite(entry[name]) for entry in entries for name in PLOTTED):
            raise ValueError
    except (OSError, ValueError, TypeError, KeyError):
        raise GPTError(f"{log} isn't the log of a run: move it to another directory.") from None
    return entries


def is_log(path: Path) -> bool:
    """Return whether a run wrote the file"""
    try:
        return bool(read(path))
    except GPTError:
        return False


def line(entry: Entry) -> str:
    """Return an evaluation as a line of text"""
    train, val = (format_number(entry[name], 4) for name in ("train_loss", "val_loss"))
    measures = format_measures(entry["val_perplexity"], entry["val_bits_per_byte"])
    speed = f"  {entry['tokens_per_s']:,.0f} tokens/s" if entry["tokens_per_s"] else ""
    return f"step {entry['step']:6}  train {train}  val {val}  {measures}{speed}"


def curve(directory: Path, entries: list[Entry]) -> str:
    """Return the losses as an SVG file"""
    curves = {name: [(entry["step"], entry[f"{name}_loss"]) for entry in entries] for name in ("train", "val")}
    return svg(f"{directory.resolve().name}: loss", curves, "step")
