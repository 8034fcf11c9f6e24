"""Tests of projections in plain Python: no Wasm, no server.

>>> from lantern.testing import Harness, event
>>> host = Harness.of_text('''
... from lantern import Table, projection, integer
... totals = Table("totals", cents=integer("sum"))
... @projection(name="totals", subscribes=["order.placed"])
... def apply(event):
...     totals.row("all")["cents"] += event.data["cents"]
... ''')
>>> host.feed([event("order.placed", {"cents": 250}), event("order.placed", {"cents": 50})])
>>> host.row("totals", "all")
{'cents': 300}

The harness folds events as the host does: in batches, with timers at whole ticks, failed
events parked, rows checked. :func:`check_determinism` folds them several times, in
batches of other sizes and with dropped instances, and compares.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Iterable, NamedTuple, Sequence

from . import _host
from ._decode import decode_members, members_of
from ._host import call
from ._memory_host import Emitted, HostRefusal, MemoryHost
from .events import Batch
from .fields import CHECKS, RowError
from .keys import Key, key_text
from .program import Failure, Program, load_text
from .times import Timestamp

BATCH_EVENTS = 1_000
"""The default number of events in a batch."""

_MIN = -(2**63)
_STANDARD = (
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "data",
    "tenant",
)


class TestEvent(NamedTuple):
    """An event for a test; see :func:`event`."""

    __test__ = False

    type: str
    """CloudEvents ``type``."""
    data: bytes
    """The JSON of its data."""
    time: Timestamp
    """CloudEvents ``time``."""
    id: str
    """CloudEvents ``id``."""
    source: str
    """CloudEvents ``source``."""
    subject: str
    """CloudEvents ``subject``."""
    tenant: str
    """The extension ``tenant``."""
    dataschema: str
    """CloudEvents ``dataschema``."""
    datacontenttype: str
    """CloudEvents ``datacontenttype``."""
    extensions: str
    """The JSON of all other extensions."""


def event(
    type: str,
    data: Any = None,
    *,
    time: "str | int" = 0,
    id: str = "",
    source: str = "test",
    subject: str = "",
    tenant: str = "",
    **extensions: Any,
) -> TestEvent:
    """An event for a test. ``data`` is written as JSON, unless it is bytes; ``time`` is RFC
    3339 or microseconds."""
    encoded = data if isinstance(data, bytes) else json.dumps({} if data is None else data).encode()
    return TestEvent(
        type,
        encoded,
        Timestamp.of(time),
        id,
        source,
        subject,
        tenant,
        "",
        "application/json",
        json.dumps(extensions),
    )


def read_ndjson(source: "str | os.PathLike[str]") -> list[TestEvent]:
    """The events in a file, or in a text, of CloudEvents, one JSON object per line."""
    text = source
    if isinstance(source, os.PathLike) or "\n" not in source and not source.startswith("{"):
        text = Path(source).read_text(encoding="utf-8")
    events = []
    for number, line in enumerate(str(text).split("\n"), 1):
        if line.strip():
            try:
                events.append(_cloud_event(line))
            except (ValueError, KeyError) as error:
                raise ValueError(f"line {number}: {error}") from None
    return events


def _cloud_event(line: str) -> TestEvent:
    members = json.loads(line)
    own = members_of(line.encode()) or []
    data = next((text for name, _, text in own if name == "data"), "null")
    return TestEvent(
        members["type"],
        data.encode(),
        Timestamp.parse(members["time"]),
        members["id"],
        members["source"],
        members.get("subject", ""),
        members.get("tenant", ""),
        members.get("dataschema", ""),
        members.get("datacontenttype", ""),
        json.dumps({name: it for name, it in members.items() if name not in _STANDARD}),
    )


class Parked(NamedTuple):
    """An event that could not be applied, or that waits behind one."""

    offset: int
    """Its index among all events that were fed."""
    event: TestEvent
    """The event."""
    reason: str
    """Why it could not be applied."""


class Outcome(NamedTuple):
    """The complete result of a projection."""

    tables: dict[str, dict[str, bytes]]
    """The bytes of the rows, by table and key."""
    timers: dict[str, int]
    """When timers are due, by key."""
    emitted: list[Emitted]
    """Emitted events, oldest first."""
    parked: list[Parked]
    """Parked events, by offset."""


class _Fresh:
    """Makes a fresh instance of a projection."""

    def __init__(self, path: "Path | None", text: "str | None", name: str) -> None:
        self._path = path
        self._text = text
        self._name = name

    def load(self) -> Program:
        if self._path is None:
            assert self._text is not None
            return load_text(self._name, self._text)
        folder = str(self._path.resolve().parent)
        sys.path.insert(0, folder)
        try:
            program = load_text(str(self._path), self._path.read_text(encoding="utf-8"))
            program.keep_modules(folder)
            return program
        finally:
            sys.path.remove(folder)


class Harness:
    """A projection and its host in memory.

    :param path: the file of the projection.
    :param parameters: its parameters: a dict, or JSON.
    :param batch_size: the maximum number of events in a batch.
    :param drop_instances: every call gets a fresh instance, as the host may do.
    """

    def __init__(
        self,
        path: "str | os.PathLike[str]",
        parameters: Any = "",
        *,
        batch_size: int = BATCH_EVENTS,
        drop_instances: bool = False,
    ) -> None:
        self._start(_Fresh(Path(path), None, ""), parameters, batch_size, drop_instances)

    @classmethod
    def of_text(
        cls,
        text: str,
        parameters: Any = "",
        *,
        name: str = "script.py",
        batch_size: int = BATCH_EVENTS,
        drop_instances: bool = False,
    ) -> "Harness":
        """The projection with this text."""
        harness = cls.__new__(cls)
        harness._start(_Fresh(None, text, name), parameters, batch_size, drop_instances)
        return harness

    def _start(
        self, fresh: _Fresh, parameters: Any, batch_size: int, drop_instances: bool
    ) -> None:
        self._fresh = fresh
        self._parameters = parameters if isinstance(parameters, str) else json.dumps(parameters)
        self._batch_size = max(1, batch_size)
        self._drop_instances = drop_instances
        self.host = MemoryHost()
        """The host in memory."""
        self._program: "Program | None" = None
        self._program, self.manifest = self._instance()
        self.halted: "str | None" = None
        """Why the projection was halted, if it was."""
        self.parked: list[Parked] = []
        """The events that could not be applied, in the order of their offsets."""
        self.timer_failures: list[str] = []
        """The errors of calls with timers."""
        self._next_offset = 0
        self._newest = _MIN
        self.watermark = Timestamp(_MIN)
        """The watermark."""
        self._parked_subjects: set[tuple[str, str]] = set()

    def _instance(self) -> tuple[Program, Any]:
        before, call.host = call.host, self.host
        try:
            program = self._fresh.load()
            return program, program.setup(self._parameters)
        finally:
            call.host = before

    # Feeding.

    def feed(self, events: Iterable[TestEvent]) -> None:
        """Appends events to the log and folds them. Each gets the next offset, even if the
        projection does not subscribe to its type."""
        batch: list[tuple[int, TestEvent]] = []
        for it in events:
            offset = self._next_offset
            self._next_offset += 1
            if not self._subscribes(it.type):
                continue
            self._newest = max(self._newest, it.time)
            batch.append((offset, it))
            watermark = self._watermark_now()
            if watermark > self.watermark:
                self._apply(batch)
                batch = []
                self._advance(watermark)
            elif len(batch) == self._batch_size:
                self._apply(batch)
                batch = []
        self._apply(batch)

    def feed_ndjson(self, source: "str | os.PathLike[str]") -> None:
        """Folds a file, or a text, of CloudEvents, one JSON object per line."""
        self.feed(read_ndjson(source))

    def advance_to(self, time: "str | int") -> None:
        """Advances event time without an event, as the host does on an idle partition, and
        fires the timers that are due then."""
        self._newest = max(self._newest, Timestamp.of(time))
        watermark = self._watermark_now()
        if watermark > self.watermark:
            self._advance(watermark)

    # Results.

    def raw_rows(self, table: str) -> dict[str, bytes]:
        """The bytes of the rows of a table, in the order of the keys."""
        for place, declared in enumerate(self.manifest.tables):
            if declared.name == table:
                return dict(sorted(self.host.tables.get(place, {}).items()))
        raise KeyError(f"there is no table `{table}`")

    def rows(self, table: str) -> dict[str, Any]:
        """The rows of a table by key, each parsed as JSON."""
        return {key: json.loads(row) for key, row in self.raw_rows(table).items()}

    def row(self, table: str, key: Key) -> Any:
        """The row of a table under ``key``, parsed as JSON; none if there is none."""
        row = self.raw_rows(table).get(key_text(key))
        return None if row is None else json.loads(row)

    @property
    def timers(self) -> dict[str, Timestamp]:
        """The due times of the timers, by key. The keys of windows' timers begin with U+0001."""
        return {key: Timestamp(it.at) for key, it in sorted(self.host.timers.items())}

    @property
    def emitted(self) -> list[Emitted]:
        """The events that the projection has emitted, oldest first."""
        return self.host.emitted

    @property
    def logs(self) -> list[tuple[str, str]]:
        """Level and text of log messages."""
        return self.host.logs

    def outcome(self) -> Outcome:
        """The complete result so far."""
        tables = {it.name: self.raw_rows(it.name) for it in self.manifest.tables}
        return Outcome(
            tables,
            {key: it.at for key, it in sorted(self.host.timers.items())},
            list(self.host.emitted),
            list(self.parked),
        )

    # Folding.

    def _subscribes(self, kind: str) -> bool:
        return any(
            kind.startswith(it[:-1]) if it.endswith("*") else kind == it
            for it in self.manifest.subscribes
        )

    def _watermark_now(self) -> int:
        if self.manifest.event_time is None or self._newest == _MIN:
            return _MIN
        lateness, tick = self.manifest.event_time
        time = self._newest - lateness
        return time - time % tick

    def _advance(self, watermark: int) -> None:
        self.watermark = Timestamp(watermark)
        due = sorted(
            (it.due, key, it) for key, it in self.host.timers.items() if it.due <= watermark
        )
        size = min(BATCH_EVENTS, self._batch_size)
        for at in range(0, len(due), size):
            if self.halted is not None:
                return
            timers = [(it.at, key, it.offset) for _, key, it in due[at : at + size]]
            for _, key, _ in timers:
                self.host.timers.pop(key, None)
            triggers = [
                (offset, key.partition("\0")[0] if "\0" in key else None)
                for _, key, offset in timers
            ]
            self.host.begin(triggers, [], ends=True)
            failure = self._call(self._batch([], timers))
            if failure is not None:
                self.timer_failures.append(failure.message)

    def _apply(self, events: Sequence[tuple[int, TestEvent]]) -> None:
        free = []
        for offset, it in events:
            if (it.tenant, it.subject) in self._parked_subjects:
                self._park(offset, it, "it waits behind a parked event of its subject")
            else:
                free.append((offset, it))
        if not free or self.halted is not None:
            return
        by_event = self.manifest.on_failure == "park-event"
        self.host.begin([], [(offset, it.tenant) for offset, it in free], ends=not by_event)
        failure = self._call(self._batch(free, []))
        if failure is None:
            rejected = self.host.rejected
            for place, reason in rejected:
                self._set_aside(*free[place], reason)
            if rejected and not by_event:
                # The call has ended with it.
                self._apply(free[rejected[0].index + 1 :])
            return
        if failure.cause is not None or len(free) == 1:
            self._part_at(free, failure.cause or 0, failure.message)
        else:
            half = len(free) // 2
            self._apply(free[:half])
            self._apply(free[half:])

    def _part_at(self, events: list[tuple[int, TestEvent]], place: int, reason: str) -> None:
        self._apply(events[:place])
        self._set_aside(*events[place], reason)
        self._apply(events[place + 1 :])

    def _set_aside(self, offset: int, failed: TestEvent, reason: str) -> None:
        """Treats an event that cannot be applied as the manifest says."""
        if self.manifest.on_failure == "halt":
            self.halted = reason
            return
        if self.manifest.on_failure == "park-subject" and failed.subject:
            self._parked_subjects.add((failed.tenant, failed.subject))
        self._park(offset, failed, reason)

    def _park(self, offset: int, event: TestEvent, reason: str) -> None:
        self.parked.append(Parked(offset, event, reason))
        self.parked.sort(key=lambda it: it.offset)

    def _call(self, batch: Batch) -> "Failure | None":
        if self._program is None:
            self._program, _ = self._instance()
        self.host.watermark = int(self.watermark)
        before, call.host = call.host, self.host
        try:
            failure = self._program.apply(batch)
        except HostRefusal as error:
            failure = Failure(error.cause, str(error))
        finally:
            call.host = before
        if failure is None:
            self._check_rows()
            self.host.commit()
        else:
            self.host.discard()
        if failure is not None or self._drop_instances:
            self._program = None
        return failure

    def _check_rows(self) -> None:
        """Like the host, refuses rows that do not match the manifest."""
        for table, key, value in self.host.written():
            declared = self.manifest.tables[table]
            if not declared.public or value is None:
                continue
            for name, it in json.loads(value).items():
                field = declared.fields().get(name)
                assert field is not None, f"row {key!r}: the field `{name}` is not declared"
                if it is None or field.kind in ("distinct", "percentiles"):
                    continue
                found = CHECKS[field.kind](it)
                if type(found) is RowError:
                    raise AssertionError(f"row {key!r}: the field `{name}` {found}")

    def _batch(
        self, events: Sequence[tuple[int, TestEvent]], timers: list[tuple[int, str, int]]
    ) -> Batch:
        names = list(dict.fromkeys(it.type for _, it in events))
        columns = {}
        for attribute in (
            "id", "source", "subject", "tenant", "dataschema", "datacontenttype", "extensions",
            "data",
        ):
            values = [getattr(it, attribute) for _, it in events]
            asked = attribute in self.manifest.attributes
            encoded = [it if isinstance(it, bytes) else it.encode() for it in values]
            columns[attribute] = _host.byte_column(encoded if asked else [])
        data = [it.data for _, it in events]
        return Batch(
            partition=0,
            timers=timers,
            watermark=int(self.watermark) if timers else _MIN,
            offsets=[offset for offset, _ in events],
            times=[int(it.time) for _, it in events],
            watermarks=[int(self.watermark)] * len(events),
            type_names=names,
            types=[names.index(it.type) for _, it in events],
            columns=columns,
            members=decode_members(self.manifest.members, data),
        )


def check_determinism(
    path: "str | os.PathLike[str] | None",
    events: Sequence[TestEvent],
    parameters: Any = "",
    *,
    text: "str | None" = None,
) -> Outcome:
    """Folds events in batches of several sizes, with and without dropped instances, and
    raises AssertionError if the results differ; returns the result."""
    first: "Outcome | None" = None
    for size, drop in ((BATCH_EVENTS, False), (1, False), (7, False), (7, True), (1, True)):
        options: dict[str, Any] = {"batch_size": size, "drop_instances": drop}
        if text is None:
            assert path is not None
            harness = Harness(path, parameters, **options)
        else:
            harness = Harness.of_text(text, parameters, **options)
        harness.feed(events)
        outcome = harness.outcome()
        if first is None:
            first = outcome
            continue
        for table, rows in first.tables.items():
            for key in sorted({*rows, *outcome.tables[table]}):
                one, other = rows.get(key), outcome.tables[table].get(key)
                assert one == other, (
                    f"table `{table}`, row {key!r}: {one!r} in batches of {BATCH_EVENTS}, and "
                    f"{other!r} in batches of {size}{' with dropped instances' if drop else ''}"
                )
        assert first == outcome, f"the results differ in batches of {size}"
    assert first is not None
    return first


__all__ = [
    "Emitted",
    "Harness",
    "MemoryHost",
    "Outcome",
    "Parked",
    "TestEvent",
    "check_determinism",
    "event",
    "read_ndjson",
]
