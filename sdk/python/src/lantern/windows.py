"""Windows over event time.

A window is *updating* or *final*. The row of an updating window changes with every event. For
tumbling and hopping windows this needs only :func:`tumbling` or :func:`hopping` and a key that
begins with the window. The row of a final window is written once, when the watermark has passed the
end of the window. Until then the window's value is in a private table, and a timer is set for its
end. A projection with final windows needs event time (``lateness=…, tick=…``).

=================  =============================  =================================
windows            updating                       final
=================  =============================  =================================
tumbling, hopping  :func:`tumbling`               :class:`OpenWindows`
session            :meth:`OpenSessions.add`       :meth:`OpenSessions.close`
sliding            :meth:`Recent.add`,            :meth:`Advanced.settled`
                   :meth:`Advanced.current`
=================  =============================  =================================

If an event arrives after its window was closed, it is late. The functions that add an event report
this, so that the projection can count late events.
"""

from __future__ import annotations

import bisect
from typing import Any, Callable, Iterator, NamedTuple, Protocol

from ._host import call
from ._window_rows import MAX as _MAX
from ._window_rows import SessionsCodec, ValuesCodec
from .errors import LanternError, RowError
from .events import OWN_TIMER, Event, Timer, set_timer
from .fields import Field, StructCodec, ValueCodec, check_fields, integer
from .keys import Key, split_tenant
from .tables import CACHE_ROWS, Rows
from .times import Duration, Timestamp, Window, micros_of

RECENT_EVENTS_MAX = 16_384
"""The maximum number of values that a :class:`Recent` keeps for one key."""

_MIN = -(2**63)
_ARMED_MAX = 16


class WindowSet(Protocol):
    """Windows that :class:`OpenWindows` can use: :class:`Windows`, or the days of a
    :class:`.TimeZone`."""

    def of(self, time: int) -> Iterator[Window]:
        """The windows that ``time`` is in, oldest first."""
        ...


class Windows:
    """Windows of one size at equal distances, counted from 1970-01-01T00:00:00Z."""

    def __init__(self, size: Duration, hop: "Duration | None" = None) -> None:
        self.size = max(1, micros_of(size))
        self.hop = max(1, micros_of(size if hop is None else hop))

    def of(self, time: int) -> Iterator[Window]:
        """The windows that ``time`` is in, oldest first.

        >>> [str(it.start) for it in hopping("10s", "4s").of(Timestamp(10_000_000))]
        ['1970-01-01T00:00:04Z', '1970-01-01T00:00:08Z']
        """
        time = int(time)
        newest = max(_MIN, time - time % self.hop)
        older = max(-1, self.size - 1 - (time - newest))
        count = 0 if older < 0 else older // self.hop + 1
        for back in range(count - 1, -1, -1):
            start = max(_MIN, newest - back * self.hop)
            yield Window(Timestamp(start), Timestamp(min(_MAX, start + self.size)))


def tumbling(size: Duration) -> Windows:
    """Adjacent windows: every moment is in exactly one."""
    return Windows(size)


def hopping(size: Duration, hop: Duration) -> Windows:
    """Windows of ``size`` that begin every ``hop``. If ``hop`` is smaller than ``size``, they
    overlap, and every moment is in about ``size / hop`` of them."""
    return Windows(size, hop)


def sortable(time: int) -> str:
    """A time as text that sorts by time."""
    return f"{(time & 0xFFFF_FFFF_FFFF_FFFF) ^ (1 << 63):016x}"


def from_sortable(text: str) -> "Timestamp | None":
    """The time of :func:`sortable`."""
    try:
        bits = int(text, 16) ^ (1 << 63)
    except ValueError:
        return None
    return Timestamp(bits - (1 << 64) if bits >= 1 << 63 else bits)


def _escaped(part: str) -> str:
    return part.replace("%", "%25").replace("/", "%2F")


def _row_key(tenant: str, rest: str) -> str:
    """The key of the row that has all values of an owner."""
    return f"{_escaped(tenant)}/{rest}"


def _timer_key(table: int, tenant: str, rest: str) -> str:
    own = f"{OWN_TIMER}{table}/{rest}"
    return f"{tenant}\0{own}" if tenant else own


def _timer_owner(table: int, timer: Timer) -> "tuple[str, str] | None":
    """The tenant and the rest of the key of a timer, if this table has set the timer."""
    prefix = f"{OWN_TIMER}{table}/"
    key = timer.key
    return (timer.tenant, key[len(prefix) :]) if key.startswith(prefix) else None


def _codec(name: str, kind: "Field | None", fields: dict[str, Field]) -> Any:
    if fields:
        if kind is not None:
            raise TypeError(f"windows `{name}`: give one kind, or fields")
        return StructCodec(check_fields(name, fields))
    return ValueCodec(integer if kind is None else kind)


def _located(table: str, row_key: str, error: RowError) -> RowError:
    """An error of a value, with the place of the value."""
    what = "" if error.field else "the value "
    return RowError(f"table `{table}`: row {row_key!r}: {what}{error}")


Change = Callable[[Any], Any]
"""Changes a value in place, or returns the new one."""


def _changed(value: Any, change: Change) -> Any:
    result = change(value)
    return value if result is None else result


class Closed(NamedTuple):
    """A window that is over, and its value."""

    window: Window
    """The window."""
    tenant: str
    """The tenant of the key, if that is an :class:`.InTenant`; otherwise empty."""
    key: str
    """The key under which its events were added, without the tenant."""
    value: Any
    """The value that the events of the window have made from the default value."""


class OpenWindows(Rows[Any]):
    """Tumbling or hopping windows that are still open. It is a private table with the values
    collected so far, one for each window and key.

    A value is of one kind (an integer by default), or has fields::

        open = OpenWindows("open", orders=integer, cents=integer)

        def add(sums):
            sums["orders"] += 1

        late = open.add(event, tumbling("1m"), event.type, add)
    """

    def __init__(
        self,
        name: str,
        kind: "Field | None" = None,
        /,
        *,
        cache: int = CACHE_ROWS,
        **fields: Field,
    ) -> None:
        super().__init__(name, "", _codec(name, kind, fields), public=False, cache=cache)
        self._armed: list[tuple[int, str]] = []

    def add(self, event: Event, windows: WindowSet, key: Key, change: Change) -> int:
        """Adds an event, under ``key``, to each open window of ``windows`` that contains the event.
        ``change`` gets the window's value, and changes it or returns a new one. Returns the number
        of the event's windows that were already closed. It is 0 unless the event is late."""
        tenant, rest = split_tenant(f"table `{self.name}`", key)
        watermark = event.watermark
        late = 0
        for window in windows.of(event.time):
            if window.end <= watermark:
                late += 1
                continue
            row_key = f"{_prefix(window.end, tenant)}{sortable(window.start)}/{rest}"
            value = self._read(row_key)
            self._touch(row_key, value)
            if value is None:
                self._arm(event, window.end, tenant)
                value = self.codec.default()
            self._set(row_key, _changed(value, change))
        return late

    def close(self, timer: Timer) -> list[Closed]:
        """Removes the windows that end with ``timer`` from the table, and returns them in the order
        of their starts and keys. A timer of a tenant ends only windows of this tenant. Returns no
        windows if this table did not set the timer."""
        owner = _timer_owner(self.id, timer)
        end = None if owner is None else from_sortable(owner[1])
        if owner is None or end is None:
            return []
        prefix = _prefix(end, owner[0])
        closed = []
        for row_key, value in self._scan(prefix, "", "", None, False):
            self.delete(row_key)
            text, _, key = row_key[len(prefix) :].partition("/")
            start = from_sortable(text)
            if start is None:
                raise LanternError(f"{row_key!r} is not an open window")
            closed.append(Closed(Window(start, end), owner[0], key, value))
        return closed

    def _arm(self, event: Event, end: int, tenant: str) -> None:
        # A timer that is set again for the same time does not change.
        if (end, tenant) in self._armed:
            return
        if len(self._armed) == _ARMED_MAX:
            del self._armed[0]
        self._armed.append((end, tenant))
        if call.undo is not None:
            call.undo.append((self._armed.clear,))
        set_timer(event._settings(), end, _timer_key(self.id, tenant, sortable(end)))

    def reset(self) -> None:
        super().reset()
        self._armed.clear()


def _prefix(end: int, tenant: str) -> str:
    return f"{sortable(end)}/{_escaped(tenant)}/"


class Joined(NamedTuple):
    """The session that an event is now part of."""

    window: Window
    """From the session's first event to a gap after its last one."""
    value: Any
    """The value collected so far."""
    absorbed: list[Timestamp]
    """The starts of sessions that were joined into this one and no longer exist. If you
    show sessions while they grow, delete the rows of these sessions."""


class OpenSessions(Rows[Any]):
    """Sessions that are still open. It is a private table with the value collected so far for each
    session.

    A session is a series of events of one key. The time between an event and the next is less than
    the *gap*. A session ends when the gap has passed since its last event. An event between two
    sessions may join them into one; ``combine(earlier, later)`` then returns the value of the
    joined session. Without ``combine``, numbers are added, and so are the integer and number fields
    of a value with fields.
    """

    def __init__(
        self,
        name: str,
        kind: "Field | None" = None,
        /,
        *,
        combine: "Callable[[Any, Any], Any] | None" = None,
        cache: int = CACHE_ROWS,
        **fields: Field,
    ) -> None:
        self._value = _codec(name, kind, fields)
        self._combine = combine
        super().__init__(name, "", SessionsCodec(self._value), public=False, cache=cache)

    def _join(self, earlier: Any, later: Any) -> Any:
        if self._combine is not None:
            result = self._combine(earlier, later)
            return earlier if result is None else result
        if isinstance(earlier, dict) and isinstance(self._value, StructCodec):
            for name, field in self._value.fields.items():
                if field.kind in ("integer", "number"):
                    earlier[name] += later[name]
                elif field.kind in ("distinct", "percentiles"):
                    earlier[name].merge(later[name])
            return earlier
        if hasattr(earlier, "merge"):
            earlier.merge(later)
            return earlier
        if isinstance(earlier, (int, float)):
            return earlier + later
        raise LanternError(f"sessions `{self.name}`: give combine=… to join two values")

    def add(self, event: Event, gap: Duration, key: Key, change: Change) -> "Joined | None":
        """Adds an event to the session of ``key`` to which it belongs, which may be a new one.
        ``change`` gets the session's value, and changes it or returns a new one. Returns None if
        the event is late: its time is the gap or more before the watermark, and it is not within an
        open session."""
        tenant, rest = split_tenant(f"table `{self.name}`", key)
        row_key = _row_key(tenant, rest)
        start = int(event.time)
        end = min(_MAX, start + micros_of(gap))
        if end <= event.watermark:
            known = self._read(row_key)
            if known is None or not any(a <= start < b for a, b, _ in known.sessions):
                return None
        row = self.mutable(row_key)
        sessions = row.sessions
        first = sum(1 for it in sessions if it[1] <= start)
        after = sum(1 for it in sessions if it[0] < end)
        absorbed = []
        value: Any = None
        found = False
        new_start, new_end = start, end
        for its_start, its_end, its_value in sessions[first:after]:
            new_start = min(new_start, its_start)
            new_end = max(new_end, its_end)
            absorbed.append(its_start)
            value = self._join(value, its_value) if found else its_value
            found = True
        value = _changed(value if found else self._value.default(), change)
        value = self._value.check(value)
        if type(value) is RowError:
            raise _located(self.name, row_key, value)
        sessions[first:after] = [(new_start, new_end, value)]
        if new_end < row.armed:
            row.armed = new_end
            set_timer(event._settings(), new_end, _timer_key(self.id, tenant, rest))
        return Joined(
            Window(Timestamp(new_start), Timestamp(new_end)),
            value,
            [Timestamp(it) for it in absorbed if it != new_start],
        )

    def close(self, timer: Timer) -> list[Closed]:
        """Removes the sessions that end with ``timer`` from the table and returns them, oldest
        first. Returns no sessions if this table did not set the timer."""
        owner = _timer_owner(self.id, timer)
        if owner is None:
            return []
        tenant, rest = owner
        row_key = _row_key(tenant, rest)
        row = self._existing(row_key)
        if row is None:
            return []
        over = sum(1 for it in row.sessions if it[1] <= timer.watermark)
        closed = [
            Closed(Window(Timestamp(start), Timestamp(end)), tenant, rest, value)
            for start, end, value in row.sessions[:over]
        ]
        del row.sessions[:over]
        if row.sessions:
            row.armed = row.sessions[0][1]
            set_timer(timer._settings(), row.armed, timer.full_key)
        else:
            self.delete(row_key)
        return closed


class Slide(NamedTuple):
    """The content of a window that ends at some moment."""

    at: Timestamp
    """The last moment of the window."""
    entries: list[tuple[Timestamp, Any]]
    """The times and values in it, in the order of their times."""

    def values(self) -> list[Any]:
        """The values in it, in the order of their times."""
        return [value for _, value in self.entries]


def _first(entry: tuple[int, Any]) -> int:
    return entry[0]


def _slide(entries: list[tuple[int, Any]], at: int, size: int) -> Slide:
    start = bisect.bisect_right(entries, at - size, key=_first)
    end = bisect.bisect_right(entries, at, key=_first)
    found = [(Timestamp(time), value) for time, value in entries[start:end]]
    return Slide(Timestamp(at), found)


class Advanced(NamedTuple):
    """A key whose window has advanced with the watermark."""

    tenant: str
    """The tenant of the key, if that is an :class:`.InTenant`; otherwise empty."""
    key: str
    """The key under which the values were added, without the tenant."""
    watermark: Timestamp
    """The watermark."""
    size: int
    """The size of the window in microseconds."""
    entries: list[tuple[int, Any]]
    """The values before old ones were removed."""
    settled_range: tuple[int, int]
    """The indexes of the values whose windows can no longer change."""

    def current(self) -> Slide:
        """The window that ends at the watermark or, if that is later, with the newest
        event."""
        at = max([int(self.watermark), *(time for time, _ in self.entries[-1:])])
        return _slide(self.entries, at, self.size)

    def settled(self) -> Iterator[Slide]:
        """The windows that end with an event and can no longer change, ordered by time. Each window
        is returned once. Events at the same time have the same window."""
        for index in range(*self.settled_range):
            time = self.entries[index][0]
            if index + 1 == len(self.entries) or self.entries[index + 1][0] != time:
                yield _slide(self.entries, time, self.size)


class Recent(Rows[Any]):
    """The latest values of each key, in sliding windows. A sliding window ends with each event, and
    not at fixed times.

    The window of ``size`` that ends at time ``t`` contains the values of events after
    ``t - size``, up to and including ``t``.
    """

    def __init__(
        self,
        name: str,
        kind: "Field | None" = None,
        /,
        *,
        cache: int = CACHE_ROWS,
        **fields: Field,
    ) -> None:
        self._value = _codec(name, kind, fields)
        super().__init__(name, "", ValuesCodec(self._value), public=False, cache=cache)

    def add(self, event: Event, size: Duration, key: Key, value: Any) -> "Slide | None":
        """Adds an event's value under ``key``, and returns the window of ``size`` that ends with
        the key's newest event, which is usually this one. Returns None if the event is so late that
        no window contains it any more. Use the same ``size`` every time."""
        tenant, rest = split_tenant(f"table `{self.name}`", key)
        row_key = _row_key(tenant, rest)
        value = self._value.check(value)
        if type(value) is RowError:
            raise _located(self.name, row_key, value)
        micros = max(1, micros_of(size))
        time = int(event.time)
        if min(_MAX, time + micros) <= event.watermark:
            return None
        row = self.mutable(row_key)
        if len(row.entries) >= RECENT_EVENTS_MAX:
            raise LanternError(
                f"{row_key!r} has {RECENT_EVENTS_MAX} values in a sliding window, which is the "
                "limit; use hopping windows"
            )
        place = bisect.bisect_right(row.entries, time, key=_first)
        if call.undo is not None:
            call.undo.append((row.restore, row.armed, row.size, row.settled, place))
        row.size = micros
        row.entries.insert(place, (time, value))
        if time < event.watermark:
            # All windows up to the watermark were returned before. The window of the new value ends
            # before the watermark too, so it counts as returned.
            row.settled += 1
        due = row.due()
        if due < row.armed:
            row.armed = due
            set_timer(event._settings(), due, _timer_key(self.id, tenant, rest))
        return _slide(row.entries, row.entries[-1][0], row.size)

    def advance(self, timer: Timer) -> "Advanced | None":
        """Moves the window of the key to which ``timer`` belongs to the watermark. Returns None if
        this table did not set the timer."""
        owner = _timer_owner(self.id, timer)
        if owner is None:
            return None
        tenant, rest = owner
        row_key = _row_key(tenant, rest)
        row = self._existing(row_key)
        if row is None:
            return None
        watermark = timer.watermark
        told = row.settled
        settled = max(told, bisect.bisect_left(row.entries, watermark, key=_first))
        advanced = Advanced(
            tenant, rest, watermark, row.size, list(row.entries), (told, settled)
        )
        dropped = bisect.bisect_right(row.entries, watermark - row.size, key=_first)
        del row.entries[:dropped]
        row.settled = settled - dropped
        if row.entries:
            row.armed = row.due()
            set_timer(timer._settings(), row.armed, timer.full_key)
        else:
            self.delete(row_key)
        return advanced
