"""The functions of the host that the SDK calls.

In a component they are those of the contract; in a test, those of
:class:`lantern.testing.MemoryHost`. A column of texts is a pair: the end of each value
in the bytes, and the bytes.
"""

from __future__ import annotations

from typing import Protocol

Column = tuple[list[int], bytes]


class Host(Protocol):
    """What a host offers; see ``wit/projection.wit``."""

    def get(self, table: int, key: str) -> bytes | None: ...

    def get_many(self, table: int, keys: Column) -> tuple[list[bool], Column]: ...

    def put_many(self, causes: list[int], table: int, keys: Column, values: Column) -> None: ...

    def delete_many(self, causes: list[int], table: int, keys: Column) -> None: ...

    def scan(
        self, table: int, start: str, end: str, limit: int, reverse: bool
    ) -> list[tuple[str, bytes]]: ...

    def set_timer(self, cause: int, at: int, key: str) -> None: ...

    def cancel_timer(self, cause: int, key: str) -> None: ...

    def emit(self, events: list[tuple[int, str, str, str, int, bytes]]) -> None: ...

    def log(self, cause: int, level: str, message: str) -> None: ...


class Call:
    """The state of a call: what the functions of the SDK belong to."""

    __slots__ = ("host", "applying", "cause", "tenant", "outbox")

    def __init__(self) -> None:
        self.host: Host | None = None
        """The host; none outside of a component and of a test."""
        self.applying = False
        """Whether a batch is being applied: only then rows can be read and changed."""
        self.cause = 0
        """The index in the batch of the current timer or event."""
        self.tenant: str | None = None
        """Its tenant, if a table needs it."""
        self.outbox: list[tuple[int, str, str, str, int, bytes]] = []
        """The events that were emitted in this call."""


call = Call()
"""The only one: a component is single-threaded."""


def host() -> Host:
    """The current host, while events are applied."""
    if call.host is None or not call.applying:
        raise RuntimeError(
            "tables can be read and changed only while events are applied; "
            "in a test, use lantern.testing.Harness"
        )
    return call.host


def column(texts: list[str]) -> Column:
    """A column of texts."""
    joined = "".join(texts)
    if joined.isascii():
        ends = []
        end = 0
        for text in texts:
            end += len(text)
            ends.append(end)
        return ends, joined.encode()
    return byte_column([text.encode() for text in texts])


def byte_column(values: list[bytes]) -> Column:
    """A column of byte strings."""
    ends = []
    end = 0
    for value in values:
        end += len(value)
        ends.append(end)
    return ends, b"".join(values)
