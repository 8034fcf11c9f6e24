#!/usr/bin/env python3
"""Computes the expected results of the conformance suite from its definition in
`README.md`.

It shares no code with the host or an SDK, and computes in another way. It has no batches, and has
timers only where the definition has them. It computes windows from the watermark alone, and each
sketch from all values at the end.

    python3 expect.py            writes expected/NAME.txt for every event file
    python3 expect.py --check    fails if a file differs from what it would write
"""

import base64
import json
import sys
from collections import Counter
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from math import isqrt
from pathlib import Path
from zoneinfo import ZoneInfo

HERE = Path(__file__).parent
SECOND = 1_000_000
EPOCH = datetime(1970, 1, 1)
I64 = range(-(2**63), 2**63)

# The tables, and their fields in order.
TABLES = {
    "sums": "key events total least greatest last",
    "values": "id n x s b t j",
    "scans": "id count keys total",
    "fired": "key at watermark times",
    "tenants": "subject events closed",
    "minutes": "start user events",
    "hops": "start end user total",
    "sessions": "start end user events",
    "sliding": "user events total",
    "settled": "at user total",
    "late": "user hops sessions sliding",
    "days": "day start end events",
    "hours": "start end events",
    "sketches": "key texts values scaled",
}


class Fails(Exception):
    """The event fails."""


# JSON: numbers keep their text, objects all their members.


class Number(str):
    """The text of a JSON number."""

    @property
    def is_integer(self):
        return not any(letter in self for letter in ".eE") and self != "-0"


class Members(list):
    """The members of a JSON object, in order, as pairs."""


class Time(int):
    """Microseconds since 1970."""


class Raw(str):
    """JSON that is written unchanged."""


def parse(text):
    return json.loads(text, parse_int=Number, parse_float=Number, object_pairs_hook=Members)


def as_dict(members):
    return dict(members)


ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def write_text(text):
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise Fails("half of a surrogate pair")
    escaped = (ESCAPES.get(letter, f"\\u{ord(letter):04x}" if letter < " " else letter) for letter in text)
    return f'"{"".join(escaped)}"'


def write_double(value):
    if value != value or abs(value) == float("inf"):
        raise Fails("not finite")
    if value == 0 or 1e-5 <= abs(value) < 1e16:
        text = format(Decimal(repr(value)), "f")
        return text if "." in text else text + ".0"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    digits = "".join(map(str, digits))
    power = exponent + len(digits) - 1
    point = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{'-' * sign}{digits[0]}{point}e{power:+d}"


def write_time(time):
    if not -62_135_596_800 * SECOND <= time < 253_402_207_200 * SECOND:
        raise Fails("outside of the range of timestamps")
    at = EPOCH + timedelta(microseconds=time)
    text = f"{at.year:04}-{at.month:02}-{at.day:02}T{at.hour:02}:{at.minute:02}:{at.second:02}"
    if at.microsecond % 1_000:
        text += f".{at.microsecond:06}"
    elif at.microsecond:
        text += f".{at.microsecond // 1_000:03}"
    return text + "Z"


def write(value):
    """The JSON text of a value, as in rows."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Raw):
        return value
    if isinstance(value, Number):
        if value.is_integer and -(2**63) <= int(value) < 2**64:
            return str(int(value))
        return write_double(float(value))
    if isinstance(value, Time):
        return f'"{write_time(value)}"'
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return write_double(value)
    if isinstance(value, str):
        return write_text(value)
    if isinstance(value, Members):
        members = sorted(as_dict(value).items(), key=lambda member: member[0].encode())
        return "{" + ",".join(f"{write_text(name)}:{write(member)}" for name, member in members) + "}"
    return "[" + ",".join(map(write, value)) + "]"


def read_time(text):
    """Microseconds of an RFC 3339 text."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Fails(f"{text!r} is not a timestamp") from None
    if at.tzinfo is None:
        raise Fails(f"{text!r} has no offset")
    local = (at.replace(tzinfo=None) - EPOCH) // timedelta(microseconds=1)
    return Time(local - at.utcoffset() // timedelta(microseconds=1))


class Event:
    def __init__(self, line):
        members = as_dict(parse(line))
        self.kind = members["type"]
        self.id = members["id"]
        self.subject = members.get("subject", "")
        self.tenant = members.get("tenant", "")
        self.time = read_time(members["time"])
        self.data = members.get("data")

    def member(self, name, kind, required=False, default=None):
        if not isinstance(self.data, Members):
            raise Fails("the data are not an object")
        found = [value for member, value in self.data if member == name]
        if len(found) > 1:
            raise Fails(f"{name} is present more than once")
        value = found[0] if found else None
        if value is None:
            if required:
                raise Fails(f"{name} is missing")
            return default
        return kind(name, value)


def text(name, value):
    if not isinstance(value, str) or isinstance(value, Number):
        raise Fails(f"{name} is not text")
    write_text(value)
    return value


def integer(name, value):
    if isinstance(value, Number) and not any(letter in value for letter in ".eE") and int(value) in I64:
        return int(value)
    raise Fails(f"{name} is not an integer")


def number(name, value):
    if isinstance(value, Number):
        return float(value)
    raise Fails(f"{name} is not a number")


def boolean(name, value):
    if isinstance(value, bool):
        return value
    raise Fails(f"{name} is not a boolean")


def timestamp(name, value):
    return read_time(text(name, value))


def anything(_, value):
    return value


def bounded(value):
    if value not in I64:
        raise Fails("an integer is too large")
    return value


def part(key):
    return key.replace("%", "%25").replace("/", "%2F")


def parts(time, user):
    return f"{write_time(time)}/{part(user)}"


# Sketches, from all their values.


def xxh64(data):
    one, two, three, four, five = (
        0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5,
    )
    mask = 2**64 - 1

    def turn(value, bits):
        return (value << bits | value >> (64 - bits)) & mask

    def step(lane, word):
        return turn((lane + word * two) & mask, 31) * one & mask

    def word(start, size):
        return int.from_bytes(data[start : start + size], "little")

    at = 0
    if len(data) >= 32:
        lanes = [(one + two) & mask, two, 0, -one & mask]
        while at + 32 <= len(data):
            lanes = [step(lane, word(at + 8 * index, 8)) for index, lane in enumerate(lanes)]
            at += 32
        result = sum(turn(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18))) & mask
        for lane in lanes:
            result = ((result ^ step(0, lane)) * one + four) & mask
    else:
        result = five
    result = (result + len(data)) & mask
    while at + 8 <= len(data):
        result = (turn(result ^ step(0, word(at, 8)), 27) * one + four) & mask
        at += 8
    if at + 4 <= len(data):
        result = (turn(result ^ word(at, 4) * one & mask, 23) * two + three) & mask
        at += 4
    for byte in data[at:]:
        result = turn(result ^ byte * five & mask, 11) * one & mask
    result = (result ^ result >> 33) * two & mask
    result = (result ^ result >> 29) * three & mask
    return result ^ result >> 32


def hyperloglog(registers):
    whole = 1 << 60
    counts = Counter(registers)

    def sigma(x):
        total, weight = x, 1
        while x := x * x >> 60:
            total, weight = total + x * weight, weight * 2
        return total

    def tau(x):
        if x in (0, whole):
            return 0
        total, power = whole - x, 0
        while True:
            x, power = isqrt(x << 60), power + 1
            change = ((whole - x) * (whole - x) >> 60) >> power
            if change == 0:
                return total // 3
            total -= change

    s = 4096 * tau(whole - (counts[29] << 48)) >> 28
    s += sum(counts[rank] * (whole >> rank) for rank in range(1, 29))
    s += 4096 * sigma(counts[0] << 48)
    return min(2**40, ((6653256548922161246 << 21) + s // 2) // s) if s else 2**40


def distinct(values):
    entries = sorted({xxh64(value.encode()) >> 24 for value in values})
    if len(entries) <= 512:
        data = b"\1" + b"".join(entry.to_bytes(5, "big") for entry in entries)
        estimate = len(entries)
    else:
        registers = [0] * 4096
        for entry in entries:
            rank = 29 - (entry & 0xFFFFFFF).bit_length()
            registers[entry >> 28] = max(registers[entry >> 28], rank)
        bits = "".join(f"{register:05b}" for register in registers)
        data = b"\2" + int(bits, 2).to_bytes(2560, "big")
        estimate = hyperloglog(registers)
    return Raw(f'{{"estimate":{estimate},"sketch":"{base64.b64encode(data).decode()}"}}')


def bucket(value):
    if value < 0:
        return ~bucket(~value)
    shift = max(0, value.bit_length() - 7)
    return 64 * shift + (value >> shift)


def middle(index):
    if index < 0:
        return ~middle(~index)
    if index < 128:
        return index
    shift = index // 64 - 1
    return ((index - 64 * shift) << shift) + ((1 << shift) - 1) // 2


def leb128(value):
    data = b""
    while value > 127:
        data, value = data + bytes([value & 127 | 128]), value >> 7
    return data + bytes([value])


def percentiles(values):
    names = ("min", "p50", "p75", "p90", "p95", "p99", "max")
    data = b"\3"
    found = dict.fromkeys(names)
    if values:
        buckets = sorted(Counter(map(bucket, values)).items())
        low, high = min(values), max(values)
        data += b"".join(leb128(2 * value if value >= 0 else -2 * value - 1) for value in (low, high))
        before = -3713
        for index, count in buckets:
            data += leb128(index - before - 1) + leb128(count)
            before = index
        ordered = sorted(map(bucket, values))
        for percent in (50, 75, 90, 95, 99):
            rank = max(1, -(-len(values) * percent // 100))
            found[f"p{percent}"] = min(max(middle(ordered[rank - 1]), low), high)
        found["min"], found["max"] = low, high
    inner = "".join(f'"{name}":{write(found[name])},' for name in names)
    return Raw(f'{{"count":{len(values)},{inner}"sketch":"{base64.b64encode(data).decode()}"}}')


def scaled(value):
    product = value * 1000.0
    whole = Fraction(product)
    rounded = int(abs(whole) + Fraction(1, 2)) * (1 if whole >= 0 else -1)
    if rounded not in I64:
        raise Fails("x is outside of the range of integers")
    return rounded


class Zone:
    """Days and hours of a zone, found by looking at its clocks every 15 minutes."""

    GRID = 15 * 60 * SECOND

    def __init__(self, name):
        self.zone = ZoneInfo(name)

    def local(self, time):
        at = (EPOCH + timedelta(microseconds=time)).replace(tzinfo=timezone.utc).astimezone(self.zone)
        return at.replace(tzinfo=None)

    def midnight(self, date):
        """The first moment at which the clocks show the date's midnight or a later time."""
        wanted = datetime(date.year, date.month, date.day)
        time = (wanted - EPOCH) // timedelta(microseconds=1) - 26 * 3600 * SECOND
        while self.local(time) < wanted:
            time += self.GRID
        return Time(time)

    def day(self, time):
        date = self.local(time).date()
        return date.isoformat(), self.midnight(date), self.midnight(date + timedelta(days=1))

    def offset(self, time):
        return self.local(time) - EPOCH - timedelta(microseconds=time)

    def hour(self, time):
        local = (self.local(time) - EPOCH) // timedelta(microseconds=1)
        begin = time - local % (3600 * SECOND)
        offset = self.offset(time)
        around = range(begin - begin % self.GRID, begin + 3600 * SECOND + self.GRID, self.GRID)
        start = max([begin] + [at for at in around if at <= time and self.offset(at - 1) != offset])
        end = min([begin + 3600 * SECOND] + [at for at in around if at > time and self.offset(at) != offset])
        return Time(start), Time(end)


class Projection:
    """The state after the events so far."""

    def __init__(self, parameters):
        self.zone = Zone(parameters.get("zone", "Europe/Berlin"))
        self.factor = parameters.get("factor", 1)
        self.tables = {name: {} for name in TABLES}
        self.seen = {}
        self.timers = {}
        self.hops = {}
        self.sessions = {}
        self.recent = {}
        self.sketched = {}
        self.emitted = []
        self.parked = []
        self.greatest = None
        self.watermark = None
        self.undo = []

    def passed(self, time):
        """Whether the watermark has reached a time."""
        return self.watermark is not None and time <= self.watermark

    def set(self, where, key, value):
        """Changes an entry of a dictionary. If the event fails, the change is undone. None removes
        the entry."""
        self.undo.append((where, key, where.get(key)))
        if value is None:
            where.pop(key, None)
        else:
            where[key] = value

    def put(self, table, key, *values, tenant=None):
        if key == "" or "\0" in key:
            raise Fails("not a key")
        key = key if tenant is None else f"{tenant}\0{key}"
        if len(key.encode()) > 1024:
            raise Fails("the key is too large")
        row = dict(zip(TABLES[table].split(), values, strict=True))
        for value in values:
            write(value)
        self.set(self.tables[table], key, row)

    def event(self, line):
        event = Event(line)
        if not event.kind.startswith("c."):
            return
        self.undo.clear()
        emitted = len(self.emitted)
        try:
            apply = getattr(self, event.kind.replace(".", "_"), None)
            if apply:
                apply(event)
        except Fails:
            for where, key, value in reversed(self.undo):
                if value is None:
                    where.pop(key, None)
                else:
                    where[key] = value
            del self.emitted[emitted:]
            self.parked.append(event.id)
        self.move(event.time)

    def move(self, time):
        self.greatest = max(time, time if self.greatest is None else self.greatest)
        watermark = self.greatest - 10 * SECOND
        watermark -= watermark % (5 * SECOND)
        if watermark == self.watermark:
            return
        self.watermark = watermark
        due = sorted((due, key.encode(), at, key) for key, (due, at) in self.timers.items() if due <= watermark)
        for _, _, at, key in due:
            del self.timers[key]
            self.fire(at, key)
        self.close_hops()
        self.close_sessions()
        self.slide()

    # Sums.

    @staticmethod
    def key_of(event):
        key = event.member("key", text, required=True)
        if key == "":
            raise Fails("the key is empty")
        return key

    def c_add(self, event):
        self.count(self.key_of(event), event.time, event.member("n", integer))

    def count(self, key, time, n=None):
        row = self.tables["sums"].get(key) or dict(events=0, total=0, least=None, greatest=None)
        events, total, least, greatest = (row[name] for name in ("events", "total", "least", "greatest"))
        if n is not None:
            value = bounded(n * self.factor)
            total = bounded(total + value)
            least = value if least is None else min(least, value)
            greatest = value if greatest is None else max(greatest, value)
        self.put("sums", key, key, events + 1, total, least, greatest, time)

    def c_delete(self, event):
        key = self.key_of(event)
        if "\0" in key:
            raise Fails("not a key")
        if len(key.encode()) > 1024:
            raise Fails("the key is too large")
        self.set(self.tables["sums"], key, None)

    def c_once(self, event):
        key = self.key_of(event)
        if key not in self.seen:
            self.set(self.seen, key, True)
            self.count(key, event.time)

    def c_value(self, event):
        kinds = dict(n=integer, x=number, s=text, b=boolean, t=timestamp, j=anything)
        values = [event.member(name, kind) for name, kind in kinds.items()]
        self.put("values", event.id, event.id, *values)

    def c_scan(self, event):
        start = event.member("start", text, required=True)
        end = event.member("end", text, required=True)
        limit = event.member("limit", integer, required=True)
        reverse = event.member("reverse", boolean, default=False)
        if not 0 <= limit <= 1_000:
            raise Fails("limit is out of range")
        rows = self.tables["sums"]
        found = [key for key in rows if start.encode() <= key.encode() and (end == "" or key.encode() < end.encode())]
        found.sort(key=str.encode, reverse=reverse)
        found = found[:limit]
        total = bounded(sum(rows[key]["total"] for key in found))
        self.put("scans", event.id, event.id, len(found), found, total)

    # Timers, emitted events, failures.

    def remind(self, key, at):
        due = at if not self.passed(at) else self.watermark + 1
        if key not in self.timers or self.timers[key][1] != at:
            self.set(self.timers, key, (due, at))

    def c_remind(self, event):
        key = self.key_of(event)
        seconds = event.member("seconds", integer)
        if "\0" in key or key.startswith("\1"):
            raise Fails("not the key of a timer")
        if seconds is None:
            self.set(self.timers, key, None)
        else:
            self.remind(key, event.time + seconds * SECOND)

    def fire(self, at, key):
        if "\0" in key:
            row = self.tables["tenants"][key]
            row["closed"] += 1
            return
        times = self.tables["fired"].get(key, {}).get("times", 0)
        self.put("fired", key, key, Time(at), Time(self.watermark), times + 1)
        self.emitted.append((key, at, f'{{"timer":{write(key)}}}'))

    def emit(self, event, key, count):
        for index in range(count):
            data = f'{{"key":{write(key)},"i":{index}}}'
            self.emitted.append((event.subject, event.time, data))

    def c_emit(self, event):
        key = event.member("key", text, required=True)
        count = event.member("n", integer, required=True)
        if count > 100:
            raise Fails("too many")
        self.emit(event, key, count)

    def c_fail(self, event):
        key = self.key_of(event)
        fails = event.member("fail", boolean, default=False)
        self.count(key, event.time)
        self.set(self.tables["sums"], "gone", None)
        self.emit(event, key, 1)
        self.remind(key, event.time + 5 * SECOND)
        if fails:
            raise Fails("asked to")

    def c_tenant(self, event):
        if event.tenant and event.subject:
            key = f"{event.tenant}\0{event.subject}"
            row = self.tables["tenants"].get(key, dict(events=0, closed=0))
            self.put("tenants", event.subject, event.subject, row["events"] + 1, row["closed"], tenant=event.tenant)
            self.remind(key, event.time + 10 * SECOND)

    # Windows.

    def c_visit(self, event):
        user = self.key_of(event)
        n = event.member("n", integer, default=1)
        minute = Time(event.time - event.time % (60 * SECOND))
        events = self.tables["minutes"].get(parts(minute, user), {}).get("events", 0)
        if "\0" in user:
            raise Fails("not a key")
        self.put("minutes", parts(minute, user), minute, user, events + 1)
        late = (self.hop(event.time, user, n), self.join(event.time, user), self.recall(event.time, user, n))
        if any(late):
            row = self.tables["late"].get(user) or dict(hops=0, sessions=0, sliding=0)
            before = (row["hops"], row["sessions"], row["sliding"])
            self.put("late", user, user, *(old + new for old, new in zip(before, late)))

    def hop(self, time, user, n):
        late = 0
        newest = time - time % (20 * SECOND)
        for start in (newest - 40 * SECOND, newest - 20 * SECOND, newest):
            if self.passed(start + 60 * SECOND):
                late += 1
            else:
                total = self.hops.get((start, user), 0)
                self.set(self.hops, (start, user), bounded(total + n))
        return late

    def close_hops(self):
        for start, user in [key for key in self.hops if self.passed(key[0] + 60 * SECOND)]:
            total = self.hops.pop((start, user))
            self.put("hops", parts(start, user), Time(start), Time(start + 60 * SECOND), user, total)

    def join(self, time, user):
        sessions = self.sessions.get(user, ())
        begin, end, events = time, time + 30 * SECOND, 1
        if self.passed(end) and not any(start <= time < stop for start, stop, _ in sessions):
            return 1
        apart = []
        for session in sessions:
            if session[0] < time + 30 * SECOND and time < session[1]:
                begin, end, events = min(begin, session[0]), max(end, session[1]), events + session[2]
            else:
                apart.append(session)
        self.set(self.sessions, user, (*apart, (begin, end, events)))
        return 0

    def close_sessions(self):
        for user, sessions in list(self.sessions.items()):
            for start, end, events in sessions:
                if self.passed(end):
                    self.put("sessions", parts(start, user), Time(start), Time(end), user, events)
            self.sessions[user] = tuple(session for session in sessions if not self.passed(session[1]))

    def window(self, values, at):
        inside = [n for time, n, _ in values if at - 60 * SECOND < time <= at]
        return len(inside), bounded(sum(inside))

    def recall(self, time, user, n):
        if self.passed(time + 60 * SECOND):
            return 1
        settles = self.watermark is None or time >= self.watermark
        values = (*self.recent.get(user, ()), (time, n, settles))
        self.set(self.recent, user, values)
        newest = max(at for at, _, _ in values)
        self.put("sliding", user, user, *self.window(values, newest))
        return 0

    def slide(self):
        for user, values in list(self.recent.items()):
            if not values:
                continue
            for at in {at for at, _, settles in values if settles and at < self.watermark}:
                self.put("settled", parts(at, user), Time(at), user, self.window(values, at)[1])
            newest = max(self.watermark, *(at for at, _, _ in values))
            self.put("sliding", user, user, *self.window(values, newest))
            kept = (value for value in values if value[0] > self.watermark - 60 * SECOND)
            self.recent[user] = tuple((at, n, settles and at >= self.watermark) for at, n, settles in kept)

    # Zones and sketches.

    def c_day(self, event):
        time = event.member("t", timestamp, default=event.time)
        day, start, end = self.zone.day(time)
        events = self.tables["days"].get(day, {}).get("events", 0)
        self.put("days", day, day, start, end, events + 1)
        start, end = self.zone.hour(time)
        events = self.tables["hours"].get(write_time(start), {}).get("events", 0)
        self.put("hours", write_time(start), start, end, events + 1)

    def c_sketch(self, event):
        key = self.key_of(event)
        values = event.member("s", text), event.member("n", integer), event.member("x", number)
        if "\0" in key:
            raise Fails("not a key")
        before = self.sketched.get(key, ((), (), ()))
        values = (*values[:2], None if values[2] is None else scaled(values[2]))
        after = tuple(old if new is None else (old, new) for old, new in zip(before, values))
        self.set(self.sketched, key, after)

    def results(self):
        for key, chains in self.sketched.items():
            texts, values, decimals = map(unchain, chains)
            self.put("sketches", key, key, distinct(texts), percentiles(values), percentiles(decimals))
        for name, rows in self.tables.items():
            for key in sorted(rows, key=str.encode):
                row = ",".join(f"{write_text(field)}:{write(value)}" for field, value in rows[key].items())
                yield f"{name}\t{write_text(key)}\t{{{row}}}"
        for subject, time, data in self.emitted:
            yield f"emitted\t{write_text(subject)}\t{write_time(time)}\t{data}"
        for event in self.parked:
            yield f"parked\t{write_text(event)}"


def unchain(chain):
    values = []
    while chain:
        chain, value = chain
        values.append(value)
    return values


def expected(events):
    parameters = events.with_suffix(".parameters.json")
    projection = Projection(json.loads(parameters.read_text()) if parameters.exists() else {})
    with events.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            projection.event(line)
    return "".join(line + "\n" for line in projection.results())


def main():
    check = sys.argv[1:] == ["--check"]
    (HERE / "expected").mkdir(exist_ok=True)
    for events in sorted((HERE / "events").glob("*.ndjson")):
        path = HERE / "expected" / f"{events.stem}.txt"
        text = expected(events)
        if not check:
            path.write_text(text, encoding="utf-8", newline="\n")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path} is not what expect.py writes")
        print(f"{events.stem}: {text.count(chr(10))} lines")


if __name__ == "__main__":
    main()
