"""The evaluations of a run: log.jsonl, loss.svg, and a line each for whoever looks on."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import GPTError
from ..evaluate.metrics import short, told
from ..system.atomic import replacing
from ..system.cli import print_stderr
from .chart import svg

LOG, CURVE = "log.jsonl", "loss.svg"
SHOWN = ("step", "train_loss", "val_loss")  # in the curve
Entry = dict[str, Any]


class Journal:
    """Both files are written anew each time, so that neither is ever half of one"""

    def __init__(self, directory: Path, step: int, say: Callable[[str], None]):
        """What a run that is resumed at this step has told after it is going to be told again"""
        self.directory, self.say = directory, say
        self.entries = [entry for entry in read(directory / LOG) if entry["step"] <= step] if step else []

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.say(line(entry))
        log = "".join(json.dumps(entry) + "\n" for entry in self.entries)
        try:
            for name, text in ((LOG, log), (CURVE, curve(self.directory, self.entries))):
                with replacing(self.directory / name) as f:
                    f.write(text.encode(errors="backslashreplace"))
        except GPTError as e:
            print_stderr(f"train: {e} The run goes on.")


def read(log: Path) -> list[Entry]:
    if not os.path.exists(log):
        return []
    try:
        entries = [json.loads(text) for text in log.read_text(encoding="utf-8").splitlines()]
        if not all(math.isfinite(entry[name]) for entry in entries for name in SHOWN):
            raise ValueError
    except (OSError, ValueError, TypeError, KeyError):
        raise GPTError(f"{log} is no log that a run wrote: move it away to go on.") from None
    return entries


def is_log(path: Path) -> bool:
    """Return whether a run wrote the file"""
    try:
        return bool(read(path))
    except GPTError:
        return False


def line(entry: Entry) -> str:
    words = f"step {entry['step']:6}  train {short(entry['train_loss'], 4)}  val {short(entry['val_loss'], 4)}"
    words += f"  {told(entry['val_perplexity'], entry['val_bits_per_byte'])}"
    return words + (f"  {entry['tokens_per_s']:,.0f} tokens/s" if entry["tokens_per_s"] else "")


def curve(directory: Path, entries: list[Entry]) -> str:
    curves = {name: [(entry["step"], entry[f"{name}_loss"]) for entry in entries] for name in ("train", "val")}
    return svg(f"{directory.resolve().name}: loss", curves, "step")
