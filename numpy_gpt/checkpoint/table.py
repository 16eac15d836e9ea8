"""LevelDB's table, the file format under TensorFlow's index: keys and values, sorted by key.

A table is a row of blocks and a footer:

    entry  = shared, unshared, size: varints;  `unshared` bytes that follow the first `shared` of the key before;  value
    block  = entries;  restart points, uint32 each: where a key stands in full;  their number, uint32
    stored = block;  a byte, 0 where the block isn't compressed;  the masked CRC-32C of both
    footer = (offset, size) of the metaindex and of the index block, as varints;  zeros up to 40 bytes;  MAGIC

The index block's values are the (offset, size) of the data blocks, each under a key that is not below the block's last.
"""

from collections.abc import Iterator

from .crc32c import crc32c, mask

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER = 40 + len(MAGIC)
LARGEST_NAMES = 1 << 24  # bytes in all: a name that shares most of the last one takes no room in the file
RESTART = 16  # entries from one key in full to the next


def items(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a table, in the order of the keys"""
    if len(data) < FOOTER or data[-len(MAGIC) :] != MAGIC:
        raise ValueError("it doesn't end as one")
    *_, at = handle(data, len(data) - FOOTER)
    offset, size, _ = handle(data, at)
    last, room, unread = None, LARGEST_NAMES, len(data)
    for _, value in block(data, offset, size):
        offset, size, _ = handle(value, 0)
        unread -= size + 5
        if unread < 0:
            raise ValueError("its blocks have more bytes than the file")
        for key, entry in block(data, offset, size):
            if last is not None and key <= last:
                raise ValueError(f"the key {key!r} stands after {last!r}")
            last, room = key, room - len(key)
            if room < 0:
                raise ValueError(f"its names have more than {LARGEST_NAMES:,} bytes")
            yield key, entry


def handle(data: bytes, at: int) -> tuple[int, int, int]:
    """Where a block is, how long it is, and where this ends"""
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return offset, size, at


def block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    stored = take(data, offset, size + 5)
    kind, crc = stored[size], int.from_bytes(stored[size + 1 :], "little")
    if mask(crc32c(stored[: size + 1])) != crc:
        raise ValueError(f"the checksum of the block at byte {offset} doesn't match")
    if kind:
        raise ValueError(f"the block at byte {offset} is compressed, which no GPT-2 checkpoint is")
    restarts = int.from_bytes(take(stored, size - 4, 4), "little")
    end, at, key, room = size - 4 * (restarts + 1), 0, b"", LARGEST_NAMES
    if end < 0:
        raise ValueError(f"the block at byte {offset} has more restart points than bytes")
    while at < end:
        shared, at = varint(stored, at)
        unshared, at = varint(stored, at)
        length, at = varint(stored, at)
        if shared > len(key):
            raise ValueError(f"a key of the block at byte {offset} shares more than there is")
        key = key[:shared] + take(stored, at, unshared)
        room -= len(key)
        if room < 0:
            raise ValueError(f"the names of the block at byte {offset} have more than {LARGEST_NAMES:,} bytes")
        yield key, take(stored, at + unshared, length)
        at += unshared + length


def take(data: bytes, at: int, size: int) -> bytes:
    if not 0 <= at <= at + size <= len(data):
        raise ValueError(f"{size} bytes should stand at byte {at} of {len(data)}")
    return data[at : at + size]


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, seven bits a byte, the lowest first, and where it ends"""
    value = 0
    for i, byte in enumerate(data[at : at + 10]):
        value |= (byte & 127) << 7 * i
        if byte < 128 and value < 1 << 64:
            return value, at + i + 1
    raise ValueError(f"a number at byte {at} has no end")


def pack(rows: list[tuple[bytes, bytes]]) -> bytes:
    """The table of these keys and values in one data block, as TensorFlow writes it up to 256 KB"""
    data = stored_block(rows, RESTART)
    metaindex = stored_block([], RESTART)
    index = stored_block([(successor(rows[-1][0]), pack_varints(0, len(data) - 5))], 1)
    footer = pack_varints(len(data), len(metaindex) - 5, len(data) + len(metaindex), len(index) - 5)
    return data + metaindex + index + footer.ljust(40, b"\0") + MAGIC


def stored_block(rows: list[tuple[bytes, bytes]], restart: int) -> bytes:
    """The block, as it is stored; an empty one has a restart point too"""
    entries, last = b"", b""
    restarts = [0]
    for i, (key, value) in enumerate(rows):
        shared = common(last, key)
        if i and i % restart == 0:
            restarts.append(len(entries))
            shared = 0
        entries += pack_varints(shared, len(key) - shared, len(value)) + key[shared:] + value
        last = key
    body = entries + b"".join(n.to_bytes(4, "little") for n in (*restarts, len(restarts))) + b"\0"
    return body + mask(crc32c(body)).to_bytes(4, "little")


def common(a: bytes, b: bytes) -> int:
    """How many bytes both start with"""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def successor(key: bytes) -> bytes:
    """A short key above this one: its first byte that isn't 255, raised, and those before it"""
    for i, byte in enumerate(key):
        if byte < 255:
            return key[:i] + bytes([byte + 1])
    return key


def pack_varints(*numbers: int) -> bytes:
    packed = bytearray()
    for n in numbers:
        while n > 127:
            packed.append(n & 127 | 128)
            n >>= 7
        packed.append(n)
    return bytes(packed)
