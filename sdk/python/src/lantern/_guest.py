"""The projection inside of a component: the contract's exports and imports.

Imported only while a component is built and inside of it: ``wit_world`` is what
componentize-py generates from the contract.
"""

from __future__ import annotations

import gc
import os

from componentize_py_types import Err
from wit_world.imports import logging, outbox, rejections, tables, timers
from wit_world.imports import types as wit

from . import _host, places, sandbox
from ._host import call
from .analysis import ATTRIBUTES
from .events import Batch, MemberColumn
from .program import Manifest, Program
from .zones import names

# Reads the table of time zones now, because a component has no files.
names()

_KINDS = {kind.name.lower(): kind for kind in wit.FieldKind}
_MERGES = {merge.name.lower(): merge for merge in wit.Merge}
_LEVELS = {level.name.lower(): level for level in wit.Level}
_ON_FAILURE = {it.name.lower().replace("_", "-"): it for it in wit.OnFailure}
_MEMBER_KINDS = {
    wit.MemberValues_Integers: "integer",
    wit.MemberValues_Timestamps: "timestamp",
    wit.MemberValues_Numbers: "number",
    wit.MemberValues_Booleans: "boolean",
    wit.MemberValues_Texts: "text",
    wit.MemberValues_Jsons: "json",
}


class ContractHost:
    """The imports of the contract."""

    get = staticmethod(tables.get)

    @staticmethod
    def get_many(table: int, keys: _host.Column) -> tuple[list[bool], _host.Column]:
        found, values = tables.get_many(table, wit.Column(*keys))
        return found, (values.ends, values.bytes)

    @staticmethod
    def put_many(
        causes: list[int], table: int, keys: _host.Column, values: _host.Column
    ) -> None:
        tables.put_many(causes, table, wit.Column(*keys), wit.Column(*values))

    @staticmethod
    def delete_many(causes: list[int], table: int, keys: _host.Column) -> None:
        tables.delete_many(causes, table, wit.Column(*keys))

    @staticmethod
    def scan(
        table: int, start: str, end: str, limit: int, reverse: bool
    ) -> list[tuple[str, bytes]]:
        rows = tables.scan(table, start, end, min(limit, 2**32 - 1), reverse)
        return [(row.key, row.value) for row in rows]

    set_timer = staticmethod(timers.set)
    cancel_timer = staticmethod(timers.cancel)

    @staticmethod
    def emit(events: list[tuple[int, str, str, str, int, bytes]]) -> None:
        outbox.emit([wit.NewEvent(*event) for event in events])

    reject = staticmethod(rejections.reject)

    @staticmethod
    def log(cause: int, level: str, message: str) -> None:
        logging.log(cause, _LEVELS[level], message)


def manifest_of(manifest: Manifest) -> wit.Manifest:
    """The manifest as a record of the contract."""
    attributes = wit.Attributes(0)
    for name in ATTRIBUTES:
        if name in manifest.attributes:
            attributes |= wit.Attributes[name.upper()]
    return wit.Manifest(
        name=manifest.name,
        version=manifest.version,
        description=manifest.description,
        subscribes=manifest.subscribes,
        attributes=attributes,
        members=[wit.Member(it.name, _KINDS[it.kind]) for it in manifest.members],
        tables=[
            wit.Table(
                name=table.name,
                description=table.description,
                public=table.public,
                per_tenant=table.per_tenant,
                fields=[
                    wit.Field(name, _KINDS[field.kind], field.unit, _MERGES[field.merge])
                    for name, field in (table.fields() if table.public else {}).items()
                ],
                newest_by=table.newest_by,
                retention=table.retention,
                options=[],
            )
            for table in manifest.tables
        ],
        emits=manifest.emits,
        cycle_depth_max=manifest.cycle_depth_max,
        event_time=None if manifest.event_time is None else wit.EventTime(*manifest.event_time),
        on_failure=_ON_FAILURE[manifest.on_failure],
        parameters=manifest.parameters,
        options=[],
    )


def batch_of(batch: wit.Batch) -> Batch:
    """A batch of the contract as the SDK has it."""
    members = []
    for column in batch.members:
        values = column.values.value
        kind = _MEMBER_KINDS[type(column.values)]
        if kind in ("text", "json"):
            values = (values.ends, values.bytes)
        members.append(MemberColumn(kind, column.validity, values, column.mismatched))
    columns = {}
    for name in ATTRIBUTES:
        column = getattr(batch, name)
        columns[name] = (column.ends, column.bytes)
    return Batch(
        batch.partition,
        [(timer.at, timer.key, timer.offset) for timer in batch.timers],
        batch.watermark,
        batch.offsets,
        batch.times,
        batch.watermarks,
        batch.type_names,
        batch.types,
        columns,
        members,
    )


_COLLECT_EVENTS = 16_384
"""The number of events after which reference cycles are collected."""


class _Garbage:
    """Collects reference cycles between calls, in place of Python's own collector. Python's
    collector would run while events are applied and take a quarter of the time. It would find
    almost nothing, because the objects that an event leaves behind have no cycles."""

    events = 0

    @classmethod
    def passed(cls, events: int) -> None:
        """Notes that a batch is applied."""
        cls.events += events
        if cls.events >= _COLLECT_EVENTS:
            cls.events = 0
            gc.collect()


def settle() -> None:
    """Ends the loading of a projection: the objects that exist now are kept, and are not
    examined for reference cycles again."""
    gc.freeze()
    gc.disable()


def apply(program: Program, batch: wit.Batch) -> None:
    """The contract's `apply`."""
    failure = program.apply(batch_of(batch))
    _Garbage.passed(len(batch.offsets) + len(batch.timers))
    if failure is not None:
        raise Err(wit.Failure(failure.cause, failure.message))


def compiled(program: Program, module_file: str) -> type:
    """The class of a component that has one projection compiled in. The projection's
    modules are those in the folder of ``module_file``."""
    program.keep_modules(os.path.dirname(module_file))

    class Projector:
        def setup(self, parameters: str) -> wit.Manifest:
            call.host = ContractHost  # type: ignore[assignment]
            sandbox.seal()
            try:
                manifest = manifest_of(program.setup(parameters))
                settle()
                return manifest
            except BaseException as error:
                raise Err(places.what(error)) from None

        def apply(self, batch: wit.Batch) -> None:
            apply(program, batch)

    return Projector
