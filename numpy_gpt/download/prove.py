"""Verify the files of a released model: sizes, SHA-256, and a checksum of every tensor."""

from hashlib import sha256
from pathlib import Path

from ..checkpoint import bundle, openai
from ..checkpoint.crc32c import crc32c, mask
from ..checkpoint.hub import DATA, INDEX, INDEX_SHA256, SAME
from ..config import RELEASED
from ..errors import CheckpointError
from ..fast.threads import shared
from ..system.files import map_file


def first_corruption(path: Path, size: str, file: str) -> tuple[int, str] | None:
    """Return the offset of the first corrupt tensor, or 0 for a small file, and the reason; None if all is intact"""
    if file == DATA:
        return first_corrupt_tensor(path, bundle.read_index(path.with_name(INDEX)))
    return None if is_released(path, size, file) else (0, f"{file} is not the released one")


def first_corrupt_tensor(data: Path, entries: dict[str, bundle.Entry]) -> tuple[int, str] | None:
    """Return the offset of the first tensor whose checksum isn't the one in its index entry, and the reason"""
    content = map_file(data)
    crcs = shared().map(crc32c, (content[entry.offset :][: entry.size] for entry in entries.values()))
    for (name, entry), crc in zip(entries.items(), crcs, strict=True):  # names and offsets have the same order
        if mask(crc) != entry.crc:
            return entry.offset, f"the tensor {name} of {DATA} doesn't have its checksum"
    return None


def is_released(path: Path, size: str, file: str) -> bool:
    """Return whether a small file has its SHA-256, or its tensors for an index whose SHA-256 was never published"""
    digest = INDEX_SHA256.get(size) if file == INDEX else SAME[file][1]
    if digest:
        return sha256(path.read_bytes()).hexdigest() == digest
    try:
        found = bundle.read_index(path)
    except CheckpointError:
        return False
    return {name: entry._replace(crc=0) for name, entry in found.items()} == openai.entries(RELEASED[size])
