"""Hours, days, weeks, months and years of a time zone.

A day in Berlin begins at midnight in Berlin, and has 23 or 25 hours when the clocks change. The
rules are those of the IANA database since 1970. The package contains them in the same table as the
Rust SDK.
"""

from __future__ import annotations

import bisect
import datetime as _datetime
import functools
import importlib.resources
from typing import Callable, Iterator, NamedTuple

from .times import Timestamp, Window, date_of, day_of

_SECOND = 1_000_000
_DAY = 86_400 * _SECOND
_MIN = -(2**63)
_MAX = 2**63 - 1
_LISTED_UNTIL = 2101
_UNIT_S = 30


class _Span(NamedTuple):
    """A time during which a zone has one offset, in microseconds and seconds."""

    start: int
    end: int
    offset_s: int


class _Reader:
    """Reads integers of variable length."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def natural(self) -> int:
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def signed(self) -> int:
        value = self.natural()
        return (value >> 1) ^ -(value & 1)

    def day(self) -> "_Day":
        return _Day(self.natural(), self.natural(), self.natural(), self.signed())


class _Day(NamedTuple):
    """A rule for one day of each year, such as the last Sunday in March, and a time of that
    day, by the clock before the change."""

    month: int
    week: int
    weekday: int
    time_s: int

    def of(self, year: int) -> int:
        """In seconds since 1970, by the clock before the change."""
        first = day_of(year, self.month, 1)
        # 1970-01-01 was a Thursday.
        day = first + (self.weekday - (first + 4)) % 7 + (self.week - 1) * 7
        while date_of(day)[1] != self.month:
            day -= 7
        return day * 86_400 + self.time_s


class _Rule(NamedTuple):
    """The yearly rule for summer time."""

    standard_s: int
    summer_s: int
    begins: _Day
    ends: _Day

    def changes(self, year: int) -> list[tuple[int, int]]:
        """The two changes of a year, in order."""
        begins = ((self.begins.of(year) - self.standard_s) * _SECOND, self.summer_s)
        ends = ((self.ends.of(year) - self.summer_s) * _SECOND, self.standard_s)
        return [begins, ends] if begins < ends else [ends, begins]

    def at(self, micros: int, last: _Span) -> _Span:
        """The span at a time after the last listed change."""
        year = date_of(micros // _DAY)[0]
        span = last
        for each in (year - 1, year, year + 1):
            for start, offset_s in self.changes(each):
                if start <= last.start:
                    continue
                if start > micros:
                    return _Span(span.start, start, span.offset_s)
                span = _Span(start, _MAX, offset_s)
        return span


@functools.cache
def _table() -> tuple[dict[str, tuple[int, int]], bytes]:
    data = importlib.resources.files(__package__).joinpath("zones.bin").read_bytes()
    names = {}
    at = 0
    while data[at]:
        length = data[at]
        name = data[at + 1 : at + 1 + length].decode()
        at += 1 + length
        start = int.from_bytes(data[at : at + 2], "big")
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        names[name] = (start, size)
        at += 4
    return names, data[at + 1 :]


def names() -> list[str]:
    """The names of all time zones, in order."""
    return list(_table()[0])


class TimeZone:
    """The rules of one zone: its offset from UTC at every time.

    >>> berlin = TimeZone("Europe/Berlin")
    >>> noon = Timestamp.parse("2026-03-29T12:00:00Z")
    >>> [str(it) for it in berlin.day(noon)]
    ['2026-03-28T23:00:00Z', '2026-03-29T22:00:00Z']
    >>> berlin.date(noon).isoformat(), berlin.local(noon).hour
    ('2026-03-29', 14)
    """

    def __init__(self, name: str = "UTC") -> None:
        self.name = name
        """The name in the IANA database."""
        self._rule: _Rule | None = None
        self._starts: list[int] = []
        self._offsets: list[int] = [0]
        self._span_memo = _Span(0, 0, 0)
        if name == "UTC":
            return
        zones, data = _table()
        if name not in zones:
            raise ValueError(
                f"{name!r} is not a time zone; give a name of the IANA database, "
                "such as `Europe/Berlin`"
            )
        start, size = zones[name]
        self._decode(_Reader(data[start : start + size]))

    @classmethod
    def fixed(cls, seconds: int) -> "TimeZone":
        """A zone that is always ``seconds`` ahead of UTC."""
        zone = cls()
        zone.name = f"UTC{seconds:+}s"
        zone._offsets = [seconds]
        return zone

    def _decode(self, reader: _Reader) -> None:
        count = reader.natural()
        offsets = [reader.signed() for _ in range(count)]
        at_s = 0
        self._offsets = [offsets[0]]
        for _ in range(reader.natural()):
            change = reader.natural()
            at_s += change // count * _UNIT_S
            self._starts.append(at_s * _SECOND)
            self._offsets.append(offsets[change % count])
        if reader.natural() == 1:
            self._rule = rule = _Rule(
                reader.signed(), reader.signed(), reader.day(), reader.day()
            )
            last = self._starts[-1] if self._starts else 0
            for year in range(date_of(last // _DAY)[0], _LISTED_UNTIL):
                for start, offset_s in rule.changes(year):
                    if start > last:
                        self._starts.append(start)
                        self._offsets.append(offset_s)

    def _span(self, micros: int) -> _Span:
        memo = self._span_memo
        if memo.start <= micros < memo.end:
            return memo
        place = bisect.bisect_right(self._starts, micros)
        span = _Span(
            self._starts[place - 1] if place else _MIN,
            self._starts[place] if place < len(self._starts) else _MAX,
            self._offsets[place],
        )
        if span.end == _MAX and self._rule is not None:
            span = self._rule.at(micros, span)
        self._span_memo = span
        return span

    def offset_seconds(self, time: int) -> int:
        """How far the zone's clocks are ahead of UTC at ``time``."""
        return self._span(time).offset_s

    def _local(self, time: int) -> int:
        return int(time) + self._span(time).offset_s * _SECOND

    def date(self, time: int) -> _datetime.date:
        """The date in this zone."""
        return _datetime.date(*date_of(self._local(time) // _DAY))

    def local(self, time: int) -> _datetime.datetime:
        """Date and time of day in this zone, as a ``datetime`` without a zone."""
        epoch = _datetime.datetime(1970, 1, 1)
        return epoch + _datetime.timedelta(microseconds=self._local(time))

    def hour(self, time: int) -> Window:
        """The hour on the zone's clocks. If the clocks change within an hour, the hour ends
        at the change."""
        span = self._span(time)
        start = int(time) - self._local(time) % (3_600 * _SECOND)
        return Window(
            Timestamp(max(start, span.start)), Timestamp(min(start + 3_600 * _SECOND, span.end))
        )

    def day(self, time: int) -> Window:
        """The day, from midnight to midnight: 23, 24 or 25 hours."""
        return self._period(time, lambda days: days, lambda days: days + 1)

    def week(self, time: int) -> Window:
        """The week, from Monday to Monday."""
        # 1970-01-01 was a Thursday.
        return self._period(time, lambda days: days - (days + 3) % 7, lambda days: days + 7)

    def month(self, time: int) -> Window:
        """The month."""
        return self._period(time, _month_of, lambda days: _month_of(days + 31))

    def year(self, time: int) -> Window:
        """The year."""
        return self._period(time, _year_of, lambda days: _year_of(days + 366))

    def hours(self) -> "ZoneWindows":
        """The hours of this zone, for :class:`.OpenWindows`."""
        return ZoneWindows(self.hour)

    def days(self) -> "ZoneWindows":
        """The days of this zone, for :class:`.OpenWindows`."""
        return ZoneWindows(self.day)

    def weeks(self) -> "ZoneWindows":
        """The weeks of this zone, for :class:`.OpenWindows`."""
        return ZoneWindows(self.week)

    def months(self) -> "ZoneWindows":
        """The months of this zone, for :class:`.OpenWindows`."""
        return ZoneWindows(self.month)

    def _period(
        self, time: int, first: Callable[[int], int], following: Callable[[int], int]
    ) -> Window:
        # If the clocks are put back over midnight, they show the previous date again. The
        # moments of this repeated time still belong to the period that had begun before.
        day = following(first(self._local(time) // _DAY))
        while self._midnight(day) > time:
            day = first(day - 1)
        return Window(
            Timestamp(self._midnight(day)), Timestamp(self._midnight(following(day)))
        )

    def _midnight(self, days: int) -> int:
        """The first moment at which the zone's clocks show the midnight that begins a
        day, or a later time."""
        local = days * _DAY
        # No offset is larger than a day.
        span = self._span(local - _DAY)
        while True:
            at = max(local - span.offset_s * _SECOND, span.start)
            if at < span.end or span.end == _MAX:
                return at
            span = self._span(span.end)

    def __repr__(self) -> str:
        return f"TimeZone({self.name!r})"


def _month_of(days: int) -> int:
    year, month, _ = date_of(days)
    return day_of(year, month, 1)


def _year_of(days: int) -> int:
    return day_of(date_of(days)[0], 1, 1)


class ZoneWindows:
    """The hours, days, weeks or months of a zone."""

    def __init__(self, of: Callable[[int], Window]) -> None:
        self._of = of

    def of(self, time: int) -> Iterator[Window]:
        """The window that ``time`` is in."""
        yield self._of(time)
