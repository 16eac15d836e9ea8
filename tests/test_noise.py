"""Is the generator Philox4x32-10, and does a stream depend on nothing but its name?"""

import numpy as np
import pytest

from numpy_gpt import Noise
from numpy_gpt.noise import TILE, philox

ONES = 2**32 - 1
KNOWN = [  # counter, key, output: the published known answers
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_philox_gives_the_known_answers(counter, key, output):
    assert philox(counter, key).tolist() == list(output)
    many = philox((np.full(3, counter[0], np.uint32), *counter[1:]), key)
    assert many.tolist() == [list(output)] * 3


def test_bytes_are_the_words_of_philox_lowest_byte_first():
    noise = Noise(seed=2**32 * 7 + 5, step=11, sequence=13, site=17)
    words = philox((np.arange(3, dtype=np.uint32), 11, 14, 18), (5, 7))
    expected = [word >> 8 * byte & 255 for word in words.ravel().tolist() for byte in range(4)]
    assert noise.bytes((2, 5, 9))[1].ravel().tolist() == expected[:45]


def test_a_sequence_has_the_same_bytes_in_any_batch():
    noise = Noise(seed=1, step=2)
    batch = noise.bytes((4, 3, 50))
    for b in range(4):
        np.testing.assert_array_equal(noise._replace(sequence=b).bytes((1, 3, 50))[0], batch[b])


def test_each_part_of_the_name_makes_another_stream():
    noise = Noise(seed=1, step=2)
    others = [noise._replace(seed=2), noise._replace(seed=1 + 2**32), noise._replace(step=3), noise.at(1), noise.at(4)]
    streams = {n.bytes((1, 64)).tobytes() for n in [noise, *others]}
    assert len(streams) == 6


def test_a_long_stream_goes_on_across_tiles():
    bytes_ = Noise(seed=1, step=2).bytes((1, 16 * TILE + 40)).ravel()
    np.testing.assert_array_equal(bytes_[: 16 * TILE], Noise(seed=1, step=2).bytes((1, 16 * TILE)).ravel())
    assert bytes_[-40:].tobytes() not in bytes_[:-40].tobytes()


def test_bytes_are_uniform():
    counts = np.bincount(Noise(seed=3, step=0).bytes((1, 1 << 20)).ravel(), minlength=256)
    chi_squared = ((counts - 4096) ** 2 / 4096).sum()
    assert 150 < chi_squared < 380  # 255 expected, 22.6 its standard deviation


def test_numpys_integers_are_as_good_as_pythons():
    for kind in (np.int32, np.int64, np.uint32):
        np.testing.assert_array_equal(Noise(kind(3), kind(4)).bytes((1, 16)), Noise(3, 4).bytes((1, 16)))


def test_a_negative_or_huge_seed_is_taken_modulo_2_to_the_64():
    assert (Noise(-1, 0).bytes((1, 16)) == Noise(2**64 - 1, 0).bytes((1, 16))).all()
    assert (Noise(2**64 + 9, 0).bytes((1, 16)) == Noise(9, 0).bytes((1, 16))).all()
