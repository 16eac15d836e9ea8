"""Compute CRC-32C, the checksum of every tensor in OpenAI's files, at the speed of XOR.

A message is a polynomial over GF(2), its first bit the highest power of x, and its CRC the remainder of message x^32 by
P. This P divides x^5685 + x^1362 + x^426 + 1, and so, since squaring over GF(2) only doubles the exponents, it divides

    x^(64 5685) + x^(64 1362) + x^(64 426) + 1

too. So a word of 64 bits can be eliminated by adding it to the words 4323, 5259 and 5685 places further on. The
eliminated words are

    t[i] = w[i] + t[i - 4323] + t[i - 5259] + t[i - 5685]

with the message's words w. + is XOR, of 4323 words at a time. When 5685 words are left, the remainders of their bits
are added one by one. The register starts with ones, which are added to the first 32 bits. The result is inverted.
"""

from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np

P = 0x82F63B78  # Castagnoli's polynomial without its x^32; the lowest bit is that of x^31, since a byte starts with it
NEAR, MIDDLE, FAR = 5685 - 1362, 5685 - 426, 5685  # words
SEGMENT = 4 * NEAR  # words: t of a segment stays in the cache


def crc32c(data: Any) -> int:
    """Return the CRC-32C of contiguous data with a buffer"""
    data = np.frombuffer(data, np.uint8)
    words = data[: len(data) // 8 * 8].view("<u8")
    left = fold(words) if len(words) > FAR else words
    left = np.concatenate([left.view(np.uint8), data[8 * len(words) :], np.zeros(4, np.uint8)])  # the zeros: x^32
    if len(words) <= FAR:
        left[:4] ^= 0xFF  # the register starts with ones
    bits = np.unpackbits(left, bitorder="little").view(bool)
    n = len(bits)
    table = powers(1 << 16) if n <= 1 << 16 else powers(64 * (FAR + 1) + 32)  # the long table takes longer to compute
    return int(np.bitwise_xor.reduce(table[-n:][bits])) ^ 0xFFFFFFFF


def fold(words: np.ndarray) -> np.ndarray:
    """Return FAR words with the same remainder"""
    t = np.zeros(FAR + SEGMENT, "<u8")  # the last FAR eliminated words, then those of this segment
    t[0] = 0xFFFFFFFF  # the register starts with ones; t[FAR], the first word, adds t[0]
    end = len(words) - FAR
    for start in range(0, end, SEGMENT):
        segment = words[start : min(start + SEGMENT, end)]
        for i in range(0, len(segment), NEAR):  # NEAR words are independent of one another
            w = segment[i : i + NEAR]
            now = t[FAR + i :][: len(w)]
            np.bitwise_xor(w, t[i:][: len(w)], out=now)
            now ^= t[FAR + i - MIDDLE :][: len(w)]
            now ^= t[FAR + i - NEAR :][: len(w)]
        t[:FAR] = t[len(segment) :][:FAR]
    left = words[end:] ^ t[:FAR]
    left[:MIDDLE] ^= t[FAR - MIDDLE : FAR]
    left[:NEAR] ^= t[FAR - NEAR : FAR]
    return left


@cache
def powers(n: int) -> np.ndarray:
    """Return x^(n-1) ... x^2, x, 1 modulo P"""
    table = accumulate(range(n - 1), lambda c, _: c >> 1 ^ P * (c & 1), initial=1 << 31)
    return np.fromiter(table, np.uint32, n)[::-1].copy()


def mask(crc: int) -> int:
    """Return the masked CRC that files store: data followed by its plain CRC would have a constant CRC"""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
