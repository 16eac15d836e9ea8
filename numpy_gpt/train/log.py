"""Log a run's evaluations: in log.jsonl, as curves in SVG files, and as lines on stdout."""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import GPTError
from ..system.atomic import replacing
from ..system.cli import print_stderr
from .chart import svg

LOG = "log.jsonl"
Entry = dict[str, Any]


class LogFormat(NamedTuple):
    """Define how evaluations are shown"""

    command: str  # as messages name it
    line: Callable[[Entry], str]
    charts: Mapping[str, tuple[str, ...]]  # measure -> the names of its curves, such as "train_loss"

    @property
    def files(self) -> tuple[str, ...]:
        """Return the names of the files"""
        return LOG, *(f"{measure}.svg" for measure in self.charts)

    @property
    def plotted(self) -> tuple[str, ...]:
        """Return the names of the numbers that each entry of a log has"""
        return "step", *(name for names in self.charts.values() for name in names)


class Journal:
    """Collect evaluations; each rewrites all files atomically"""

    def __init__(self, directory: Path, step: int, show: Callable[[str], None], format: LogFormat):
        """Read the entries up to the step that a run is resumed at; later ones will be repeated"""
        self.directory, self.show, self.format = directory, show, format
        entries = read(directory / LOG, format) if step else []
        self.entries = [entry for entry in entries if entry["step"] <= step]

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.show(self.format.line(entry))
        texts = {LOG: "".join(json.dumps(entry) + "\n" for entry in self.entries)}
        texts |= {f"{measure}.svg": self.chart(measure) for measure in self.format.charts}
        try:
            for name, text in texts.items():
                with replacing(self.directory / name) as f:
                    f.write(text.encode(errors="backslashreplace"))
        except GPTError as e:
            print_stderr(f"{self.format.command}: {e} The run continues.")

    def chart(self, measure: str) -> str:
        """Return the curves of a measure as an SVG file"""
        curves = {
            name.removesuffix(f"_{measure}"): [(entry["step"], entry[name]) for entry in self.entries]
            for name in self.format.charts[measure]
        }
        return svg(f"{self.directory.resolve().name}: {measure}", curves, "step")


def read(log: Path, format: LogFormat) -> list[Entry]:
    """Return the entries of a log, or none if there is no such file"""
    if not os.path.exists(log):
        return []
    try:
        entries = [json.loads(text) for text in log.read_text(encoding="utf-8").splitlines()]
        if not all(math.isfinite(entry[name]) for entry in entries for name in format.plotted):
            raise ValueError
    except (OSError, ValueError, TypeError, KeyError):
        raise GPTError(f"{log} isn't the log of a run: move it to another directory.") from None
    return entries


def is_log(path: Path, format: LogFormat) -> bool:
    """Return whether a run wrote the file"""
    try:
        return bool(read(path, format))
    except GPTError:
        return False
