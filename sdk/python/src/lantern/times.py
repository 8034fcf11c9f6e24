"""Times of events, durations, and the text of both.

A projection has no clock: the only times are those of events and timers.
"""

from __future__ import annotations

import datetime as _datetime
import re
from typing import NamedTuple, Union

_SECOND = 1_000_000
_DAY = 86_400 * _SECOND
_MEMO_MAX = 16_384
_MAX = 2**63 - 1
_MIN = -(2**63)

_day_texts: dict[int, str] = {}
_texts: dict[int, str] = {}
_minutes: dict[int, "Timestamp"] = {}

Duration = Union[str, _datetime.timedelta]
"""A length of time: ``"90s"``, ``"1h"``, ``"7d"`` or a ``timedelta``. The units are
``us``, ``ms``, ``s``, ``m``, ``h``, ``d`` and ``w``."""

_UNITS = {
    "us": 1,
    "ms": 1_000,
    "s": _SECOND,
    "m": 60 * _SECOND,
    "h": 3_600 * _SECOND,
    "d": _DAY,
    "w": 7 * _DAY,
}


def micros_of(duration: Duration) -> int:
    """The microseconds of a duration.

    >>> micros_of("1h")
    3600000000
    >>> micros_of(_datetime.timedelta(milliseconds=5))
    5000
    """
    if isinstance(duration, _datetime.timedelta):
        micros = (duration.days * 86_400 + duration.seconds) * _SECOND + duration.microseconds
    elif isinstance(duration, str):
        parts = re.fullmatch(r"\s*(\d{1,15})\s*(us|ms|s|m|h|d|w)\s*", duration)
        if parts is None:
            raise ValueError(f"{duration!r} is not a duration: write `90s`, `10m`, `1h` or `7d`")
        micros = int(parts[1]) * _UNITS[parts[2]]
    else:
        raise TypeError(
            f"{duration!r} is not a duration: write text such as `1h`, or a timedelta"
        )
    if micros < 0:
        raise ValueError(f"{duration!r} is a negative duration")
    return min(micros, _MAX)


def date_of(day: int) -> tuple[int, int, int]:
    """Year, month and day of a day counted from 1970-01-01 (Gregorian calendar)."""
    day += 719_468
    era, day = divmod(day, 146_097)
    year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
    rest = day - (365 * year + year // 4 - year // 100)
    month = (5 * rest + 2) // 153
    rest = rest - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    return era * 400 + year + (month <= 2), month, rest


def day_of(year: int, month: int, day: int) -> int:
    """The day of a date, counted from 1970-01-01: the inverse of :func:`date_of`."""
    year -= month <= 2
    era, year = divmod(year, 400)
    month = month - 3 if month > 2 else month + 9
    day = (153 * month + 2) // 5 + day - 1
    return era * 146_097 + year * 365 + year // 4 - year // 100 + day - 719_468


def _date_text(day: int) -> str:
    text = _day_texts.get(day)
    if text is None:
        year, month, date = date_of(day)
        if 0 <= year <= 9_999:
            text = f"{year:04}-{month:02}-{date:02}"
        else:
            text = f"{'-' if year < 0 else '+'}{abs(year):06}-{month:02}-{date:02}"
        if len(_day_texts) >= _MEMO_MAX:
            _day_texts.clear()
        _day_texts[day] = text
    return text


def text_of(micros: int) -> str:
    """RFC 3339 in UTC, with a fraction of three or six digits only if there is one."""
    text = _texts.get(micros)
    if text is not None:
        return text
    day, rest = divmod(micros, _DAY)
    second, fraction = divmod(rest, _SECOND)
    text = f"{_date_text(day)}T{second // 3_600:02}:{second // 60 % 60:02}:{second % 60:02}"
    if not fraction:
        text += "Z"
    elif fraction % 1_000:
        text += f".{fraction:06}Z"
    else:
        text += f".{fraction // 1_000:03}Z"
    if len(_texts) >= _MEMO_MAX:
        _texts.clear()
    _texts[int(micros)] = text
    return text


_RFC_3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:([Zz])|([+-])(\d\d):(\d\d))",
    re.ASCII,
)


class Timestamp(int):
    """A time in UTC: an integer of microseconds since 1970-01-01T00:00:00Z.

    Its text, in rows and in keys, is RFC 3339.

    >>> at = Timestamp.parse("2026-03-01T13:07:42.5+01:00")
    >>> str(at)
    '2026-03-01T12:07:42.500Z'
    >>> str(at.minute())
    '2026-03-01T12:07:00Z'
    >>> (at + "1h") - at
    3600000000
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> "Timestamp":
        """Reads RFC 3339. Digits after the sixth of a fraction are cut off; a leap
        second counts as the last second of its minute."""
        parts = _RFC_3339.fullmatch(text)
        if parts is not None:
            year, month, day, hour, minute, second = map(int, parts.groups()[:6])
            days = day_of(year, month, day) if 1 <= month <= 12 else 0
            offset = 0
            if parts[9]:
                offset = (int(parts[10]) * 3_600 + int(parts[11]) * 60) * (
                    -1 if parts[9] == "-" else 1
                )
            if (
                1 <= month <= 12
                and date_of(days) == (year, month, day)
                and hour <= 23
                and minute <= 59
                and second <= 60
                and (not parts[9] or (int(parts[10]) <= 23 and int(parts[11]) <= 59))
            ):
                seconds = days * 86_400 + hour * 3_600 + minute * 60 + min(second, 59) - offset
                fraction = int(((parts[7] or "") + "000000")[:6])
                return cls(seconds * _SECOND + fraction)
        raise ValueError(f"{text[:64]!r} is not an RFC 3339 timestamp like 2026-03-01T12:00:00Z")

    @classmethod
    def of(cls, value: "Timestamp | int | str | _datetime.datetime") -> "Timestamp":
        """A time from text, from a ``datetime`` with a time zone, or from
        microseconds."""
        if isinstance(value, str):
            return cls.parse(value)
        if isinstance(value, _datetime.datetime):
            if value.tzinfo is None:
                raise ValueError(f"{value!r} has no time zone; add tzinfo=datetime.timezone.utc")
            since = value - _datetime.datetime(1970, 1, 1, tzinfo=_datetime.timezone.utc)
            return cls((since.days * 86_400 + since.seconds) * _SECOND + since.microseconds)
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{value!r} is not a time")
        return cls(value)

    def floor(self, step: Duration) -> "Timestamp":
        """The last multiple of ``step`` at or before this time."""
        size = micros_of(step)
        return self if size == 0 else Timestamp(max(_MIN, int(self) - int(self) % size))

    def second(self) -> "Timestamp":
        """The start of its second."""
        return Timestamp(int(self) - int(self) % _SECOND)

    def minute(self) -> "Timestamp":
        """The start of its minute."""
        return minute(self)

    def hour(self) -> "Timestamp":
        """The start of its hour, in UTC."""
        return hour(self)

    def day(self) -> "Timestamp":
        """The start of its day, in UTC."""
        return day(self)

    def date(self) -> str:
        """Its date in UTC: ``2026-03-01``."""
        return _date_text(int(self) // _DAY)

    def datetime(self) -> _datetime.datetime:
        """The same time as a ``datetime`` in UTC."""
        epoch = _datetime.datetime(1970, 1, 1, tzinfo=_datetime.timezone.utc)
        return epoch + _datetime.timedelta(microseconds=int(self))

    def __add__(self, later: "Duration | int") -> "Timestamp":  # type: ignore[override]
        """A later time: plus a duration, or plus microseconds."""
        if not isinstance(later, int):
            later = micros_of(later)
        return Timestamp(min(_MAX, max(_MIN, int.__add__(self, later))))

    def __sub__(self, other: "Duration | int") -> "int":  # type: ignore[override]
        """Minus a time: the microseconds between them. Minus a duration, or minus
        microseconds: an earlier time."""
        if isinstance(other, Timestamp):
            return int.__sub__(self, other)
        if not isinstance(other, int):
            other = micros_of(other)
        return Timestamp(min(_MAX, max(_MIN, int.__sub__(self, other))))

    def __str__(self) -> str:
        return text_of(self)

    def __format__(self, spec: str) -> str:
        return format(text_of(self), spec)

    def __repr__(self) -> str:
        return f"Timestamp({text_of(self)})"


Timestamp.MIN = Timestamp(_MIN)  # type: ignore[attr-defined]
Timestamp.MAX = Timestamp(_MAX)  # type: ignore[attr-defined]


def second(time: int) -> Timestamp:
    """The start of the second of ``time``."""
    return Timestamp(time - time % _SECOND)


def minute(time: int) -> Timestamp:
    """The start of the minute of ``time``.

    >>> str(minute(Timestamp.parse("2026-03-01T12:07:42Z")))
    '2026-03-01T12:07:00Z'
    """
    number = time // 60_000_000
    start = _minutes.get(number)
    if start is None:
        if len(_minutes) >= _MEMO_MAX:
            _minutes.clear()
        start = _minutes[number] = Timestamp(number * 60_000_000)
    return start


def hour(time: int) -> Timestamp:
    """The start of the hour of ``time``, in UTC."""
    return Timestamp(int(time) - int(time) % 3_600_000_000)


def day(time: int) -> Timestamp:
    """The start of the day of ``time``, in UTC."""
    return Timestamp(int(time) - int(time) % _DAY)


def date(time: int) -> str:
    """The date of ``time`` in UTC, as text: ``2026-03-01``."""
    return _date_text(int(time) // _DAY)


class Window(NamedTuple):
    """A span of time, from ``start`` up to but not including ``end``.

    Used as a key, it is its start.
    """

    start: Timestamp
    """The first moment in the window."""
    end: Timestamp
    """The first moment after the window."""
