"""Compare the checksum of every tensor with the one in its file and with OpenAI's."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..config import RELEASED
from ..errors import CheckpointError
from ..fast.threads import shared
from .crc32c import crc32c, mask
from .openai import TABLE
from .stored import Contents, Stored, expand, floats


class Check(NamedTuple):
    """Hold the result of reading one tensor"""

    crc: int  # masked CRC-32C of its bytes in C order
    finite: bool  # no NaN, no infinity


def check(tensors: Mapping[str, Stored]) -> dict[str, Check]:
    """Return the check of every tensor, from all its bytes"""
    return dict(zip(tensors, shared().map(check_tensor, tensors.values()), strict=True))


def check_tensor(stored: Stored) -> Check:
    """Return the check of one tensor, from all its bytes"""
    finite = bool(np.isfinite(floats(stored, np.float64 if stored.dtype == "float64" else np.float32)).all())
    return Check(mask(crc32c(np.ascontiguousarray(stored.array))), finite)


def check_checksums(path: Path, tensors: Mapping[str, Stored], advice: str = "get the file again") -> None:
    """Raise CheckpointError if a tensor doesn't match the checksum in its file; skip files without checksums"""
    indexed = {name: stored for name, stored in tensors.items() if stored.crc is not None}
    compare_checksums(path, indexed, check(indexed), advice)


def compare_checksums(path: Path, tensors: Mapping[str, Stored], checks: Mapping[str, Check], advice: str) -> None:
    """Raise CheckpointError if a check doesn't match the checksum in the tensor's file"""
    for name, stored in tensors.items():
        if stored.crc not in (None, checks[name].crc):
            raise CheckpointError(
                f"{path}: the tensor {stored.name} is corrupt: its checksum is {checks[name].crc:08x}, and the file "
                f"contains {stored.crc:08x}; {advice}."
            )


def check_intact(
    path: Path, tensors: Mapping[str, Stored], checks: Mapping[str, Check], advice: str = "get the file again"
) -> None:
    """Raise CheckpointError if a tensor doesn't match the checksum in its file, or has a NaN or an infinity"""
    compare_checksums(path, tensors, checks, advice)
    for name, stored in tensors.items():
        if not checks[name].finite:
            raise CheckpointError(
                f"{path}: the tensor {stored.name} has a NaN or an infinity: load an earlier checkpoint."
            )


def released_checksums() -> dict[str, int]:
    """Return the checksums in the index of OpenAI's 124M, by our names of the tensors"""
    lines = Path(__file__).with_name("124M.crc32c").read_text().splitlines()
    checksums = {name: int(crc, 16) for crc, name in map(str.split, lines)}
    return {ours: checksums[theirs] for ours, (theirs, _) in expand(TABLE, RELEASED["124M"]).items()}


def first_different(contents: Contents, checks: Mapping[str, Check]) -> str | None:
    """Return the file's name of the first tensor that isn't bit-identical to OpenAI's 124M, or None"""
    different = (name for name, crc in released_checksums().items() if checks[name].crc != crc)
    return next((contents.tensors[name].name for name in different), None)
