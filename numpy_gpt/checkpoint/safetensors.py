"""Read and write safetensors files: the length of the header as uint64, the header, and the tensors without a gap.

The header is JSON:

    {"__metadata__": {text: text}, name: {"dtype": "F32", "shape": [...], "data_offsets": [start, end]}, ...}
"""

import json
import re
from collections.abc import Collection, Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..errors import CheckpointError
from ..fast.threads import shared
from ..system.files import GET_AGAIN, map_file, parse_json
from .crc32c import crc32c, mask
from .stored import Stored, numpy_dtype, packed, view

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"}
DTYPES |= {f"{kind}{bits}": f"{name}{bits}" for kind, name in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)}
CODES = {dtype: code for code, dtype in DTYPES.items()}
LARGEST_HEADER = 10_000_000  # 100 times that of the 1558M
CHECKSUMS = "numpy_gpt.crc32c"  # a key of the metadata; its value is {name: masked CRC-32C in hex} as JSON


class Entry(NamedTuple):
    """Describe a tensor in the header"""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read(path: Path, advice: str = GET_AGAIN) -> tuple[dict[str, str], dict[str, Stored]]:
    """Return the metadata and the tensors, mapped into memory; an error's message ends with the advice"""
    data = map_file(path)
    length = int.from_bytes(data[:8].tobytes(), "little")
    if len(data) < 8 or length > min(LARGEST_HEADER, len(data) - 8):
        raise CheckpointError(f"{path} isn't a safetensors file, or was cut off in its header: {advice}.")
    header = parse_json(path, data[8 : 8 + length].tobytes(), advice)
    data = data[8 + length :]
    try:
        metadata = read_metadata(header.pop("__metadata__", {}))
        entries = {name: read_entry(name, entry) for name, entry in header.items()}
        check_places(entries, len(data))
        crcs = read_checksums(path, metadata, entries, advice)
    except CheckpointError:
        raise
    except ValueError as e:
        raise CheckpointError(f"{path} isn't an intact safetensors file: {e}; {advice}.") from None
    stored = {
        name: Stored(name, dtype, shape, view(data, start, dtype, shape), crcs.get(name))
        for name, (dtype, shape, start, _) in entries.items()
    }
    return metadata, stored


def read_metadata(metadata: Any) -> dict[str, str]:
    """Return the metadata; raise ValueError if it isn't a mapping of texts"""
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("its metadata isn't text")
    return metadata


def read_checksums(path: Path, metadata: Mapping[str, str], names: Collection[str], advice: str) -> dict[str, int]:
    """Return the checksum of each tensor, or an empty dictionary if the metadata has none"""
    if CHECKSUMS not in metadata:
        return {}
    crcs = parse_json(path, metadata[CHECKSUMS].encode(errors="surrogatepass"), advice)
    if crcs.keys() != set(names):
        raise ValueError("its checksums don't belong to its tensors")
    for name, crc in crcs.items():
        if not isinstance(crc, str) or not re.fullmatch("[0-9a-f]{8}", crc):
            raise ValueError(f"the checksum {crc!r:.40} of the tensor {name} isn't 8 hexadecimal digits")
    return {name: int(crc, 16) for name, crc in crcs.items()}


def read_entry(name: str, entry: Any) -> Entry:
    """Return a tensor's entry; raise ValueError if it is invalid"""
    if not name.isprintable():
        raise ValueError(f"{name[:40]!r} isn't a printable name of a tensor")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the tensor {name} isn't described by dtype, shape and data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise ValueError(f"the tensor {name} has the dtype {code!r}, which isn't supported")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 1 << 63 for n in numbers):
            raise ValueError(f"the tensor {name} has {numbers!r} instead of whole numbers")
    if len(offsets) != 2 or len(shape) > 32 or prod(max(n, 1) for n in shape) >= 1 << 48:
        raise ValueError(f"the tensor {name} can't have the shape {shape} and the place {offsets}")
    start, end = offsets
    if end - start != prod(shape) * numpy_dtype(DTYPES[code]).itemsize:
        raise ValueError(f"the tensor {name} has {end - start} bytes, which isn't {code} of the shape {shape}")
    return Entry(DTYPES[code], tuple(shape), start, end)


def check_places(entries: Mapping[str, Entry], size: int) -> None:
    """Raise ValueError unless every byte of the data belongs to exactly one tensor"""
    last = 0
    for start, end, name in sorted((entry.start, entry.end, name) for name, entry in entries.items()):
        if start != last:
            raise ValueError(
                f"the tensor {name} starts at byte {start} of the data, and the one before it ends at {last}"
            )
        last = end
    if last != size:
        raise ValueError(f"its tensors have {last} bytes and its data {size}")


def checksums(tensors: Mapping[str, np.ndarray], dtype: Any) -> str:
    """Return the value of CHECKSUMS for tensors that are written in a dtype"""
    crcs = shared().map(lambda name: mask(crc32c(packed(name, tensors[name], dtype))), tensors)
    return json.dumps({name: f"{crc:08x}" for name, crc in zip(tensors, crcs, strict=True)})


def write(f: BinaryIO, tensors: Mapping[str, np.ndarray], dtype: Any, metadata: Mapping[str, str]) -> None:
    """Write tensors in a dtype, one after the other"""
    header: dict[str, Any] = {"__metadata__": metadata}
    code, itemsize, start = CODES[np.dtype(dtype).name], np.dtype(dtype).itemsize, 0
    for name, a in tensors.items():
        end = start + a.size * itemsize
        header[name] = {"dtype": code, "shape": a.shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors are aligned
    f.write(len(text).to_bytes(8, "little") + text)
    for name, a in tensors.items():
        f.write(packed(name, a, dtype).data)
