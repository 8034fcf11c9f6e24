"""The loop over the events of a batch, generated for each projection."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from ._host import call
from .analysis import ATTRIBUTES, Usage
from .code import compiled
from .events import ABSENT, Data, Event
from .times import Timestamp

if TYPE_CHECKING:
    from .program import Program, Settings


class _FoldCode:
    """The code of the loop over the events of a batch."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}
        """The values that the code uses, by name."""
        self.columns = ["count(first)"]
        """An expression for each column of the batch that the loop goes through."""
        self.values = ["index"]
        """The variable for each of these columns."""
        self.body: list[str] = []
        """The lines of code that run for an event."""
        self.guarded: list[str] = []
        """The lines that run after the body and may fail because of the event."""
        self.end: list[str] = []
        """The lines that run in the end."""

    def column(self, name: str, expression: str) -> None:
        """Sets an attribute of the event from a column."""
        self.columns.append(expression)
        self.values.append(f"its_{name}")
        self.body.append(f"event.{name} = its_{name}")

    def compile(self, prologue: list[str]) -> Any:
        """The function."""
        loop = f"for {', '.join(self.values)} in zip({', '.join(self.columns)}):"
        lines = ["batch = view.batch", "first = view.first", *prologue, loop]
        body = [*self.body, "try:", *(f"    {line}" for line in self.guarded)]
        body += [
            "except BaseException as error:",
            "    if not rejected(view, index, error): raise",
            "    if ends: return",
            *self.end,
        ]
        names = ", ".join(f"{name}={name}" for name in self.names)
        code = f"def fold(view, events, {names}):\n"
        code += "".join(f"    {line}\n" for line in lines)
        code += "".join(f"        {line}\n" for line in body)
        names_here = dict(self.names)
        exec(compiled(code, "<lantern fold>"), names_here)
        return names_here["fold"]


def fold_function(program: "Program", usage: "Usage | None") -> Any:
    """The loop over the events of a batch, generated for what this projection reads and
    for the fields of its tables, so that an event costs little."""
    settings = program.settings
    assert settings is not None
    code = _FoldCode()
    code.names.update(
        call=call,
        Event=Event,
        apply=program.apply_function,
        count=count,
        rejected=program.rejected,
        ends=settings.on_failure != "park-event",
    )
    read = usage.names if usage is not None else frozenset(ATTRIBUTES)
    if program.prepare_function is None:
        code.body.append("event = Event()")
        code.body += ["event._view = view", "event._index = index"]
    else:
        code.body.append("event = events[index - first]")
    code.body.append("call.cause = index")
    # A column of the batch ends the loop.
    code.columns.append("batch.offsets")
    code.values.append("its_offset")
    if "offset" in read:
        code.body.append("event.offset = its_offset")
    if "time" in read:
        code.names["Timestamp"] = Timestamp
        code.column("time", "map(Timestamp, batch.times)")
    if "type" in read:
        code.column("type", "view.kinds()")
    per_tenant = any(table.per_tenant for table in program.tables)
    for name in ("id", "source", "subject", "tenant"):
        if name in settings.attributes and (name in read or (name == "tenant" and per_tenant)):
            code.column(name, f"view.texts({name!r})")
    if per_tenant:
        code.body.append("call.tenant = its_tenant")
    prologue = _add_members(code, settings)
    code.guarded.append("apply(event)")
    for place, table in enumerate(program.tables):
        code.guarded += table.check_code(str(place), code.names)
    for place, table in enumerate(program.tables):
        code.end += table.note_code(str(place), code.names)
    code.names.update(full=full_tables(), make_room=make_room_of_tables())
    code.end += ["if undo: undo.clear()", "if full:", "    make_room()"]
    return code.compile(["undo = call.undo", *prologue])


def full_tables() -> Any:
    """The list of tables that have too many rows in memory."""
    from . import tables

    return tables.full


def make_room_of_tables() -> Any:
    """The function that drops them."""
    from . import tables

    return tables.make_room


def _add_members(code: _FoldCode, settings: "Settings") -> list[str]:
    """Adds the code that sets an event's data; returns what comes before the loop."""
    if not settings.members:
        return []
    code.names.update(Data=Data, ABSENT=ABSENT)
    lines = ["data = Data()", "data._event = event"]
    for place, member in enumerate(settings.members):
        code.columns.append(f"view.members({place})")
        code.values.append(f"m{place}")
        lines.append(f"if m{place} is not ABSENT: data[{member.name!r}] = m{place}")
    lines.append("event.data = data")
    if not any(member.inferred for member in settings.members):
        code.body += lines
        return []
    code.body.append("if not odd or index not in odd:")
    code.body += [f"    {line}" for line in lines]
    return ["odd = view.no_objects()"]
