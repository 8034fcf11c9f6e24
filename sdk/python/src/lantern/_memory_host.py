"""The host in memory of tests."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from . import _host
from .times import Timestamp

KEY_BYTES_MAX = 1_024
"""The longest key that the host takes."""

_MIN = -(2**63)


class _TimerState(NamedTuple):
    """When a timer fires."""

    at: int
    due: int
    """The time at which the timer fires. It is after the watermark of the call that set the timer.
    """
    offset: int


class Emitted(NamedTuple):
    """An event that the projection has emitted."""

    cause: int
    """The offset of the event; for a timer, the offset of the event that set the timer."""
    type: str
    """Its type."""
    subject: str
    """Its subject."""
    tenant: str
    """Its tenant."""
    time: Timestamp
    """Its time."""
    data: Any
    """Its data, parsed."""


class HostRefusal(_host.Trap):
    """A call that the host ends."""

    def __init__(self, cause: int, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause


class Rejected(NamedTuple):
    """An event that a call has rejected."""

    index: int
    """Its index among the events of the call."""
    reason: str
    """Why."""


class MemoryHost:
    """A host in memory. The writes of a call are kept apart from the committed state, so
    that a failed call leaves nothing behind."""

    def __init__(self) -> None:
        self.tables: dict[int, dict[str, bytes]] = {}
        self.timers: dict[str, _TimerState] = {}
        self.emitted: list[Emitted] = []
        self.logs: list[tuple[str, str]] = []
        self.calls = 0
        """How many calls of the contract's imports were made."""
        self.watermark = _MIN
        self.rejected: list[Rejected] = []
        """The events that the current call has rejected."""
        self._triggers: list[tuple[int, "str | None"]] = []
        self._first = 0
        self._ends = False
        self._wrote: set[int] = set()
        self._rejected: set[int] = set()
        self._rows: dict[tuple[int, str], "bytes | None"] = {}
        self._timers: dict[str, "_TimerState | None"] = {}
        self._emitted: list[Emitted] = []

    def begin(
        self,
        timers: list[tuple[int, "str | None"]],
        events: list[tuple[int, "str | None"]],
        *,
        ends: bool,
    ) -> None:
        """Begins a call with these timers and events, each with its offset and tenant.

        :param ends: whether the call ends with the first event that it rejects.
        """
        self._triggers = [*timers, *events]
        self._first = len(timers)
        self._ends = ends
        self._wrote = set()
        self._rejected = set()
        self.rejected = []

    def commit(self) -> None:
        """Makes the writes of the current call part of the state."""
        for (table, key), value in self._rows.items():
            rows = self.tables.setdefault(table, {})
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value
        for key, timer in self._timers.items():
            if timer is None:
                self.timers.pop(key, None)
            else:
                self.timers[key] = timer
        self.emitted += self._emitted
        self.discard()

    def discard(self) -> None:
        """Discards the writes of the current call."""
        self._rows = {}
        self._timers = {}
        self._emitted = []

    def written(self) -> list[tuple[int, str, "bytes | None"]]:
        """What the current call has written."""
        return [(table, key, value) for (table, key), value in self._rows.items()]

    def _trigger(self, cause: int) -> tuple[int, "str | None"]:
        """Offset and tenant of the timer or event that a write names as its cause."""
        assert 0 <= cause < len(self._triggers), f"the call has no timer or event {cause}"
        event = cause - self._first
        assert event not in self._rejected, f"event {event} was rejected"
        assert not (self._ends and self.rejected and event > self.rejected[0].index), (
            "the call should have ended with the event that it rejected"
        )
        self._wrote.add(cause)
        return self._triggers[cause]

    def _row(self, table: int, key: str) -> "bytes | None":
        if (table, key) in self._rows:
            return self._rows[table, key]
        return self.tables.get(table, {}).get(key)

    # The imports of the contract.

    def get(self, table: int, key: str) -> "bytes | None":
        self.calls += 1
        return self._row(table, key)

    def get_many(self, table: int, keys: _host.Column) -> tuple[list[bool], _host.Column]:
        self.calls += 1
        rows = [self._row(table, key) for key in _texts(keys)]
        return [row is not None for row in rows], _host.byte_column([it or b"" for it in rows])

    def put_many(
        self, causes: list[int], table: int, keys: _host.Column, values: _host.Column
    ) -> None:
        self.calls += 1
        names, rows = _texts(keys), _values(values)
        assert len(causes) == len(names) == len(rows), "each row has a cause"
        for cause, key, value in zip(causes, names, rows):
            self._trigger(cause)
            if len(key.encode()) > KEY_BYTES_MAX:
                raise HostRefusal(cause, f"a key is longer than {KEY_BYTES_MAX} bytes")
            self._rows[table, key] = value

    def delete_many(self, causes: list[int], table: int, keys: _host.Column) -> None:
        self.calls += 1
        for cause, key in zip(causes, _texts(keys)):
            self._trigger(cause)
            self._rows[table, key] = None

    def scan(
        self, table: int, start: str, end: str, limit: int, reverse: bool
    ) -> list[tuple[str, bytes]]:
        self.calls += 1
        merged: dict[str, "bytes | None"] = dict(self.tables.get(table, {}))
        merged.update({key: it for (of, key), it in self._rows.items() if of == table})
        # The order of UTF-8 is that of the code points.
        found = [
            (key, value)
            for key, value in sorted(merged.items())
            if value is not None and key >= start and (not end or key < end)
        ]
        if reverse:
            found.reverse()
        return found[:limit]

    def set_timer(self, cause: int, at: int, key: str) -> None:
        self.calls += 1
        offset = self._check_timer(cause, key)
        known = self._timers[key] if key in self._timers else self.timers.get(key)
        if known is None or known.at != at:
            self._timers[key] = _TimerState(at, max(at, self.watermark + 1), offset)

    def cancel_timer(self, cause: int, key: str) -> None:
        self.calls += 1
        self._check_timer(cause, key)
        self._timers[key] = None

    def _check_timer(self, cause: int, key: str) -> int:
        offset, tenant = self._trigger(cause)
        if "\0" in key and key.partition("\0")[0] != tenant:
            raise HostRefusal(cause, f"timer {key!r} belongs to another tenant than its cause")
        return offset

    def emit(self, events: list[tuple[int, str, str, str, int, bytes]]) -> None:
        self.calls += 1
        for cause, kind, subject, tenant, time, data in events:
            offset, own = self._trigger(cause)
            own = own or ""
            if tenant not in ("", own):
                reason = f"an emitted `{kind}` names tenant {tenant!r}, which is not its cause's"
                raise HostRefusal(cause, reason)
            self._emitted.append(
                Emitted(offset, kind, subject, own, Timestamp(time), json.loads(data))
            )

    def reject(self, cause: int, message: str) -> None:
        self.calls += 1
        event = cause - self._first
        assert self._first <= cause < len(self._triggers), f"the call has no event {event}"
        assert cause not in self._wrote, f"event {event} was rejected, and has written"
        if self.rejected:
            assert not self._ends and self.rejected[-1].index < event, "rejected out of order"
        self.rejected.append(Rejected(event, message))
        self._rejected.add(event)

    def log(self, cause: int, level: str, message: str) -> None:
        self.logs.append((level, message))


def _values(column: _host.Column) -> list[bytes]:
    ends, data = column
    return [data[start:end] for start, end in zip([0, *ends], ends)]


def _texts(column: _host.Column) -> list[str]:
    return [value.decode() for value in _values(column)]
