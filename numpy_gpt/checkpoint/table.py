"""Read and write LevelDB's table, the file format under TensorFlow's index: keys and values, sorted by key.

A table is a row of blocks and a footer:

    entry  = shared, unshared, size: varints;  the key without the first `shared` bytes of the previous key;  value
    block  = entries;  restart points, uint32 each: offsets of entries with shared = 0;  their number, uint32
    stored = block;  a byte, 0 if the block isn't compressed;  the masked CRC-32C of both
    footer = (offset, size) of the metaindex and of the index block, as varints;  zeros up to 40 bytes;  MAGIC

The index block's values are the (offset, size) of the data blocks; each key is at least the last key of its block.
"""

from collections.abc import Iterator

from .crc32c import crc32c, mask

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER = 40 + len(MAGIC)
LARGEST_NAMES = 1 << 24  # bytes in all, since a name that shares a prefix takes hardly any space in the file
RESTART = 16  # entries from one restart point to the next


def items(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a table in the order of the keys"""
    if len(data) < FOOTER or data[-len(MAGIC) :] != MAGIC:
        raise ValueError("its last bytes aren't a table's footer")
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
                raise ValueError(f"the key {key!r} comes after {last!r}")
            last, room = key, room - len(key)
            if room < 0:
                raise ValueError(f"its names have more than {LARGEST_NAMES:,} bytes")
            yield key, entry


def handle(data: bytes, at: int) -> tuple[int, int, int]:
    """Return the offset and size of a block, and the position after these two numbers"""
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return offset, size, at


def block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a block"""
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
            raise ValueError(f"a key of the block at byte {offset} shares more bytes than the previous key has")
        key = key[:shared] + take(stored, at, unshared)
        room -= len(key)
        if room < 0:
            raise ValueError(f"the names of the block at byte {offset} have more than {LARGEST_NAMES:,} bytes")
        yield key, take(stored, at + unshared, length)
        at += unshared + length


def take(data: bytes, at: int, size: int) -> bytes:
    """Return bytes at a position; raise ValueError if they aren't within the data"""
    if not 0 <= at <= at + size <= len(data):
        raise ValueError(f"{size} bytes at byte {at} exceed the {len(data)} that are there")
    return data[at : at + size]


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number, stored in seven bits a byte, lowest first, and the position after it"""
    value = 0
    for i, byte in enumerate(data[at : at + 10]):
        value |= (byte & 127) << 7 * i
        if byte < 128 and value < 1 << 64:
            return value, at + i + 1
    raise ValueError(f"a number at byte {at} has no end")


def pack(rows: list[tuple[bytes, bytes]]) -> bytes:
    """Return a table with one data block, as TensorFlow writes it up to 256 KB"""
    data = stored_block(rows, RESTART)
    metaindex = stored_block([], RESTART)
    index = stored_block([(successor(rows[-1][0]), pack_varints(0, len(data) - 5))], 1)
    footer = pack_varints(len(data), len(metaindex) - 5, len(data) + len(metaindex), len(index) - 5)
    return data + metaindex + index + footer.ljust(40, b"\0") + MAGIC


def stored_block(rows: list[tuple[bytes, bytes]], restart: int) -> bytes:
    """Return a block in stored form; an empty one has a restart point too"""
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
    """Return the length of the common prefix"""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def successor(key: bytes) -> bytes:
    """Return a short key above this one: up to its first byte that isn't 255, with that byte increased"""
    for i, byte in enumerate(key):
        if byte < 255:
            return key[:i] + bytes([byte + 1])
    return key


def pack_varints(*numbers: int) -> bytes:
    """Return numbers in seven bits a byte, lowest first"""
    packed = bytearray()
    for n in numbers:
        while n > 127:
            packed.append(n & 127 | 128)
            n >>= 7
        packed.append(n)
    return bytes(packed)
