"""The functions of the host that the SDK calls.

In a component, the functions of the host are the imports of the contract; in a test, they are the
methods of :class:`lantern.testing.MemoryHost`. A column of texts is a pair: the place at which each
text ends, and the bytes of all texts.
"""

from __future__ import annotations

from typing import Any, Protocol

Column = tuple[list[int], bytes]


class Host(Protocol):
    """The functions that a host offers; see ``wit/projection.wit``."""

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

    def reject(self, cause: int, message: str) -> None: ...

    def log(self, cause: int, level: str, message: str) -> None: ...


class Trap(BaseException):
    """The host ends the call. In a component no code runs after that. In a test the host
    raises this exception."""


class Call:
    """The state of the current call: the event or timer to which a write, a timer, an
    emitted event or a log line belongs, and how to undo an event.

    If an event cannot be applied, it is rejected, and the call continues as if the event had never
    been there. So until an event is applied completely, its timers and emitted events are kept only
    here, each table keeps the previous rows, and ``undo`` has the functions that undo everything
    else.
    """

    __slots__ = ("host", "applying", "cause", "tenant", "outbox", "timers", "undo", "sent")

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
        self.timers: list[tuple[int, "int | None", str]] = []
        """The timers that were set in this call, and cancelled ones (without a time)."""
        self.undo: "list[tuple[Any, ...]] | None" = None
        """Functions with their arguments that undo what the current event has changed in
        place. The last one is called first. None if no event is being applied."""
        self.sent = -1
        """The last event whose changed rows were sent to the host before the event was applied
        completely."""

    def reset(self) -> None:
        """Forgets what belongs to one call of the contract's `apply`."""
        self.applying = False
        self.tenant = None
        self.undo = None
        self.sent = -1
        self.outbox = []
        self.timers = []

    def undo_event(self, cause: int) -> None:
        """Undoes what the event has done apart from the rows of tables."""
        while self.outbox and self.outbox[-1][0] == cause:
            self.outbox.pop()
        while self.timers and self.timers[-1][0] == cause:
            self.timers.pop()
        undo = self.undo or []
        while undo:
            function, *arguments = undo.pop()
            function(*arguments)


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
