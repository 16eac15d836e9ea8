"""Is crc32c correct for every length and alignment?"""

import numpy as np
import pytest

from numpy_gpt.checkpoint import crc32c as module
from numpy_gpt.checkpoint.crc32c import FAR, MIDDLE, NEAR, SEGMENT, crc32c, mask


def bit_by_bit(data):
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ 0x82F63B78 * (register & 1)
    return register ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "crc"),  # the check value of the CRC catalogues, then the four of RFC 3720, B.4
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_crc32c_of_published_messages(data, crc):
    assert crc32c(data) == crc


LENGTHS = [
    *range(18),
    8191,
    8192,
    *(8 * n + r for n in (FAR, FAR + 1, FAR + NEAR, FAR + SEGMENT + 1) for r in (-1, 0, 5)),
]


@pytest.mark.parametrize("length", LENGTHS)
def test_crc32c_matches_the_bitwise_algorithm(length):
    data = np.random.default_rng(length).integers(0, 256, length + 3, np.uint8)
    assert crc32c(data[3:]) == bit_by_bit(data[3:].tobytes())


def test_sparse_polynomial_is_a_multiple_of_p():
    powers = module.powers(FAR + 1)
    assert powers[-1 - FAR] ^ powers[-1 - (FAR - NEAR)] ^ powers[-1 - (FAR - MIDDLE)] ^ powers[-1] == 0


def test_mask_of_published_values():
    assert mask(0) == 0xA282EAD8
    assert mask(0xFFFFFFFF) == 0xA282EAD7
