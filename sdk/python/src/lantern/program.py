"""A projection: what a module declares, and the code that runs it when the host calls the
contract's functions ``setup`` and ``apply``."""

from __future__ import annotations

import inspect
import os
import re
import sys
import types
from typing import TYPE_CHECKING, Any, Callable, Iterable, NamedTuple, Sequence

from . import places
from ._host import Trap, call
from .analysis import ATTRIBUTES, Usage, check_nesting, usage_of
from .errors import FlushError, ManifestError, ParametersError
from .code import compiled
from .events import Batch, Event, Timer, Unusable, View
from .fields import Field
from .fold import fold_function
from .times import Duration, micros_of, text_of

if TYPE_CHECKING:
    from .parameters import Parameters
    from .tables import Rows

ON_FAILURE = ("park-subject", "park-event", "halt")
_PREPARING, _SENDING = -1, -2
_PHASES = {_PREPARING: "preparing a batch", _SENDING: "sending the rows of a batch"}
"""Causes that are no timer or event."""
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


class Member(NamedTuple):
    """A member of data that the host decodes."""

    name: str
    kind: str
    inferred: bool
    """Whether it was found in the text of the projection, and not declared."""


class Manifest(NamedTuple):
    """The description of a projection, as in the contract."""

    name: str
    version: str
    description: str
    subscribes: list[str]
    attributes: list[str]
    members: list[Member]
    tables: list["Rows[Any]"]
    emits: list[str]
    cycle_depth_max: "int | None"
    event_time: "tuple[int, int] | None"
    on_failure: str
    parameters: "str | None"


class Settings:
    """The part of the manifest that matters while events are applied."""

    __slots__ = (
        "attributes",
        "members",
        "unusable",
        "declared",
        "emits",
        "event_time",
        "on_failure",
    )

    def __init__(self, manifest: Manifest, declared: dict[str, Field]) -> None:
        self.attributes = frozenset(manifest.attributes)
        self.members = manifest.members
        self.declared = declared
        places = {member.name: place for place, member in enumerate(manifest.members)}
        self.unusable = {
            name: Unusable.of(places[name], name, field) for name, field in declared.items()
        }
        """The reasons why an event has no value of a declared member, by the name of the member."""
        self.emits = frozenset(manifest.emits)
        self.event_time = manifest.event_time is not None
        self.on_failure = manifest.on_failure


class Failure(NamedTuple):
    """Why a call failed."""

    cause: "int | None"
    message: str


class Program:
    """Everything that one projection declares."""

    def __init__(self, name: str = "projection.py", text: "str | None" = None) -> None:
        self.name = name
        """The name of its file."""
        self.sources: dict[str, str] = {} if text is None else {name: text}
        """The texts of its modules, by the name in tracebacks."""
        self._places = places.Places(self.sources)
        self.tables: list[Rows[Any]] = []
        self.apply_function: "Callable[[Event], Any] | None" = None
        self.timer_function: "Callable[[Timer], Any] | None" = None
        self.prepare_function: "Callable[[Sequence[Event]], Any] | None" = None
        self.setup_function: "Callable[[], Any] | None" = None
        self.declared: dict[str, Any] = {}
        self.parameters: "Parameters | None" = None
        self.settings: "Settings | None" = None
        self._fold: Any = None
        self._failed = False

    def add_table(self, table: "Rows[Any]") -> int:
        """Declares a table; returns its index."""
        if not isinstance(table.name, str) or not _NAME.fullmatch(table.name):
            raise ManifestError(
                f"the table name {table.name!r} must be 1 to 63 lower-case letters, digits, "
                "`_` and `-`, beginning with a letter"
            )
        if any(other.name == table.name for other in self.tables):
            raise ManifestError(f"two tables are named `{table.name}`")
        if call.applying:
            raise ManifestError(f"table `{table.name}` is declared while events are applied")
        self.tables.append(table)
        return len(self.tables) - 1

    def keep_modules(self, folder: str) -> None:
        """Keeps the texts of the imported modules in a folder. They are needed to analyse the
        texts, and for the reasons of parked events."""
        for module in list(sys.modules.values()):
            name = getattr(module, "__file__", None)
            if name and name.endswith(".py") and os.path.dirname(name) == folder:
                if name not in self.sources:
                    with open(name, encoding="utf-8") as file:
                        self.sources[name] = file.read()

    # The contract's `setup`.

    def setup(self, parameters: str) -> Manifest:
        """Takes the parameters, and describes the projection."""
        if self.apply_function is None:
            raise ManifestError(
                f"{self.name} defines no projection: put @projection(name=…, subscribes=[…]) "
                "before the function that applies an event"
            )
        declared = dict(self.declared)
        self._take_parameters(parameters)
        if self.setup_function is not None:
            more = self.setup_function()
            if more is not None:
                declared.update(_known(more))
        usage = self._usage()
        manifest = self._manifest(declared, usage)
        members = declared.get("members") or {}
        self.settings = Settings(manifest, dict(members))
        self._fold = fold_function(self, usage)
        for table in self.tables:
            table.reset()
        self._failed = False
        return manifest

    def _take_parameters(self, text: str) -> None:
        text = text.strip()
        if self.parameters is not None:
            self.parameters._take(text)
        elif text not in ("", "{}"):
            raise ParametersError(
                f"parameters: `{text}` was given, but this projection takes none"
            )

    def _usage(self) -> "Usage | None":
        """The attributes and members that the modules read; None if the texts of the modules are
        not known."""
        return usage_of(tuple(self.sources.values())) if self.sources else None

    def _manifest(self, declared: dict[str, Any], usage: "Usage | None") -> Manifest:
        name = declared.get("name") or self.name.rpartition(".")[0].replace("_", "-")
        on_failure = declared.get("on_failure", "park-subject")
        if on_failure not in ON_FAILURE:
            raise ManifestError(f"on_failure={on_failure!r} is not one of {', '.join(ON_FAILURE)}")
        asked = set(declared.get("attributes") or ())
        unknown = asked - set(ATTRIBUTES)
        if unknown:
            raise ManifestError(
                f"{sorted(unknown)} are not attributes; they are {', '.join(ATTRIBUTES)}"
            )
        asked.update(ATTRIBUTES if usage is None else usage.names & set(ATTRIBUTES))
        if any(table.per_tenant for table in self.tables):
            asked.add("tenant")
        if not declared.get("data", True):
            asked.discard("data")
        members = _members(declared.get("members") or {}, usage, "data" in asked)
        lateness, tick = declared.get("lateness"), declared.get("tick")
        event_time = None
        if lateness is not None or tick is not None:
            event_time = (micros_of(lateness or "0s"), micros_of(tick or "1s"))
            if event_time[1] == 0:
                raise ManifestError("the tick of event time is shorter than a microsecond")
        elif self.timer_function is not None:
            raise ManifestError("@on_timer needs event time: add lateness=… and tick=…")
        return Manifest(
            name=name,
            version=declared.get("version", "0.1.0"),
            description=declared.get("description") or self._summary(),
            subscribes=_texts("subscribes", declared.get("subscribes", ())),
            attributes=[it for it in ATTRIBUTES if it in asked],
            members=members,
            tables=list(self.tables),
            emits=_texts("emits", declared.get("emits", ())),
            cycle_depth_max=declared.get("cycle_depth_max"),
            event_time=event_time,
            on_failure=on_failure,
            parameters=None if self.parameters is None else self.parameters.schema(),
        )

    def _summary(self) -> str:
        """The first line of the module's documentation."""
        function = self.apply_function
        text = getattr(sys.modules.get(getattr(function, "__module__", "")), "__doc__", None)
        text = text or getattr(function, "__globals__", {}).get("__doc__")
        return text.strip().splitlines()[0] if text and text.strip() else ""

    # The contract's `apply`.

    def apply(self, batch: Batch) -> "Failure | None":
        """Folds a batch into the tables; returns why it failed, if it did."""
        if self._failed:
            return Failure(None, "an earlier call failed; the instance should have been dropped")
        assert self.settings is not None, "`apply` was called before `setup`"
        call.reset()
        call.applying = True
        # If this does not return, the instance is dropped.
        self._failed = True
        try:
            failure = self._run(View(batch, self.settings))
            if failure is None:
                _send_timers_and_events()
        finally:
            call.reset()
        self._failed = failure is not None
        return failure

    def _run(self, view: View) -> "Failure | None":
        batch = view.batch
        events = None
        try:
            for index, (at, key, offset) in enumerate(batch.timers):
                self._fire(index, Timer(view.settings, at, key, offset, batch.watermark))
            call.cause = _PREPARING
            if batch.offsets and self.prepare_function is not None:
                events = [self._event(view, index) for index in range(len(batch.offsets))]
                self.prepare_function(events)
            if batch.offsets:
                call.undo = []
                self._fold(view, events)
                call.undo = None
            call.cause = _SENDING
            for table in self.tables:
                table.flush()
        except Trap:
            raise
        except FlushError as error:
            return self._failure(view, error.cause, error)
        except BaseException as error:  # noqa: B902 - sys.exit is a failure as well
            return self._failure(view, call.cause, error)
        return None

    def rejected(self, view: View, cause: int, error: BaseException) -> bool:
        """Undoes the event that has failed with ``error``, and rejects it. Returns false if
        the call must fail instead."""
        # Most events may fail, so the usual case calls few functions.
        if (
            type(error) not in _no_faults
            or error.__context__ is not None
            or error.__cause__ is not None
        ) and _is_fault(error):
            return False
        if call.sent == cause:
            return False
        function = self.apply_function
        if type(function) is types.FunctionType:
            reason = self._places.reason_of_event(error, function)
        else:
            reason = self._places.reason(error, function)
        batch = view.batch
        place = cause - view.first
        kind = batch.type_names[batch.types[place]]
        for table in self.tables:
            if table.touched:
                table.undo()
        if call.undo or call.outbox or call.timers:
            call.undo_event(cause)
        assert call.host is not None
        call.host.reject(cause, f"`{kind}` at offset {batch.offsets[place]}: {reason}")
        return True

    def _fire(self, index: int, timer: Timer) -> None:
        call.cause = index
        call.tenant = timer.tenant if "\0" in timer.full_key else None
        if self.timer_function is not None:
            self.timer_function(timer)
        for table in self.tables:
            table.check()
            table.note(index)
            table.touched.clear()

    def _event(self, view: View, place: int) -> Event:
        event = Event()
        event._view = view
        event._index = view.first + place
        return event

    def _failure(self, view: View, cause: int, error: BaseException) -> Failure:
        if cause < 0:
            reason = self._places.reason(error, self.apply_function)
            return Failure(None, f"{_PHASES[cause]}: {reason}")
        if cause < view.first:
            reason = self._places.reason(error, self.timer_function)
            at, key, _ = view.batch.timers[cause]
            return Failure(cause, f"timer {key!r} due at {text_of(at)}: {reason}")
        return Failure(cause, self._message(view, cause - view.first, error))

    def _message(self, view: View, place: int, error: BaseException) -> str:
        """Why the event at ``place`` cannot be applied."""
        batch = view.batch
        reason = self._places.reason(error, self.apply_function)
        kind = batch.type_names[batch.types[place]]
        return f"`{kind}` at offset {batch.offsets[place]}: {reason}"


_CAUSES_MAX = 100
_FAULTS = (MemoryError, RecursionError, FlushError)
_NO_FAULTS_MAX = 256
_no_faults: set[type] = set()
"""Types whose errors are no faults."""


def _is_fault(error: BaseException) -> bool:
    """Whether an error may be caused by the instance and not by the event: a limit was reached, or
    rows of another event cannot be sent. An event with such an error is not rejected. Instead the
    call fails, and the host applies the event alone."""
    cause: "BaseException | None" = error
    for _ in range(_CAUSES_MAX):
        if cause is None:
            break
        if not isinstance(cause, Exception):
            return True
        if isinstance(cause, _FAULTS):
            return True
        cause = cause.__cause__ or cause.__context__
    else:
        return True
    if len(_no_faults) >= _NO_FAULTS_MAX:
        _no_faults.clear()
    _no_faults.add(type(error))
    return False


def _send_timers_and_events() -> None:
    host = call.host
    assert host is not None
    for cause, at, key in call.timers:
        if at is None:
            host.cancel_timer(cause, key)
        else:
            host.set_timer(cause, at, key)
    if call.outbox:
        host.emit(call.outbox)


def _texts(what: str, texts: Any) -> list[str]:
    if isinstance(texts, str):
        texts = [texts]
    texts = list(texts)
    for text in texts:
        if not isinstance(text, str):
            raise ManifestError(f"{what}: {text!r} is not text")
    return texts


def _members(
    declared: dict[str, Field], usage: "Usage | None", has_data: bool
) -> list[Member]:
    members = []
    for name, field in declared.items():
        if not isinstance(field, Field) or field.kind in ("binary", "nothing"):
            raise ManifestError(f"members: `{name}={field!r}` is not a kind; write text, integer")
        members.append(Member(name, field.kind, False))
    if usage is not None and has_data:
        members += [Member(it, "json", True) for it in usage.members if it not in declared]
    return members


_current = Program()


def current() -> Program:
    """The projection whose module is being loaded."""
    return _current


def start(program: Program) -> Program:
    """Makes ``program`` the one that declarations belong to; returns the one before."""
    global _current
    before, _current = _current, program
    return before


def load_text(name: str, text: str) -> Program:
    """Runs the text of a module, and returns what it declares."""
    program = Program(name, text)
    before = start(program)
    module = types.ModuleType("__lantern_script__")
    module.__file__ = name
    sys.modules[module.__name__] = module
    try:
        check_nesting(text, name)
        exec(compiled(text, name), module.__dict__)
    finally:
        start(before)
    return program


_KNOWN = (
    "name",
    "version",
    "description",
    "subscribes",
    "on_failure",
    "attributes",
    "members",
    "data",
    "emits",
    "lateness",
    "tick",
    "cycle_depth_max",
)


def _known(declared: dict[str, Any]) -> dict[str, Any]:
    for name in declared:
        if name not in _KNOWN:
            raise ManifestError(f"@projection has no {name!r}; it has {', '.join(_KNOWN)}")
    return declared


def projection(
    *,
    name: str = "",
    version: str = "0.1.0",
    description: str = "",
    subscribes: "Iterable[str] | str",
    on_failure: str = "park-subject",
    attributes: Iterable[str] = (),
    members: "dict[str, Field] | None" = None,
    data: bool = True,
    emits: "Iterable[str] | str" = (),
    lateness: "Duration | None" = None,
    tick: "Duration | None" = None,
    cycle_depth_max: "int | None" = None,
) -> Callable[[Callable[[Event], Any]], Callable[[Event], Any]]:
    """Makes a function the one that applies an event.

    :param name: lower-case letters, digits and hyphens; by default that of the file.
    :param version: a semantic version, for people.
    :param description: a sentence; by default the first line of the module's
        documentation.
    :param subscribes: event types: ``order.placed``, ``order.*`` or ``*``.
    :param on_failure: ``park-subject`` (the default: later events of the same subject
        wait behind an event that cannot be applied), ``park-event`` (only that event is
        parked) or ``halt``.
    :param attributes: attributes to request. The attributes that the projection's text reads
        are requested automatically.
    :param members: members of data with their kinds, which the host decodes:
        ``{"cents": integer}``. An event fails when the projection reads a member that the
        event does not have, or that has another kind.
    :param data: if False, the data are not passed at all, only ``members`` are.
    :param emits: the types of events it may emit.
    :param lateness: how much older than the newest event an event may be without being
        late; requests event time.
    :param tick: timers fire at whole ticks; choose the largest tick that the windows allow.
    :param cycle_depth_max: lets the projection be part of a cycle.
    """
    declared = {
        "name": name,
        "version": version,
        "description": description,
        "subscribes": subscribes,
        "on_failure": on_failure,
        "attributes": attributes,
        "members": members,
        "data": data,
        "emits": emits,
        "lateness": lateness,
        "tick": tick,
        "cycle_depth_max": cycle_depth_max,
    }

    def decorate(function: Callable[[Event], Any]) -> Callable[[Event], Any]:
        program = current()
        if program.apply_function is not None:
            raise ManifestError("a module has one @projection")
        program.apply_function = function
        program.declared = declared
        _keep_source(program, function)
        return function

    return decorate


def _keep_source(program: Program, function: Any) -> None:
    """Keeps the text of an imported module, for analysis and for reasons."""
    name = function.__code__.co_filename
    if name not in program.sources:
        try:
            module = inspect.getmodule(function)
            if module is not None:
                program.sources[name] = inspect.getsource(module)
        except (OSError, TypeError):
            pass


def on_timer(function: Callable[[Timer], Any]) -> Callable[[Timer], Any]:
    """Decorates the function that handles timers, including the timers of windows."""
    current().timer_function = function
    return function


def prepare(function: Callable[[Sequence[Event]], Any]) -> Callable[[Sequence[Event]], Any]:
    """Decorates the function that gets all events of a batch before the first of them is applied,
    to :meth:`prefetch <.Table.prefetch>` rows. The function must not change anything."""
    current().prepare_function = function
    return function


def on_setup(function: Callable[[], Any]) -> Callable[[], Any]:
    """Decorates the function that is called once the parameters are known. The function may return
    a dict of arguments of :func:`projection`, which replace the arguments of the decorator."""
    current().setup_function = function
    return function
