"""Events and timers, as a projection gets them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterator, NamedTuple

from . import _host
from ._host import call
from ._json import read_json, write_json
from .errors import DataError, KeyRefused, UndeclaredError
from .fields import Field
from .keys import NUL, InTenant, Key, key_text
from .times import Timestamp

if TYPE_CHECKING:
    from .program import Settings

OWN_TIMER = "\1"
"""The first character of the keys of timers that the SDK sets for itself."""

ABSENT: Any = object()
"""In a column: the event has no valid value of the member."""

_BITS = [[byte >> place & 1 for place in range(8)] for byte in range(256)]


class MissingMember(DataError, KeyError):
    """A declared member that an event does not have."""

    def __str__(self) -> str:
        return str(self.args[0])


class MemberColumn:
    """A member of all events of a batch, as the host decoded it."""

    __slots__ = ("kind", "validity", "values", "mismatched")

    def __init__(self, kind: str, validity: bytes, values: Any, mismatched: list[int]) -> None:
        self.kind = kind
        self.validity = validity
        self.values = values
        """A list of numbers, a bitmap, or a column."""
        self.mismatched = mismatched

    def decoded(self, count: int, field: "Field | None" = None) -> list[Any]:
        """A value for each event. An event that does not have the member gets
        :data:`ABSENT` or, if ``field`` (an optional member) is given, the default of the
        field."""
        values = self._values(count)
        if field is not None and not self.mismatched:
            if type(field.default) is type(values[0] if values else None) and not field.default:
                # Values that are missing are 0, false or empty in the column.
                return values
        if self.validity.count(0xFF) * 8 + 8 > count and self._all_valid(count):
            return values
        flags = [flag for byte in self.validity for flag in _BITS[byte]]
        absent = ABSENT if field is None else field.default
        values = [value if flag else absent for value, flag in zip(values, flags)]
        for place in self.mismatched if field is not None else ():
            values[place] = ABSENT
        return values

    def _all_valid(self, count: int) -> bool:
        whole, rest = divmod(count, 8)
        if self.validity.count(0xFF, 0, whole) != whole:
            return False
        return rest == 0 or self.validity[whole] == (1 << rest) - 1

    def _values(self, count: int) -> list[Any]:
        kind, values = self.kind, self.values
        if kind in ("integer", "number"):
            return values
        if kind == "timestamp":
            return list(map(Timestamp, values))
        if kind == "boolean":
            return [bool(flag) for byte in values for flag in _BITS[byte]][:count]
        texts = column_texts(values)
        if kind == "text":
            return texts
        return read_json("[" + ",".join([it or "null" for it in texts]) + "]")


def column_texts(column: _host.Column) -> list[str]:
    """The texts of a column."""
    ends, data = column
    if data.isascii():
        whole = data.decode("ascii")
        return [whole[start:end] for start, end in zip([0, *ends], ends)]
    return [data[start:end].decode() for start, end in zip([0, *ends], ends)]


class Batch:
    """A batch, as the contract passes it. Columns are pairs of ends and bytes; columns that
    were not requested are empty."""

    __slots__ = (
        "partition",
        "timers",
        "watermark",
        "offsets",
        "times",
        "watermarks",
        "type_names",
        "types",
        "columns",
        "members",
    )

    def __init__(
        self,
        partition: int,
        timers: list[tuple[int, str, int]],
        watermark: int,
        offsets: list[int],
        times: list[int],
        watermarks: list[int],
        type_names: list[str],
        types: list[int],
        columns: dict[str, _host.Column],
        members: list[MemberColumn],
    ) -> None:
        self.partition = partition
        self.timers = timers
        self.watermark = watermark
        self.offsets = offsets
        self.times = times
        self.watermarks = watermarks
        self.type_names = type_names
        self.types = types
        self.columns = columns
        self.members = members


class Unusable(NamedTuple):
    """The reason why an event has no value of a declared member. Most events may fail for this
    reason, so the texts are created only once."""

    place: int
    """The place of the member among the members of the manifest."""
    of_another_kind: str
    missing: str

    @classmethod
    def of(cls, place: int, name: str, field: Field) -> "Unusable":
        """The texts for a member."""
        return cls(
            place,
            f"data: the member `{name}` is not of the kind {field.kind}, or is present "
            "more than once, or the data are not a JSON object",
            f"data: the member `{name}` is missing or null",
        )


class View:
    """A batch while it is applied: the values of its events."""

    __slots__ = ("batch", "settings", "first", "_texts", "_mismatched")

    def __init__(self, batch: Batch, settings: "Settings") -> None:
        self.batch = batch
        self.settings = settings
        self.first = len(batch.timers)
        """The index of the first event, behind the timers."""
        self._texts: dict[str, list[str]] = {}
        self._mismatched: dict[int, frozenset[int]] = {}

    def texts(self, attribute: str) -> list[str]:
        """An attribute of all events."""
        texts = self._texts.get(attribute)
        if texts is None:
            texts = column_texts(self.batch.columns[attribute])
            self._texts[attribute] = texts
        return texts

    def kinds(self) -> list[str]:
        """The types of all events."""
        names = self.batch.type_names
        return [names[place] for place in self.batch.types]

    def members(self, place: int) -> list[Any]:
        """The declared member at ``place`` of all events."""
        field = self.settings.declared.get(self.settings.members[place].name)
        column = self.batch.members[place]
        optional = field if field is not None and field.optional else None
        return column.decoded(len(self.batch.offsets), optional)

    def no_objects(self) -> frozenset[int]:
        """The indexes of events with an inferred member that the host could not decode. Most likely
        the data of such an event is not a JSON object."""
        found: set[int] = set()
        for member, column in zip(self.settings.members, self.batch.members):
            if member.inferred:
                found.update(column.mismatched)
        return frozenset(index + self.first for index in found)

    def data_bytes(self, index: int) -> bytes:
        """The data of the event at ``index``."""
        ends, data = self.batch.columns["data"]
        place = index - self.first
        return data[ends[place - 1] if place else 0 : ends[place]]

    def mismatched(self, place: int, index: int) -> bool:
        """Whether the event has the declared member at ``place`` with another kind."""
        events = self._mismatched.get(place)
        if events is None:
            # A set, because most events of the batch may be in it.
            events = frozenset(self.batch.members[place].mismatched)
            self._mismatched[place] = events
        return index - self.first in events


_quoted: dict[Any, bytes] = {}


def quoted(name: Any) -> bytes:
    """A name as JSON has it without escapes."""
    found = _quoted.get(name)
    if found is None:
        if len(_quoted) >= 256:
            _quoted.clear()
        found = _quoted[name] = f'"{name}"'.encode("utf-8", "surrogatepass")
    return found


class Data(dict[str, Any]):
    """The data of an event: a dict of its members.

    The members that the host has decoded are in the dict from the start. The JSON is parsed
    only when another member is read. Each event has a dict of its own, so a change of the
    dict affects no other event.
    """

    __slots__ = ("_event", "_is_filled")

    @property
    def _view(self) -> "View":
        return self._event._view

    @property
    def _index(self) -> int:
        return self._event._index

    @property
    def _filled(self) -> bool:
        return hasattr(self, "_is_filled")

    def __missing__(self, name: str) -> Any:
        event = self._event
        view = event._view
        unusable = view.settings.unusable.get(name)
        if unusable is not None:
            if view.mismatched(unusable.place, event._index):
                raise DataError(unusable.of_another_kind)
            raise MissingMember(unusable.missing)
        if self._is_absent(name):
            raise KeyError(name)
        self._fill()
        if dict.__contains__(self, name):
            return dict.__getitem__(self, name)
        raise KeyError(name)

    def _is_absent(self, name: Any) -> bool:
        """Whether the text shows, without being parsed, that there is no such member: the text has
        no escapes, and does not contain the name."""
        event = self._event
        view = event._view
        if hasattr(self, "_is_filled") or "data" not in view.settings.attributes:
            return False
        raw = view.data_bytes(event._index)
        return b"\\" not in raw and quoted(name) not in raw

    def _fill(self) -> None:
        """Adds all members that were not decoded."""
        if self._filled:
            return
        self._is_filled = True
        settings = self._view.settings
        if "data" not in settings.attributes:
            raise UndeclaredError(
                "the projection reads only declared members of the data: add the name to "
                "members=…, or remove data=False"
            )
        parsed = parse_data(self._view.data_bytes(self._index))
        if not isinstance(parsed, dict):
            raise DataError("data: not a JSON object")
        own = dict(dict.items(self))
        dict.clear(self)
        for name, value in parsed.items():
            if name in own:
                value = own[name]
            elif name in settings.declared:
                continue
            dict.__setitem__(self, name, value)

    def get(self, name: str, default: Any = None) -> Any:
        """The member ``name``; ``default`` if there is none."""
        value = dict.get(self, name, ABSENT)
        if value is not ABSENT:
            return value
        event = self._event
        view = event._view
        unusable = view.settings.unusable.get(name)
        if unusable is not None:
            if view.mismatched(unusable.place, event._index):
                raise DataError(unusable.of_another_kind)
            return default
        if not hasattr(self, "_is_filled"):
            # As in `_is_absent`, which would cost a call.
            raw = view.data_bytes(event._index)
            if b"\\" not in raw and quoted(name) not in raw:
                return default
            self._fill()
        return dict.get(self, name, default)

    def __contains__(self, name: object) -> bool:
        return self.get(name, ABSENT) is not ABSENT  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[str]:
        self._fill()
        return dict.__iter__(self)

    def __len__(self) -> int:
        self._fill()
        return dict.__len__(self)

    def __bool__(self) -> bool:
        return len(self) > 0

    def keys(self) -> Any:
        self._fill()
        return dict.keys(self)

    def values(self) -> Any:
        self._fill()
        return dict.values(self)

    def items(self) -> Any:
        self._fill()
        return dict.items(self)

    def copy(self) -> dict[str, Any]:
        return dict(self.items())

    def pop(self, name: str, *default: Any) -> Any:
        self._fill()
        return dict.pop(self, name, *default)

    def setdefault(self, name: str, default: Any = None) -> Any:
        self._fill()
        return dict.setdefault(self, name, default)

    def __or__(self, other: Any) -> dict[str, Any]:
        return self.copy() | dict(other)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and self.copy() == dict(other.items())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self.copy())

    def __reduce__(self) -> Any:
        return dict, (self.copy(),)


def parse_data(data: bytes) -> Any:
    """The JSON of an event's data."""
    try:
        return read_json(data.decode())
    except (ValueError, RecursionError) as error:
        raise DataError(f"data: {error}") from None


class _Trigger:
    """What can set timers and emit events: an event or a timer."""

    __slots__ = ()

    def set_timer(self, at: "Timestamp | int", key: Key) -> None:
        """Sets the timer of this key, or changes its time. When the watermark reaches ``at``, the
        timer fires, and the function with :func:`.on_timer` is called.

        If a timer must write to tables with ``per_tenant``, set it under an :class:`.InTenant`.
        """
        set_timer(self._settings(), at, timer_key(key))

    def cancel_timer(self, key: Key) -> None:
        """Cancels the timer of this key, if one is set."""
        _host.host()
        call.timers.append((call.cause, None, timer_key(key)))

    def emit(
        self,
        type: str,
        data: Any,
        *,
        subject: str = "",
        tenant: str = "",
        time: "Timestamp | int | None" = None,
    ) -> None:
        """Appends an event to the log if this call succeeds. The projection must declare ``type``
        in ``emits``."""
        settings = self._settings()
        if type not in settings.emits:
            raise UndeclaredError(
                f'event type `{type}` is not declared; add emits=["{type}"] to @projection'
            )
        at = int(self._now() if time is None else time)
        encoded = write_json(data).encode()
        call.outbox.append((call.cause, type, subject, tenant, at, encoded))

    def _settings(self) -> "Settings":
        raise NotImplementedError

    def _now(self) -> Timestamp:
        raise NotImplementedError


def set_timer(settings: "Settings", at: int, key: str) -> None:
    """Sets a timer by its whole key."""
    if not settings.event_time:
        raise UndeclaredError(
            f"timer {key!r}: timers need event time; add lateness=… and tick=… to @projection"
        )
    _host.host()
    call.timers.append((call.cause, int(at), key))


def timer_key(key: Key) -> str:
    """The whole key of a timer of the projection."""
    whole = key_text(key)
    rest = key_text(key.key) if type(key) is InTenant else whole
    tenant = key.tenant if type(key) is InTenant else ""
    why = ""
    if "\0" in rest or "\0" in tenant:
        why = NUL
    elif type(key) is InTenant and not tenant:
        why = "the tenant is empty; handle events without a tenant separately"
    elif not rest:
        why = "a key cannot be empty"
    elif rest.startswith(OWN_TIMER):
        why = "keys that begin with U+0001 are reserved for the windows of the SDK"
    if why:
        raise KeyRefused(f"timer {rest!r}: {why}")
    return whole


class Event(_Trigger):
    """An event.

    Attributes are ``type``, ``time``, ``data``, ``id``, ``source``, ``subject``, ``tenant``,
    ``dataschema``, ``datacontenttype``, ``extensions`` (a dict), ``offset``, ``partition``,
    ``watermark`` and ``late``.
    """

    __slots__ = (
        "_view",
        "_index",
        "type",
        "time",
        "offset",
        "watermark",
        "data",
        "id",
        "source",
        "subject",
        "tenant",
        "dataschema",
        "datacontenttype",
        "extensions",
    )

    type: str
    """CloudEvents ``type``."""
    time: Timestamp
    """CloudEvents ``time``."""
    offset: int
    """The place of the event in its partition."""
    watermark: Timestamp
    """The watermark when the event is applied; an older event is late."""
    data: Any
    """The JSON of the event, parsed."""
    id: str
    """CloudEvents ``id``."""
    source: str
    """CloudEvents ``source``."""
    subject: str
    """CloudEvents ``subject``; empty if there is none."""
    tenant: str
    """The extension ``tenant``; empty if there is none."""
    dataschema: str
    """CloudEvents ``dataschema``; empty if there is none."""
    datacontenttype: str
    """CloudEvents ``datacontenttype``; empty if there is none."""
    extensions: dict[str, Any]
    """All other extensions."""

    def __getattr__(self, name: str) -> Any:
        """The attributes that were not set in advance."""
        view, index = self._view, self._index
        place = index - view.first
        batch = view.batch
        if name == "time":
            value: Any = Timestamp(batch.times[place])
        elif name == "type":
            value = batch.type_names[batch.types[place]]
        elif name == "offset":
            value = batch.offsets[place]
        elif name == "watermark":
            value = Timestamp(batch.watermarks[place])
        elif name in view.settings.attributes:
            if name == "data":
                value = parse_data(view.data_bytes(index))
            elif name == "extensions":
                value = read_json(view.texts(name)[place] or "{}")
            else:
                value = view.texts(name)[place]
        elif name in Event.__slots__:
            raise UndeclaredError(
                f'the attribute `{name}` was not requested; add attributes=["{name}"] to '
                "@projection"
            )
        else:
            raise AttributeError(f"an event has no attribute {name!r}")
        setattr(self, name, value)
        return value

    @property
    def late(self) -> bool:
        """Whether the watermark had passed the event's time."""
        return self.time < self.watermark

    @property
    def partition(self) -> int:
        """The partition of the log that has the event."""
        return self._view.batch.partition

    @property
    def data_bytes(self) -> bytes:
        """The data as it was sent."""
        return self._view.data_bytes(self._index)

    def _settings(self) -> "Settings":
        return self._view.settings

    def _now(self) -> Timestamp:
        return self.time

    def __repr__(self) -> str:
        return f"<Event {self.type} at offset {self.offset}>"


class Timer(_Trigger):
    """A timer that fires: the watermark has reached its time."""

    __slots__ = ("at", "watermark", "full_key", "cause_offset", "_of")

    def __init__(
        self, settings: "Settings", at: int, full_key: str, offset: int, watermark: int
    ) -> None:
        self._of = settings
        self.at = Timestamp(at)
        """The time for which it was set."""
        self.watermark = Timestamp(watermark)
        """The watermark at which it fires."""
        self.full_key = full_key
        """The key with the tenant."""
        self.cause_offset = offset
        """The offset of the event that set it."""

    @property
    def key(self) -> str:
        """The key with which it was set, without the tenant."""
        return self.full_key.partition("\0")[2] if "\0" in self.full_key else self.full_key

    @property
    def tenant(self) -> str:
        """The timer's tenant; empty if it has none."""
        return self.full_key.partition("\0")[0] if "\0" in self.full_key else ""

    def _settings(self) -> "Settings":
        return self._of

    def _now(self) -> Timestamp:
        return self.at

    def __repr__(self) -> str:
        return f"<Timer {self.key!r} due at {self.at}>"
