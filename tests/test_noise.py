"""Is the generator Philox4x32-10, and does a stream depend only on its name?"""

import pickle

import numpy as np
import pytest

from numpy_gpt import GPTError, Noise
from numpy_gpt.noise import COUNTERS, philox

ONES = 2**32 - 1
KNOWN = [  # (counter, key, output), published by the authors of Philox
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_philox_equals_the_published_known_answers(counter, key, output):
    assert philox(counter, key).tolist() == list(output)
    many = philox((np.full(3, counter[0], np.uint32), *counter[1:]), key)
    assert many.tolist() == [list(output)] * 3


def test_bytes_are_the_words_of_philox_lowest_byte_first():
    noise = Noise(seed=2**32 * 7 + 5, step=11, sequence=13, site=17)
    words = philox((np.arange(3, dtype=np.uint32), 11, 14, 18), (5, 7))
    expected = [word >> 8 * byte & 255 for word in words.ravel().tolist() for byte in range(4)]
    assert noise.bytes((2, 5, 9))[1].ravel().tolist() == expected[:45]


def test_bytes_of_a_sequence_are_the_same_in_any_batch():
    noise = Noise(seed=1, step=2)
    batch = noise.bytes((4, 3, 50))
    for b in range(4):
        np.testing.assert_array_equal(noise._replace(sequence=b).bytes((1, 3, 50))[0], batch[b])


def test_each_part_of_the_name_changes_the_stream():
    noise = Noise(seed=1, step=2)
    others = [noise._replace(seed=2), noise._replace(seed=1 + 2**32), noise._replace(step=3), noise.at(1), noise.at(4)]
    streams = {n.bytes((1, 64)).tobytes() for n in [noise, *others]}
    assert len(streams) == 6


def test_long_stream_continues_across_tiles():
    bytes_ = Noise(seed=1, step=2).bytes((1, 16 * COUNTERS + 40)).ravel()
    np.testing.assert_array_equal(bytes_[: 16 * COUNTERS], Noise(seed=1, step=2).bytes((1, 16 * COUNTERS)).ravel())
    assert bytes_[-40:].tobytes() not in bytes_[:-40].tobytes()


def test_bytes_are_uniform():
    counts = np.bincount(Noise(seed=3, step=0).bytes((1, 1 << 20)).ravel(), minlength=256)
    chi_squared = ((counts - 4096) ** 2 / 4096).sum()
    assert 150 < chi_squared < 380  # mean 255, standard deviation 22.6


def test_numpy_integers_give_the_same_bytes_as_python_integers():
    for kind in (np.int32, np.int64, np.uint32):
        np.testing.assert_array_equal(Noise(kind(3), kind(4)).bytes((1, 16)), Noise(3, 4).bytes((1, 16)))


BAD_PARTS = [
    ({"seed": 0.5}, "seed of Noise is 0.5: it must be a whole number from 0 to 18446744073709551615"),
    ({"seed": "a"}, "seed of Noise is 'a'"),
    ({"seed": None}, "seed of Noise is None"),
    ({"seed": True}, "seed of Noise is True"),
    ({"seed": -1}, "seed of Noise is -1"),
    ({"seed": 2**64}, "seed of Noise is 18446744073709551616"),
    ({"step": 2**32}, "step of Noise is 4294967296: it must be a whole number from 0 to 4294967295"),
    ({"step": -1}, "step of Noise is -1"),
    ({"sequence": 2**32}, "sequence of Noise is 4294967296"),
    ({"sequence": 1.0}, "sequence of Noise is 1.0"),
    ({"site": 2**32 - 2}, "site of Noise is 4294967294: it must be a whole number from 0 to 4294967293"),
]


@pytest.mark.parametrize(("part", "message"), BAD_PARTS)
def test_noise_with_an_invalid_part_raises(part, message):
    with pytest.raises(GPTError, match=message):
        Noise(**({"seed": 0, "step": 0} | part))
    with pytest.raises(GPTError, match=message):
        Noise(0, 0)._replace(**part)


def test_noise_is_a_picklable_tuple_of_python_integers():
    noise = Noise(np.uint64(2**64 - 1), np.int32(4), sequence=np.int64(5)).at(np.int8(2))
    assert noise == Noise(2**64 - 1, 4, 5, 2) == (2**64 - 1, 4, 5, 2)
    assert {type(part) for part in noise} == {int}
    assert repr(noise) == "Noise(seed=18446744073709551615, step=4, sequence=5, site=2)"
    assert pickle.loads(pickle.dumps(noise)) == noise


def test_bytes_of_a_batch_beyond_the_last_sequence_number_raises():
    noise = Noise(0, 0, sequence=2**32 - 2)
    assert noise.bytes((2, 5)).shape == (2, 5)
    with pytest.raises(GPTError, match="sequence of Noise is 4294967294: a batch of 3 goes beyond"):
        noise.bytes((3, 5))
