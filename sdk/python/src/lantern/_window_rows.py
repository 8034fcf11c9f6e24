"""The rows of open sessions and sliding windows. A row has the values of a key, and the
time of the key's timer."""

from __future__ import annotations

import struct
from typing import Any

from .errors import RowError

MAX = 2**63 - 1
"""The latest time."""

_TIME = struct.Struct("<q")
_LENGTH = struct.Struct("<I")


def _bytes(encoded: Any) -> bytes:
    return encoded if isinstance(encoded, bytes) else encoded.encode()


class Sessions:
    """The open sessions of a key, oldest first."""

    __slots__ = ("armed", "sessions")

    def __init__(self, armed: int, sessions: list[tuple[int, int, Any]]) -> None:
        self.armed = armed
        self.sessions = sessions


class SessionsCodec:
    """The bytes of all open sessions of a key."""

    binary = True

    def __init__(self, value: Any) -> None:
        self.value = value

    def default(self) -> Sessions:
        return Sessions(MAX, [])

    def copy(self, row: Sessions) -> Sessions:
        copy = self.value.copy
        sessions = [(start, end, copy(value)) for start, end, value in row.sessions]
        return Sessions(row.armed, sessions)

    def check(self, row: Sessions) -> "Sessions | RowError":
        checked = []
        for start, end, value in row.sessions:
            value = self.value.check(value)
            if type(value) is RowError:
                return value
            checked.append((start, end, value))
        row.sessions = checked
        return row

    def encode(self, row: Sessions) -> bytes:
        parts = [_TIME.pack(row.armed)]
        for start, end, value in row.sessions:
            encoded = _bytes(self.value.encode(value))
            parts += [_TIME.pack(start), _TIME.pack(end), _LENGTH.pack(len(encoded)), encoded]
        return b"".join(parts)

    def decode(self, data: bytes) -> Sessions:
        row = Sessions(_TIME.unpack_from(data)[0], [])
        at = 8
        while at < len(data):
            start, end = _TIME.unpack_from(data, at)[0], _TIME.unpack_from(data, at + 8)[0]
            length = _LENGTH.unpack_from(data, at + 16)[0]
            at += 20
            row.sessions.append((start, end, self.value.decode(data[at : at + length])))
            at += length
        return row


class Values:
    """A key's values, ordered by time, then by offset."""

    __slots__ = ("armed", "size", "settled", "entries")

    def __init__(self, armed: int, size: int, settled: int, entries: list[Any]) -> None:
        self.armed = armed
        self.size = size
        self.settled = settled
        self.entries = entries

    def restore(self, armed: int, size: int, settled: int, place: int) -> None:
        """Removes the value at ``place`` that was added last."""
        self.armed, self.size, self.settled = armed, size, settled
        del self.entries[place]

    def due(self) -> int:
        """The next moment at which something changes without an event: a window settles
        when the watermark has passed its end, and a value is removed when no later window
        contains it."""
        due = MAX
        if self.settled < len(self.entries):
            due = min(MAX, self.entries[self.settled][0] + 1)
        if self.entries:
            due = min(due, self.entries[0][0] + self.size)
        return due


class ValuesCodec:
    """The bytes of the recent values of a key."""

    binary = True

    def __init__(self, value: Any) -> None:
        self.value = value

    def default(self) -> Values:
        return Values(MAX, 0, 0, [])

    def copy(self, row: Values) -> Values:
        # There may be many values: the row undoes its changes itself.
        return row

    def check(self, row: Values) -> Values:
        return row

    def encode(self, row: Values) -> bytes:
        parts = [_TIME.pack(row.armed), _TIME.pack(row.size), _TIME.pack(row.settled)]
        for time, value in row.entries:
            encoded = _bytes(self.value.encode(value))
            parts += [_TIME.pack(time), _LENGTH.pack(len(encoded)), encoded]
        return b"".join(parts)

    def decode(self, data: bytes) -> Values:
        armed, size, settled = (_TIME.unpack_from(data, at)[0] for at in (0, 8, 16))
        row = Values(armed, size, settled, [])
        at = 24
        while at < len(data):
            time = _TIME.unpack_from(data, at)[0]
            length = _LENGTH.unpack_from(data, at + 8)[0]
            at += 12
            row.entries.append((time, self.value.decode(data[at : at + length])))
            at += length
        return row
