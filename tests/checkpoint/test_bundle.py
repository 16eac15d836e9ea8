"""Is TensorFlow's bundle read and written as by TensorFlow, and is every invalid index refused?"""

import json
from hashlib import sha256

import numpy as np
import pytest

from numpy_gpt import RELEASED, CheckpointError
from numpy_gpt.checkpoint import bundle, openai, table
from numpy_gpt.checkpoint.crc32c import crc32c, mask

HEADER = bytes.fromhex("08011a020801")  # that of the released file
ENTRY = bundle.Entry("float32", (2, 3), "data-00000-of-00001", 0, 24, 1)


def test_read_index_of_the_released_file_matches_tensorflow(data):
    entries = bundle.read_index(data / "openai-124M" / "model.ckpt.index")
    parsed = json.loads((data / "openai-124M" / "index_parsed.json").read_text())
    assert list(entries) == list(parsed)
    for name, (dtype, shape, file, offset, size, crc) in entries.items():
        entry = {"dtype": dtype, "shape": list(shape), "offset": offset, "size": size, "masked_crc32c": crc}
        assert entry == parsed[name]
        assert file == "data-00000-of-00001"


def test_write_index_reproduces_the_released_file(data):
    path = data / "openai-124M" / "model.ckpt.index"
    written = bundle.write_index(bundle.read_index(path))
    assert written == path.read_bytes()
    assert len(written) == 5215


def test_crc32c_of_released_tensors_matches_the_index(data):
    entries = bundle.read_index(data / "openai-124M" / "model.ckpt.index")
    for file in ("small", "attn_h0"):
        with np.load(data / "gpt2-124M-partial" / f"{file}.npz") as tensors:
            assert len(tensors) > 1
            for name, a in tensors.items():
                assert (a.shape, mask(crc32c(a))) == (entries[name].shape, entries[name].crc)


def test_entries_of_a_released_config_match_its_index(data):
    released = bundle.read_index(data / "openai-124M" / "model.ckpt.index")
    assert {name: entry._replace(crc=0) for name, entry in released.items()} == openai.entries(RELEASED["124M"])
    assert len(bundle.write_index(openai.entries(RELEASED["355M"]))) == 10399


def test_read_of_a_truncated_data_file_raises(data, tmp_path):
    """Read the first 3 MB of the released data file"""
    for directory, name in (("openai-124M", "index"), ("openai-124M-truncated", "data-00000-of-00001")):
        (tmp_path / f"model.ckpt.{name}").symlink_to(data / directory / f"model.ckpt.{name}")
    with pytest.raises(
        CheckpointError, match=r"data-00000-of-00001 has 3,145,728 bytes, and the tensor model/h0/attn/c_attn/w"
    ):
        bundle.read(tmp_path / "model.ckpt")


DTYPES = ("float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "bool")


def random_tensor(i):
    rng = np.random.default_rng(i)
    return rng.integers(0, 100, rng.integers(0, 4, i % 4)).astype(DTYPES[i % len(DTYPES)])


@pytest.mark.slow
def test_read_of_tensorflows_file_returns_its_tensors(tf, tmp_path):
    """Read 1,500 variables of nine dtypes and four ranks, some of them empty, in several blocks"""
    tensors = {f"{sha256(str(i).encode()).hexdigest() * 3}/{i}": random_tensor(i) for i in range(1500)}
    save(tf, tensors, tmp_path)
    index = (tmp_path / "model.index").read_bytes()
    *_, at = table.handle(index, len(index) - table.FOOTER)
    assert len(list(table.block(index, *table.handle(index, at)[:2]))) > 1
    found = bundle.read(tmp_path / "model")
    assert found.keys() == tensors.keys()
    for name, stored in found.items():
        assert stored.dtype == tensors[name].dtype.name
        np.testing.assert_array_equal(stored.array, tensors[name], strict=True)
        assert stored.crc == mask(crc32c(np.ascontiguousarray(stored.array)))


def save(tf, tensors, directory):
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        variables = {name: v1.Variable(a) for name, a in tensors.items()}
        session.run(v1.global_variables_initializer())
        v1.train.Saver(variables).save(session, str(directory / "model"), write_meta_graph=False)


def test_read_of_several_data_files_returns_all_tensors(tf, tmp_path):
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        tensors = [tf.constant([float(i)]) for i in range(3)]
        parts = [f"{tmp_path}/part{i}" for i in range(3)]
        saves = [
            tf.raw_ops.SaveV2(prefix=p, tensor_names=[p[-1]], shape_and_slices=[""], tensors=[t])
            for p, t in zip(parts, tensors, strict=True)
        ]
        session.run(saves)
        session.run(tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=f"{tmp_path}/all"))
    assert len(list(tmp_path.glob("all.data-*-of-00003"))) == 3
    assert {name: stored.array.tolist() for name, stored in bundle.read(tmp_path / "all").items()} == {
        "0": [0.0],
        "1": [1.0],
        "2": [2.0],
    }


def test_tensorflow_reads_a_written_bundle(tf, tmp_path):
    tensors = {f"name/{i}": random_tensor(4 * i + 3).astype(np.float32) for i in range(40)}
    with open(tmp_path / "m.index", "wb") as index, open(tmp_path / "m.data-00000-of-00001", "wb") as file:
        bundle.write(index, file, tensors, np.float32)
    reader = tf.train.load_checkpoint(str(tmp_path / "m"))
    assert reader.get_variable_to_shape_map() == {name: list(a.shape) for name, a in tensors.items()}
    for name, a in tensors.items():
        np.testing.assert_array_equal(reader.get_tensor(name), a, strict=True)


def test_read_index_returns_written_entries(tmp_path):
    empty = ENTRY._replace(offset=28, shape=(0, 5), size=0)
    entries = {"b": ENTRY, "a": ENTRY._replace(offset=24, shape=(), size=4), "ü": empty}
    path = tmp_path / "m.index"
    path.write_bytes(bundle.write_index(entries))
    assert bundle.read_index(path) == entries
    assert list(bundle.read_index(path)) == ["a", "b", "ü"]


def index(*rows, header=HEADER):
    return table.pack([(b"", header), *rows])


def one(**changed):
    """Return an index of the tensor t with changed values"""
    return bundle.write_index({"t": ENTRY._replace(**changed)})


GOOD, field = one(), bundle.write_field


def compressed(data):
    """Return a table whose data block has the type byte of snappy and a valid checksum"""
    *_, at = table.handle(data, len(data) - table.FOOTER)
    ((_, value),) = table.block(data, *table.handle(data, at)[:2])
    _, size, _ = table.handle(value, 0)
    body = data[:size] + b"\1"
    return body + mask(crc32c(body)).to_bytes(4, "little") + data[size + 5 :]


def footed(data, *numbers):
    """Return a table with another footer, which contains the offsets and sizes of metaindex and index"""
    return data[: -table.FOOTER] + table.pack_varints(*numbers).ljust(40, b"\0") + table.MAGIC


def again(name, n):
    """Return a table whose index block names one data block n times"""
    data = table.stored_block([], table.RESTART) + bytes(100)
    rows = [(name + b"%06d" % i, table.pack_varints(0, 8)) for i in range(n)]
    blocks = table.stored_block(rows, table.RESTART)
    footer = table.pack_varints(0, 8, len(data), len(blocks) - 5).ljust(40, b"\0") + table.MAGIC
    return data + blocks + footer


SHAPE, SIX = field(2, field(2, field(1, 6))), field(5, 24)
HOSTILE = {
    "an empty file": (b"", "its last bytes aren't a table's footer"),
    "no table": (b"hello " * 100, "its last bytes aren't a table's footer"),
    "the first half": (GOOD[: len(GOOD) // 2], "its last bytes aren't a table's footer"),
    "a flipped bit": (GOOD[:9] + bytes([GOOD[9] ^ 4]) + GOOD[10:], "checksum of the block at byte 0 doesn't match"),
    "a compressed block": (compressed(GOOD), "the block at byte 0 is compressed"),
    "an index block beyond the end": (footed(GOOD, 0, 8, len(GOOD), 20), "bytes at byte"),
    "an index block of 2^63 bytes": (footed(GOOD, 0, 8, 0, 1 << 63), "bytes at byte"),
    "a footer without an end": (GOOD[: -table.FOOTER] + b"\xff" * 40 + table.MAGIC, "has no end"),
    "an index block that is a data block": (footed(GOOD, 0, 8, *table.handle(GOOD, 0)[:2]), "bytes at byte|checksum"),
    "no header": (table.pack([(b"t", bundle.write_entry(ENTRY))]), "it has no header"),
    "a header of a big-endian machine": (index(header=field(1, 1) + field(2, 1)), "big-endian"),
    "a million data files": (index(header=field(1, 10**6)), "it lists 1000000 data files"),
    "no data file": (index(header=b""), "it lists 0 data files"),
    "a name twice": (index((b"t", b""), (b"t", b"")), "the key b't' comes after b't'"),
    "names out of order": (index((b"u", bundle.write_entry(ENTRY)), (b"t", b"")), "the key b't' comes after b'u'"),
    "a name that isn't text": (index((b"\xff", bundle.write_entry(ENTRY))), "can't decode"),
    "a name of control characters": (
        index((b"\x1b[2J", bundle.write_entry(ENTRY))),
        "isn't a printable name of a tensor",
    ),
    "one block again and again": (again(b"", 200_000), "its blocks have more bytes than the file"),
    "a number that never ends": (index((b"t", b"\x08" + b"\x80" * 50)), "a number at byte 1 has no end"),
    "a number of 70 bits": (index((b"t", b"\x20" + b"\xff" * 9 + b"\x7f")), "a number at byte 1 has no end"),
    "a field that never ends": (index((b"t", field(2, b"abc")[:-1])), "3 bytes at byte 2 exceed the 4"),
    "a field of an unknown kind": (index((b"t", b"\x0b")), "a field is of the unknown kind 3"),
    "text for a number": (index((b"t", field(4, b"abc"))), "b'abc' is in the place of int"),
    "a number for a shape": (index((b"t", field(2, 7))), "7 is in the place of bytes"),
    "a number for a dimension": (index((b"t", field(1, 1) + field(2, field(2, 7)))), "7 is in the place of bytes"),
    "a dtype that isn't there": (index((b"t", field(1, 99) + SHAPE + SIX)), "the tensor t has TensorFlow's dtype 99"),
    "strings": (index((b"t", field(1, 7) + SHAPE + SIX)), "the tensor t has TensorFlow's dtype 7"),
    "slices": (index((b"t", field(1, 1) + SHAPE + SIX + field(7, b"x"))), "the tensor t is stored in slices"),
    "another data file": (
        index((b"t", field(1, 1) + SHAPE + SIX + field(3, 1))),
        "the tensor t is in data file 1 of 1",
    ),
    "a size that isn't the shape's": (one(size=20), "the tensor t has 20 bytes, which isn't float32"),
    "a shape that isn't the size's": (one(shape=(2, 4)), "the tensor t has 24 bytes, which isn't float32"),
    "a dtype that isn't the size's": (one(dtype="float64"), "the tensor t has 24 bytes, which isn't float64"),
    "a dimension of 2^63": (one(shape=(1 << 63,)), "can't be a shape"),
    "an empty shape of 2^100": (one(shape=(0, 1 << 50, 1 << 50), size=0), "can't be a shape"),
    "1,000 dimensions": (one(shape=(1,) * 1000, size=4), "can't be a shape"),
    "tensors in one place": (
        bundle.write_index({"t": ENTRY, "u": ENTRY._replace(offset=20)}),
        "the tensors t and u overlap",
    ),
    "names that take no room in the file": (
        table.pack([(b"", HEADER), *((b"x" * 50_000 + b"%03d" % i, b"") for i in range(400))]),
        "the names of the block at byte 0 have more than",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_read_index_refuses_an_invalid_index(case, tmp_path):
    content, message = HOSTILE[case]
    path = tmp_path / "m.index"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        bundle.read_index(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("offset", [1, 1 << 40, (1 << 64) - 8])
def test_read_refuses_a_tensor_beyond_the_data(offset, tmp_path):
    (tmp_path / "m.index").write_bytes(one(offset=offset))
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(24))
    with pytest.raises(CheckpointError, match="the tensor t needs"):
        bundle.read(tmp_path / "m")
