"""Check the options of a command that trains: from its command line, a TOML file, or the run to resume."""

import math
import os
from collections.abc import Mapping, Set
from dataclasses import fields, replace
from typing import Any

from ..adamw import smallest_eps
from ..errors import CheckpointError, GPTError
from ..number import is_index, is_real

MINIMUM = {  # of whole numbers
    **dict.fromkeys(("n_layer", "n_head", "n_embd", "context", "batch_size", "accumulate", "steps", "epochs"), 1),
    **dict.fromkeys(("eval_every", "save_every"), 1),
    **dict.fromkeys(("warmup", "eval_batches", "sample_every", "seed", "lora"), 0),
}
LIMIT = {  # real numbers must be at least 0 and less than this
    **dict.fromkeys(("lr", "min_lr", "lora_alpha"), 1e30),  # lr times an update must be finite
    **dict.fromkeys(("eps", "weight_decay", "clip"), math.inf),
    **dict.fromkeys(("beta1", "beta2", "dropout"), 1),
}
FILES = ("data", "val_data")


def validated(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the fields of a dataclass of options, with absolute paths in lists of files

    Raises GPTError if a value is out of its range.
    """
    values = {field.name: values[field.name] for field in fields(kind) if field.name in values}
    for name, value in values.items():
        bits = 64 if name == "seed" else 31
        if name in MINIMUM and (not is_index(value) or not MINIMUM[name] <= value < 2**bits):
            raise GPTError(
                f"{flag(name)} is {value!r:.40}: it must be a whole number from {MINIMUM[name]} to 2**{bits} - 1."
            )
        if name in LIMIT and (not is_real(value) or not 0 <= value < LIMIT[name]):
            limit = "" if LIMIT[name] == math.inf else f" and less than {LIMIT[name]:g}"
            raise GPTError(f"{flag(name)} is {value!r}: it must be a finite number of at least 0{limit}.")
    lists = {name for name in FILES if not isinstance(values.get(name, ""), str)}
    return {name: tuple(map(absolute, value)) if name in lists else value for name, value in values.items()}


def stored_options(kind: type, stored: Mapping[str, Any]) -> Any:
    """Return the options of the run to resume, or raise CheckpointError"""
    names = {field.name for field in fields(kind)}
    if stored.keys() != names:
        name = min(stored.keys() ^ names)
        raise CheckpointError(
            f"the run to resume has {'no' if name in names else 'an unknown'} option {name}: start a new run."
        )
    try:
        return kind(**validated(kind, stored))
    except (GPTError, TypeError) as e:
        raise CheckpointError(f"the run to resume has an invalid option: {e}") from None


def resumed(s: Any, given: Mapping[str, Any], changeable: Set[str]) -> Any:
    """Return the options s of the run to resume with the given ones; raise GPTError if another than these differs"""
    if s.eps < smallest_eps("float32", s.beta2):
        changeable = changeable | {"eps"}  # adamw.step refuses the stored one
    for name, value in given.items():
        if value != getattr(s, name) and name not in changeable:
            raise GPTError(
                f"{flag(name)} {joined(value)} differs from {joined(getattr(s, name))}, with which the run was "
                "started: leave the option out, or start a new run."
            )
    return replace(s, **given)


def lowest_rate(min_lr: float | None, lr: float) -> float:
    """Return --min-lr, by default a tenth of --lr; raise GPTError if it is above --lr"""
    min_lr = lr / 10 if min_lr is None else min_lr
    if min_lr > lr:
        raise GPTError(f"--min-lr {min_lr} is above --lr {lr}: choose at most the highest learning rate.")
    return min_lr


def check_eps(eps: float, beta2: float, dtype: str) -> None:
    """Raise GPTError if --eps is too small for a dtype"""
    least = smallest_eps(dtype, beta2)
    if eps < least:
        raise GPTError(f"--eps {eps} is too small: in {dtype} it must be at least {least:.2g} to prevent 0/0.")


def absolute(path: str) -> str:
    """Return the absolute path; raise GPTError if the working directory was deleted"""
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise GPTError("the working directory was deleted: change to another one.") from None


def flag(name: str) -> str:
    """Return an option's name on the command line"""
    return "--" + name.replace("_", "-")


def joined(value: Any) -> str:
    """Return a value in the form of the command line, with spaces between several files"""
    return " ".join(value) if isinstance(value, tuple) else str(value)
