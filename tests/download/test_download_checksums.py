"""Test that files are verified, and that corrupt bytes are requested again."""

import json
from hashlib import sha256

import pytest
from sources import CORRUPT, contents, flip

from numpy_gpt import RELEASED, CheckpointError
from numpy_gpt.checkpoint import bundle, hub
from numpy_gpt.checkpoint.hub import DATA, INDEX
from numpy_gpt.download.fetch import download


def test_expected_sizes_and_checksums_are_those_that_were_published(data):
    # gpt2_golden.json contains the published values, with their sources
    published = json.loads((data / "gpt2_golden.json").read_text())["checkpoint_files"]
    compared = 0
    for size in ("124M", "355M"):
        for file, nbytes in hub.sizes(size).items():
            assert published[size]["size"].get(file, nbytes) == nbytes
            digest = hub.INDEX_SHA256[size] if file == INDEX else hub.SAME.get(file, (0, None))[1]
            assert digest in (None, published[size]["sha256"].get(file, digest))
            compared += (file in published[size]["size"]) + (digest is not None)
    assert compared == 4 + 2 + 3 + 3
    assert [hub.sizes(size)[DATA] for size in RELEASED] == [497759232, 1419292672, 3096120320, 6230444800]


def test_corrupt_files_are_replaced_from_the_first_corrupt_byte_on(server, files, corrupt_at, tmp_path):
    place = download("124M", tmp_path)
    server.requests.clear()
    (place / DATA).write_bytes(flip(files[DATA], corrupt_at + 7))
    (place / "vocab.bpe").write_bytes(bytes(len(files["vocab.bpe"])))
    assert contents(download("124M", tmp_path)) == files
    assert [(request.file, request.start) for request in server.requests] == [("vocab.bpe", 0), (DATA, corrupt_at)]


def test_flipped_bit_is_replaced_from_its_tensor_on(server, files, corrupt_at, tmp_path, capsys):
    server.files["one"][DATA] = flip(files[DATA], corrupt_at + 7)
    assert contents(download("124M", tmp_path)) == files
    assert server.requested() == [("one", 0), ("two", corrupt_at)]
    assert f"the tensor {CORRUPT} of {DATA} doesn't have its checksum" in capsys.readouterr().err


def test_two_sources_with_different_corrupt_tensors_give_intact_weights(server, files, corrupt_at, tmp_path):
    server.files["one"][DATA] = flip(files[DATA], corrupt_at)
    server.files["two"][DATA] = flip(files[DATA], corrupt_at - 1)
    assert contents(download("124M", tmp_path)) == files
    assert server.requested() == [("one", 0), ("two", corrupt_at)]


def test_weights_corrupt_at_every_source_stay_a_part(server, files, corrupt_at, tmp_path):
    for source in ("one", "two"):
        server.files[source][DATA] = flip(files[DATA], corrupt_at)
    with pytest.raises(CheckpointError, match=f"{DATA} of the 124M .*the tensor {CORRUPT} .* by hand"):
        download("124M", tmp_path)
    place = tmp_path / "124M"
    assert not (place / DATA).exists()
    assert (place / f"{DATA}.part").read_bytes() == files[DATA][:corrupt_at]


def with_swapped_offsets(files, tmp_path):
    """Return an index in which two tensors of the same size have each other's offset"""
    path = tmp_path / "swapped"
    path.write_bytes(files[INDEX])
    entries = bundle.read_index(path)
    a, b = (f"model/h0/ln_1/{leaf}" for leaf in "bg")
    entries[a], entries[b] = (
        entries[a]._replace(offset=entries[b].offset),
        entries[b]._replace(offset=entries[a].offset),
    )
    return bundle.write_index(entries)


WRONG = {
    "garbage instead of an index": (INDEX, lambda files, tmp_path: b"x" * len(files[INDEX])),
    "a flipped bit in the index": (INDEX, lambda files, tmp_path: flip(files[INDEX], 100)),
    "swapped offsets in the index": (INDEX, with_swapped_offsets),
    "another vocabulary": ("encoder.json", lambda files, tmp_path: flip(files["encoder.json"], 2)),
    "other merges": ("vocab.bpe", lambda files, tmp_path: flip(files["vocab.bpe"], 2)),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_file_of_the_right_size_is_requested_from_the_next_source(server, files, tmp_path, kind):
    file, wrong = WRONG[kind]
    content = wrong(files, tmp_path)
    assert len(content) == len(files[file])
    server.files["one"][file] = content
    assert contents(download("124M", tmp_path)) == files
    assert server.requested(file) == [("one", 0), ("two", 0)]
    server.files["two"][file] = content
    message = f"{file} is not the released one"
    with pytest.raises(CheckpointError, match=f"no source provides {file} of the 124M .*{message}"):
        download("124M", tmp_path / "again")
    assert not (tmp_path / "again" / "124M" / file).exists()


def test_index_without_its_published_checksum_is_refused(server, files, tmp_path, monkeypatch):
    monkeypatch.setitem(hub.INDEX_SHA256, "124M", sha256(files[INDEX]).hexdigest())
    path = tmp_path / INDEX
    path.write_bytes(files[INDEX])
    entries = bundle.read_index(path)
    server.files["one"][INDEX] = bundle.write_index(entries | {CORRUPT: entries[CORRUPT]._replace(crc=1)})
    assert contents(download("124M", tmp_path)) == files
    assert server.requested(INDEX) == [("one", 0), ("two", 0)]


def test_corrupt_index_is_replaced_before_the_weights_are_verified(server, files, tmp_path):
    (tmp_path / "124M").mkdir()
    (tmp_path / "124M" / INDEX).write_bytes(flip(files[INDEX], 100))
    assert contents(download("124M", tmp_path)) == files
