"""Read and write TensorFlow's bundle: prefix.index, a table of protocol buffers, and prefix.data-*, raw tensors."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..errors import CheckpointError
from ..system.files import map_file, read_bytes
from . import table
from .crc32c import crc32c, mask
from .stored import Stored, numpy_dtype, packed, view

LARGEST_INDEX = 1 << 26
# TensorFlow's DataType
DTYPES = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 9: "int64", 10: "bool"}
DTYPES |= {14: "bfloat16", 17: "uint16", 19: "float16", 22: "uint32", 23: "uint64"}
NUMBERS = {dtype: number for number, dtype in DTYPES.items()}


class Entry(NamedTuple):
    """Describe a tensor in the index"""

    dtype: str
    shape: tuple[int, ...]
    file: str  # data-00000-of-00001
    offset: int
    size: int  # in bytes
    crc: int  # masked


def read(prefix: Path) -> dict[str, Stored]:
    """Return the tensors of prefix.index, mapped into memory"""
    entries = read_index(Path(f"{prefix}.index"))
    data = {file: map_file(Path(f"{prefix}.{file}")) for file in {entry.file for entry in entries.values()}}
    stored = {}
    for name, (dtype, shape, file, offset, size, crc) in entries.items():
        if offset + size > len(data[file]):
            raise CheckpointError(
                f"{prefix}.{file} has {len(data[file]):,} bytes, and the tensor {name} needs {offset + size:,}: "
                "the file was cut off; get it again."
            )
        stored[name] = Stored(name, dtype, shape, view(data[file], offset, dtype, shape), crc)
    return stored


def read_index(path: Path) -> dict[str, Entry]:
    """Return the index; raise CheckpointError if a size doesn't match its shape, or if tensors overlap"""
    content = read_bytes(path, LARGEST_INDEX)
    try:
        rows = list(table.items(content))
        if not rows or rows[0][0] != b"":
            raise ValueError("it has no header")
        shards = read_header(rows[0][1], len(rows))
        entries = {name: read_entry(name, value, shards) for name, value in ((printable(k), v) for k, v in rows[1:])}
        check_overlaps(entries)
    except ValueError as e:
        raise CheckpointError(
            f"{path} isn't an intact index of a TensorFlow checkpoint: {e}; get the file again."
        ) from None
    return entries


def printable(key: bytes) -> str:
    """Return a key as text; raise ValueError if it has control characters"""
    name = key.decode()
    if not name.isprintable():
        raise ValueError(f"{name[:40]!r} isn't a printable name of a tensor")
    return name


def read_header(message: bytes, rows: int) -> int:
    """Return the number of data files from BundleHeader = 1: that number, 2: endianness, 3: version"""
    header = record(message, shards=(1, int), endianness=(2, int))
    if header["endianness"]:
        raise ValueError("it was written on a big-endian machine")
    if not 0 < header["shards"] <= rows:  # each has a tensor
        raise ValueError(f"it lists {header['shards']} data files")
    return header["shards"]


def read_entry(name: str, message: bytes, shards: int) -> Entry:
    """Parse BundleEntry = 1: dtype, 2: shape, 3: shard, 4: offset, 5: size, 6: masked CRC-32C, 7: slices"""
    places = {"dtype": (1, int), "shape": (2, bytes), "shard": (3, int), "offset": (4, int), "size": (5, int)}
    entry = record(message, **places, crc=(6, int), slices=(7, bytes))
    dtype, shape = DTYPES.get(entry["dtype"]), read_shape(entry["shape"])
    if dtype is None:
        raise ValueError(f"the tensor {name} has TensorFlow's dtype {entry['dtype']}, which isn't supported")
    if entry["slices"]:
        raise ValueError(f"the tensor {name} is stored in slices, which aren't supported")
    if entry["shard"] >= shards:
        raise ValueError(f"the tensor {name} is in data file {entry['shard']} of {shards}")
    if entry["size"] != prod(shape) * numpy_dtype(dtype).itemsize:
        raise ValueError(f"the tensor {name} has {entry['size']} bytes, which isn't {dtype} of the shape {shape}")
    return Entry(dtype, shape, data_file(entry["shard"], shards), entry["offset"], entry["size"], entry["crc"])


def data_file(shard: int, shards: int) -> str:
    """Return the suffix of a data file"""
    return f"data-{shard:05}-of-{shards:05}"


def read_shape(message: bytes) -> tuple[int, ...]:
    """Parse TensorShape = 2: dimension, repeated        dimension = 1: size"""
    dims = [record(typed(dim, bytes), size=(1, int))["size"] for number, dim in fields(message) if number == 2]
    if len(dims) > 32 or prod(max(dim, 1) for dim in dims) >= 1 << 48:
        raise ValueError(f"{dims[:8]} ... can't be a shape")
    return tuple(dims)


def check_overlaps(entries: Mapping[str, Entry]) -> None:
    """Raise ValueError if two tensors share bytes, since writing to one would change the other"""
    rows = sorted((entry.file, entry.offset, entry.offset + entry.size, name) for name, entry in entries.items())
    for (file, _, end, name), (next_file, offset, _, next_name) in pairwise(rows):
        if file == next_file and offset < end:
            raise ValueError(f"the tensors {name} and {next_name} overlap")


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and value of each field of a protocol buffer: a tag, number << 3 | kind, then the value

    kind 0: a varint        1: eight bytes        2: a length as a varint, then the bytes        5: four bytes
    """
    at = 0
    while at < len(message):
        tag, at = table.varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = table.varint(message, at)
            yield number, value
        elif kind == 2:
            size, at = table.varint(message, at)
            yield number, table.take(message, at, size)
            at += size
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            yield number, int.from_bytes(table.take(message, at, size), "little")
            at += size
        else:
            raise ValueError(f"a field is of the unknown kind {kind}")


def record(message: bytes, **wanted: tuple[int, type]) -> dict[str, Any]:
    """Return the fields name=(number, type) of a protocol buffer, whose message leaves out 0 and empty values"""
    names = {number: (name, kind) for name, (number, kind) in wanted.items()}
    found = {name: kind() for name, kind in names.values()}
    for number, value in fields(message):
        if number in names:
            name, kind = names[number]
            found[name] = typed(value, kind)
    return found


def typed(value: Any, kind: type) -> Any:
    """Return a value; raise ValueError if it is of another type"""
    if not isinstance(value, kind):
        raise ValueError(f"{value!r} is in the place of {kind.__name__}")
    return value


def write(index: BinaryIO, data: BinaryIO, tensors: Mapping[str, np.ndarray], dtype: Any) -> None:
    """Write the tensors end to end in the order of their names, then their index"""
    entries, offset = {}, 0
    for name in in_order(tensors):
        a = packed(name, tensors[name], dtype)
        data.write(a.data)
        entries[name] = Entry(a.dtype.name, a.shape, data_file(0, 1), offset, a.nbytes, mask(crc32c(a)))
        offset += a.nbytes
    index.write(write_index(entries))


def write_index(entries: Mapping[str, Entry]) -> bytes:
    """Return the contents of the index for one data file"""
    header = write_field(1, 1) + write_field(3, write_field(1, 1))  # one data file, version 1; 0 is little-endian
    return table.pack([(b"", header), *((name.encode(), write_entry(entries[name])) for name in in_order(entries))])


def in_order(names: Iterable[str]) -> list[str]:
    """Return names in the order of their UTF-8 bytes"""
    return sorted(names, key=str.encode)


def write_entry(entry: Entry) -> bytes:
    """Return a BundleEntry"""
    shape = b"".join(write_field(2, write_field(1, size)) for size in entry.shape)
    crc = table.pack_varints(6 << 3 | 5) + entry.crc.to_bytes(4, "little")
    dtype, place = write_field(1, NUMBERS[entry.dtype]), write_field(4, entry.offset) + write_field(5, entry.size)
    return dtype + write_field(2, shape) + place + crc


def write_field(number: int, value: int | bytes) -> bytes:
    """Return a field of a protocol buffer, or no bytes for the number 0"""
    if isinstance(value, bytes):
        return table.pack_varints(number << 3 | 2, len(value)) + value
    return table.pack_varints(number << 3, value) if value else b""
