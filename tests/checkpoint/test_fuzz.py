"""Does a checkpoint with changed files load, or raise an error that names the file?"""

import json
import re
import tracemalloc

import numpy as np
import pytest

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis isn't installed: pip install -e '.[test]'")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from numpy_gpt import CheckpointError, load, named, save  # noqa: E402
from numpy_gpt.checkpoint import bundle, table  # noqa: E402
from parity.inputs import TINY, random_model  # noqa: E402

many = settings(max_examples=500, deadline=None, derandomize=True, database=None)
FILES = {
    "checkpoint": "openai",
    "hparams.json": "openai",
    "model.ckpt.index": "openai",
    "model.ckpt.data-00000-of-00001": "openai",
    "config.json": "huggingface",
    "model.safetensors": "huggingface",
    "m.bin": "llmc-v3",
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    directory = tmp_path_factory.mktemp("fuzz")
    m = random_model(TINY)
    save(m, directory / "openai", "openai")
    save(m, directory / "huggingface", "huggingface")
    save(m, directory / "llmc-v3" / "m.bin")
    return directory


NUMBERS = (0, 1, 255, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
position = st.floats(0, 1, exclude_max=True)
changes = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), position, st.integers(0, 7)),
        st.tuples(st.just("cut"), position, st.just(0)),
        st.tuples(st.just("insert"), position, st.binary(min_size=1, max_size=9)),
        st.tuples(st.just("delete"), position, st.integers(1, 40)),
        st.tuples(st.just("number"), position, st.sampled_from(NUMBERS)),
        st.tuples(st.just("repeat"), position, st.integers(1, 40)),
    ),
    min_size=1,
    max_size=4,
)


def changed(data, change):
    data = bytearray(data)
    for kind, place, value in change:
        at = int(place * len(data))
        if kind == "flip" and data:
            data[at] ^= 1 << value
        elif kind == "cut":
            del data[at:]
        elif kind == "insert":
            data[at:at] = value
        elif kind == "delete":
            del data[at : at + value]
        elif kind == "number":
            data[at : at + 8] = value.to_bytes(8, "little")
        elif kind == "repeat":
            data[at:at] = data[at : at + value]
    return bytes(data)


def result(read, path):
    """Return read(path), or None if it raises a CheckpointError that names the path"""
    try:
        return read(path)
    except CheckpointError as e:
        message = str(e)
    assert str(path) in message
    return None


def loads(path):
    """Return whether a path loads; check that the model is complete then"""
    m = result(load, path)
    assert m is None or sum(a.size for _, a in named(m.params)) == m.config.num_parameters()
    return m is not None


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_load_of_a_changed_file_succeeds_or_names_it(file, places):
    """Change the first or last 4,000 bytes, which describe the tensors"""
    place = places / FILES[file]
    path = place / file
    content = path.read_bytes()
    target = path if file == "m.bin" else place

    @many
    @given(changes, st.booleans())
    def fuzz(change, at_start):
        head, tail = (content[:4000], content[4000:]) if at_start else (content[:-4000], content[-4000:])
        path.write_bytes(changed(head, change) + tail if at_start else head + changed(tail, change))
        loads(target)

    try:
        fuzz()
    finally:
        path.write_bytes(content)
    assert loads(target)


@pytest.mark.slow
def test_load_of_changed_index_entries_with_valid_checksums(places):
    """Write valid checksums of the blocks, which would detect the changes of the test above"""
    directory = places / "openai"
    path = directory / "model.ckpt.index"
    content = path.read_bytes()
    rows = list(table.items(content))

    @many
    @given(st.integers(0, len(rows) - 1), changes, st.booleans())
    def fuzz(row, change, in_name):
        name, entry = rows[row]
        new = (changed(name, change), entry) if in_name else (name, changed(entry, change))
        path.write_bytes(table.pack([*rows[:row], new, *rows[row + 1 :]]))
        loads(directory)

    try:
        fuzz()
    finally:
        path.write_bytes(content)


def test_read_index_of_the_changed_released_index(data, tmp_path):
    path = tmp_path / "model.ckpt.index"
    content = (data / "openai-124M" / "model.ckpt.index").read_bytes()

    @many
    @given(changes)
    def fuzz(change):
        path.write_bytes(changed(content, change))
        entries = result(bundle.read_index, path)
        assert entries is None or bundle.write_index(entries) == content  # changed bytes that aren't read

    fuzz()


BOMBS = {
    "a header of 2^63 bytes": ((1 << 63).to_bytes(8, "little") + b"{}", "isn't a safetensors file"),
    "a header longer than the file": ((100).to_bytes(8, "little") + b"{}", "isn't a safetensors file"),
    "three bytes": (b"abc", "isn't a safetensors file"),
    "brackets in brackets": ("[" * 1_000_000, "isn't valid JSON"),
    "a list": ("[1]", "contains a list instead of an object"),
    "a number": ({"wte.weight": 7}, "the tensor wte.weight isn't described"),
    "a name twice": ('{"a":{},"a":{}}', "isn't valid JSON .a name occurs twice"),
    "a dtype that isn't one": ({"t": ["F31", [1], [0, 4]]}, "the tensor t has the dtype 'F31'"),
    "a dtype that is a list": ({"t": [["F32"], [1], [0, 4]]}, "the tensor t has the dtype"),
    "a shape of 2^63": ({"t": ["F32", [1 << 63], [0, 4]]}, "the tensor t has .* instead of whole numbers"),
    "a shape of 2^62 twice": ({"t": ["F32", [1 << 62, 1 << 62], [0, 4]]}, "the tensor t can't have the shape"),
    "an empty shape of 2^62": ({"t": ["F32", [0, 1 << 62], [0, 0]]}, "the tensor t can't have the shape"),
    "a negative shape": ({"t": ["F32", [-1], [0, 4]]}, "the tensor t has .* instead of whole numbers"),
    "a shape of true": ({"t": ["F32", [True], [0, 4]]}, "the tensor t has .* instead of whole numbers"),
    "offsets of 2^62": (
        {"t": ["F32", [1], [1 << 62, (1 << 62) + 4]]},
        "the tensor t starts at byte 4611686018427387904",
    ),
    "an end before the start": ({"t": ["F32", [1], [8, 4]]}, "the tensor t has -4 bytes"),
    "one offset": ({"t": ["F32", [1], [0]]}, "the tensor t can't have the shape"),
    "an overlap": ({"t": ["F32", [1], [0, 4]], "u": ["F32", [1], [0, 4]]}, "u starts at byte 0 .* ends at 4"),
    "a gap": ({"t": ["F32", [1], [0, 4]], "u": ["F32", [1], [8, 12]]}, "u starts at byte 8 .* ends at 4"),
    "bytes of no tensor": ({"t": ["F32", [1], [0, 4]]}, "its tensors have 4 bytes and its data 12"),
    "bytes that are missing": ({"t": ["F32", [4], [0, 16]]}, "its tensors have 16 bytes and its data 12"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, "its metadata isn't text"),
    "a config that isn't one": (
        {"__metadata__": {"numpy_gpt.hparams": "{"}, "t": ["F32", [3], [0, 12]]},
        "isn't valid JSON",
    ),
    "a config of half a character": (
        {"__metadata__": {"numpy_gpt.hparams": "\ud800"}, "t": ["F32", [3], [0, 12]]},
        "isn't valid JSON",
    ),
    "a name of control characters": ({"\x1b[2J": ["F32", [3], [0, 12]]}, "isn't a printable name of a tensor"),
    "no tensors": ({"t": ["F32", [3], [0, 12]]}, "doesn't contain the number of heads"),
}


def safetensors(header):
    if isinstance(header, bytes):
        return header
    if isinstance(header, dict):
        keys = ("dtype", "shape", "data_offsets")
        rows = {
            name: dict(zip(keys, row, strict=True)) if isinstance(row, list) else row for name, row in header.items()
        }
        header = json.dumps(rows)
    return len(header).to_bytes(8, "little") + header.encode() + bytes(12)


def refusal(path):
    """Return the message of the error that load raises, and the peak of its memory"""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as error:
            load(path)
        return str(error.value), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", BOMBS)
def test_load_refuses_an_invalid_safetensors_file_in_little_memory(case, tmp_path):
    header, pattern = BOMBS[case]
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors(header))
    message, peak = refusal(path)
    assert str(path) in message
    assert re.search(pattern, message)
    assert peak < 1 << 23


HEADERS = {
    "another magic": ([20240327, 3], "it starts with 20240327, not 20240326"),
    "a version to come": ([20240326, 4], "has version 4 of llm.c's format"),
    "2^31 layers": ([20240326, 3, 11, 61, (1 << 31) - 1, 3, 48, 128], "has 2147483647 layers"),
    "the largest of everything": ([20240326, 3, *[(1 << 31) - 1] * 6], "has 2147483647 layers"),
    "many layers of one number": ([20240326, 1, 1, 1, 100_000, 1, 1], "has 100000 layers"),
    "negative sizes": ([20240326, 3, 11, -61, 2, 3, 48, 128], "n_vocab is -61"),
    "no sizes": ([20240326, 1], "n_vocab is 0"),
    "heads that don't fit": ([20240326, 1, 11, 61, 2, 5, 48], "n_embd 48 is not divisible by n_head 5"),
    "less padding than vocabulary": ([20240326, 3, 11, 61, 2, 3, 48, 60], "bytes, and .* by its header"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_load_refuses_an_invalid_llmc_header_in_little_memory(case, tmp_path):
    numbers, pattern = HEADERS[case]
    path = tmp_path / "m.bin"
    path.write_bytes(np.array(numbers + [0] * (256 - len(numbers)), "<i4").tobytes() + bytes(4 * 60_000))
    message, peak = refusal(path)
    assert str(path) in message
    assert re.search(pattern, message)
    assert peak < 1 << 23
