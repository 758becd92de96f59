"""TensorBoard's event files: records with checksums, each a protocol buffer `Event` of scalars.

Own writer, because TensorBoard's writer needs gRPC. The few fields used have not changed since the first version
(tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto). A test reads it with TensorBoard.
"""

import struct
from collections.abc import Mapping
from datetime import datetime
from math import inf

import google_crc32c

_BIGGEST = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]  # largest 32-bit float, the type of scalars


def header(ts: datetime) -> bytes:
    """Return the first record of a file."""
    return _record(_double(1, ts.timestamp()) + _bytes(3, b"brain.Event:2"))


def step(number: int, ts: datetime, values: Mapping[str, float]) -> bytes:
    """Return the record of one step's metrics."""
    found = b"".join(_bytes(1, _bytes(1, name.encode()) + _float(2, value)) for name, value in values.items())
    return _record(_double(1, ts.timestamp()) + _number(2, number) + _bytes(5, found))


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def _checksum(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _float(field: int, value: float) -> bytes:
    if abs(value) > _BIGGEST:
        value = inf if value > 0 else -inf
    return _varint(field << 3 | 5) + struct.pack("<f", value)
