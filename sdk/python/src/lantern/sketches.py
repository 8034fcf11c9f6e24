"""Sketches: distinct counts and percentiles that can be merged over partitions.

``docs/sketches.md`` specifies both. All arithmetic is on integers, so that all
languages compute the same bytes from the same values.
"""

from __future__ import annotations

import base64
import binascii
import bisect
from math import isqrt
from typing import Any, Iterable

from ._host import call

_MASK = 2**64 - 1
_P1 = 11400714785074694791
_P2 = 14029467366897019727
_P3 = 1609587929392839161
_P4 = 9650029242287828579
_P5 = 2870177450012600261

SPARSE_MAX = 512
"""Up to this number of values a distinct count is exact."""
_ENTRY_BYTES = 5
_SEARCHES_MAX = 16
"""After this number of searches in the stored entries they are decoded: then another search
takes less time."""
_REGISTERS = 4_096
_RANK_MAX = 29


def xxh64(data: bytes) -> int:
    """XXH64 with seed 0."""
    length = len(data)
    at = 0
    if length >= 32:
        a, b, c, d = (_P1 + _P2) & _MASK, _P2, 0, (-_P1) & _MASK
        while at <= length - 32:
            a = _round(a, int.from_bytes(data[at : at + 8], "little"))
            b = _round(b, int.from_bytes(data[at + 8 : at + 16], "little"))
            c = _round(c, int.from_bytes(data[at + 16 : at + 24], "little"))
            d = _round(d, int.from_bytes(data[at + 24 : at + 32], "little"))
            at += 32
        acc = (_rotate(a, 1) + _rotate(b, 7) + _rotate(c, 12) + _rotate(d, 18)) & _MASK
        for lane in (a, b, c, d):
            acc = ((acc ^ _round(0, lane)) * _P1 + _P4) & _MASK
    else:
        acc = _P5
    acc = (acc + length) & _MASK
    while at + 8 <= length:
        lane = _round(0, int.from_bytes(data[at : at + 8], "little"))
        acc = (_rotate(acc ^ lane, 27) * _P1 + _P4) & _MASK
        at += 8
    if at + 4 <= length:
        lane = int.from_bytes(data[at : at + 4], "little") * _P1 & _MASK
        acc = (_rotate(acc ^ lane, 23) * _P2 + _P3) & _MASK
        at += 4
    for byte in data[at:]:
        acc = _rotate(acc ^ (byte * _P5 & _MASK), 11) * _P1 & _MASK
    acc = (acc ^ acc >> 33) * _P2 & _MASK
    acc = (acc ^ acc >> 29) * _P3 & _MASK
    return acc ^ acc >> 32


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _MASK


def _round(acc: int, lane: int) -> int:
    return _rotate((acc + lane * _P2) & _MASK, 31) * _P1 & _MASK


class SketchError(ValueError):
    """Bytes or JSON that no sketch has."""


class Distinct:
    """A sketch that counts distinct values: exact up to 512 values, with a standard error of
    1.63 % above 512.

    >>> users = Distinct()
    >>> for user in ("u1", "u2", "u1"):
    ...     users.add(user)
    >>> users.estimate()
    2
    """

    __slots__ = ("_stored", "_new", "_known", "_searches", "_registers")

    def __init__(self, values: Iterable["str | int | bytes"] = ()) -> None:
        # A call may have a single event, so what one event does not change is neither decoded nor
        # encoded for it.
        self._stored = b""
        """The entries as they were read or written last, in ascending order."""
        self._new: set[int] = set()
        """The entries that were added since then."""
        self._known: "set[int] | None" = None
        """All entries; none if the stored ones are not decoded."""
        self._searches = 0
        """How often the stored entries were searched."""
        self._registers: bytearray | None = None
        """The registers, if there are too many entries; then there are no entries."""
        for value in values:
            self.add(value)

    def add(self, value: "str | int | bytes") -> None:
        """Adds a value: text, an integer (as its decimal text) or bytes."""
        if isinstance(value, str):
            data = value.encode()
        elif isinstance(value, bytes):
            data = value
        elif isinstance(value, int) and not isinstance(value, bool):
            data = int.__repr__(value).encode()
        else:
            raise TypeError(f"{value!r} cannot be counted; give text, an integer or bytes")
        self._add_entry(xxh64(data) >> 24)

    def _add_entry(self, entry: int) -> None:
        registers, new, known, undo = self._registers, self._new, self._known, call.undo
        if registers is not None:
            place = entry >> 28
            before = registers[place]
            _set_register(registers, entry)
            if undo is not None and registers[place] != before:
                undo.append((registers.__setitem__, place, before))
            return
        if entry in (new if known is None else known):
            return
        if known is None and self._stored:
            if self._has_stored(entry):
                return
            known = self._known
        new.add(entry)
        if known is not None:
            known.add(entry)
        if undo is not None:
            undo.append((self._remove, entry))
        if len(new) + len(self._stored) // _ENTRY_BYTES > SPARSE_MAX:
            self._replace(self._dense())

    def _remove(self, entry: int) -> None:
        self._new.remove(entry)
        if self._known is not None:
            self._known.remove(entry)

    def _has_stored(self, entry: int) -> bool:
        """Whether an entry is one of the stored ones."""
        self._searches += 1
        if self._searches > _SEARCHES_MAX:
            self._known = self._all()
            return entry in self._known
        wanted, stored = entry.to_bytes(_ENTRY_BYTES, "big"), self._stored
        at = stored.find(wanted)
        # The bytes of two adjacent entries may contain those of another one.
        while at > 0 and at % _ENTRY_BYTES:
            at = stored.find(wanted, at + 1)
        return at >= 0

    def _all(self) -> set[int]:
        """All entries."""
        if self._known is not None:
            return self._known
        stored, number = self._stored, int.from_bytes
        entries = {
            number(stored[at : at + _ENTRY_BYTES], "big")
            for at in range(0, len(stored), _ENTRY_BYTES)
        }
        return entries | self._new

    def _replace(self, registers: bytearray) -> None:
        """Replaces the content by registers; the current event can be undone."""
        if call.undo is not None:
            before = self._stored, self._new, self._known, self._registers
            call.undo.append((self._put, *before))
        self._put(b"", set(), None, registers)

    def _put(
        self,
        stored: bytes,
        new: set[int],
        known: "set[int] | None",
        registers: "bytearray | None",
    ) -> None:
        self._stored, self._new, self._known = stored, new, known
        self._registers = registers

    def _dense(self) -> bytearray:
        if self._registers is not None:
            return self._registers
        registers = bytearray(_REGISTERS)
        for entry in self._all():
            _set_register(registers, entry)
        return registers

    def merge(self, other: "Distinct") -> None:
        """Adds the values of another sketch."""
        if self._registers is None and other._registers is None:
            for entry in sorted(other._all()):
                self._add_entry(entry)
            return
        own, theirs = self._dense(), other._dense()
        self._replace(bytearray(map(max, own, theirs)))

    def estimate(self) -> int:
        """The number of distinct values, exact up to 512."""
        if self._registers is None:
            return len(self._new) + len(self._stored) // _ENTRY_BYTES
        return _estimate(self._registers)

    def to_bytes(self) -> bytes:
        """The bytes of the sketch."""
        if self._registers is None:
            return b"\1" + self._sparse_bytes()
        return b"\2" + _packed(self._registers)

    def _sparse_bytes(self) -> bytes:
        """All entries as bytes, in ascending order."""
        new = self._new
        if not new:
            return self._stored
        if not self._stored or len(new) > _SEARCHES_MAX:
            entries = self._all()
            stored = b"".join([it.to_bytes(_ENTRY_BYTES, "big") for it in sorted(entries)])
            known = entries if len(new) > _SEARCHES_MAX else self._known
        else:
            stored, known = _inserted(self._stored, new), self._known
        # A change that may be undone refers to the new entries.
        if not call.undo:
            self._stored, self._known = stored, known
            new.clear()
        return stored

    @classmethod
    def from_row(cls, value: Any) -> "Distinct":
        """The sketch with this JSON, already parsed, which :meth:`to_json` has written."""
        data = binascii.a2b_base64(value["sketch"])
        if data[:1] != b"\1":
            return cls.from_bytes(data)
        sketch = cls()
        sketch._stored = data[1:]
        return sketch

    @classmethod
    def from_bytes(cls, data: bytes) -> "Distinct":
        """The sketch with these bytes."""
        sketch = cls()
        kind, rest = data[:1], data[1:]
        if kind == b"\1":
            if len(rest) % _ENTRY_BYTES or len(rest) > SPARSE_MAX * _ENTRY_BYTES:
                raise SketchError("a distinct sketch has entries of five bytes, at most 512")
            entries = [rest[at : at + _ENTRY_BYTES] for at in range(0, len(rest), _ENTRY_BYTES)]
            if any(before >= after for before, after in zip(entries, entries[1:])):
                raise SketchError("the entries of a distinct sketch do not ascend")
            sketch._stored = bytes(rest)
        elif kind == b"\2":
            if len(rest) != _REGISTERS * 5 // 8:
                raise SketchError("a dense distinct sketch has 2,561 bytes")
            registers = _unpacked(rest)
            if max(registers) > _RANK_MAX or not any(registers):
                raise SketchError("a register of a distinct sketch is out of range")
            sketch._registers = registers
        else:
            raise SketchError("these are not the bytes of a distinct sketch")
        return sketch

    def to_json(self) -> str:
        """The JSON of the sketch in a row."""
        sketch = base64.b64encode(self.to_bytes()).decode()
        return f'{{"estimate":{self.estimate()},"sketch":"{sketch}"}}'

    @classmethod
    def from_json(cls, value: Any) -> "Distinct":
        """The sketch with this JSON, already parsed."""
        sketch = cls.from_bytes(_sketch_bytes(value))
        if value != {"estimate": sketch.estimate(), "sketch": value["sketch"]}:
            raise SketchError("the estimate is not that of the sketch")
        return sketch

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Distinct) and self.to_bytes() == other.to_bytes()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Distinct(estimate={self.estimate()})"


def _inserted(stored: bytes, new: set[int]) -> bytes:
    """The ascending entries of ``stored``, with ``new`` among them."""
    for entry in new:
        wanted = entry.to_bytes(_ENTRY_BYTES, "big")
        places = range(0, len(stored), _ENTRY_BYTES)
        found = bisect.bisect_left(places, wanted, key=lambda at: stored[at : at + _ENTRY_BYTES])
        at = found * _ENTRY_BYTES
        stored = stored[:at] + wanted + stored[at:]
    return stored


def _lanes(bits: int, low: int) -> int:
    """A mask with the bits ``low`` in each lane of this many bits of all registers."""
    return int.from_bytes(low.to_bytes(bits // 8, "big") * (_REGISTERS * 8 // bits), "big")


_PACKING = [
    (bits - used, _lanes(2 * bits, (1 << used) - 1), _lanes(2 * bits, ((1 << used) - 1) << bits))
    for bits, used in ((8, 5), (16, 10), (32, 20))
]
"""How two adjacent lanes become one: the shift of the upper lane, and masks of the lower and of the
upper one. All lanes are changed at once, as parts of one large integer."""


def _packed(registers: bytearray) -> bytes:
    """Registers with five bits each."""
    value = int.from_bytes(registers, "big")
    for shift, lower, upper in _PACKING:
        value = (value & lower) | (value & upper) >> shift
    # Each lane has eight bytes now, of which the last five are used.
    lanes = value.to_bytes(_REGISTERS, "big")
    packed = bytearray(_REGISTERS * 5 // 8)
    for place in range(5):
        packed[place::5] = lanes[place + 3 :: 8]
    return bytes(packed)


def _unpacked(packed: bytes) -> bytearray:
    """The registers that :func:`_packed` has packed."""
    lanes = bytearray(_REGISTERS)
    for place in range(5):
        lanes[place + 3 :: 8] = packed[place::5]
    value = int.from_bytes(lanes, "big")
    for shift, lower, upper in reversed(_PACKING):
        value = (value & lower) | (value << shift & upper)
    return bytearray(value.to_bytes(_REGISTERS, "big"))


def _set_register(registers: bytearray, entry: int) -> None:
    rank = 29 - (entry & 0xFFF_FFFF).bit_length()
    place = entry >> 28
    if registers[place] < rank:
        registers[place] = rank


_ONE = 1 << 60


def _sigma(x: int) -> int:
    total, weight = x, 1
    while True:
        x = x * x >> 60
        if x == 0:
            return total
        total += x * weight
        weight *= 2


def _tau(x: int) -> int:
    if x in (0, _ONE):
        return 0
    total, k = _ONE - x, 0
    while True:
        x = isqrt(x << 60)
        k += 1
        t = ((_ONE - x) * (_ONE - x) >> 60) >> k
        if t == 0:
            return total // 3
        total -= t


def _estimate(registers: bytearray) -> int:
    counts = [registers.count(rank) for rank in range(_RANK_MAX + 1)]
    s = 4_096 * _tau(_ONE - (counts[29] << 48)) >> 28
    for k in range(1, 29):
        s += counts[k] * (_ONE >> k)
    s += 4_096 * _sigma(counts[0] << 48)
    if s == 0:
        return 2**40
    return min(2**40, ((6653256548922161246 << 21) + s // 2) // s)


def bucket_of(value: int) -> int:
    """The bucket of a value in a percentile sketch."""
    if value < 0:
        return ~bucket_of(~value)
    shift = max(0, value.bit_length() - 7)
    return 64 * shift + (value >> shift)


def middle_of(bucket: int) -> int:
    """The value in the middle of a bucket."""
    if bucket < 0:
        return ~middle_of(~bucket)
    if bucket < 128:
        return bucket
    shift = bucket // 64 - 1
    return ((bucket - 64 * shift) << shift) + ((1 << shift) - 1) // 2


_BUCKET_MIN = -3_712
_BUCKET_MAX = 3_711
_RANKS = (50, 75, 90, 95, 99)


class Percentiles:
    """A sketch of percentiles of integers, each within 1/128 (0.8 %).

    >>> delay = Percentiles([3, 1, 2])
    >>> delay.percentile(50), delay.count, delay.min, delay.max
    (2, 3, 1, 3)
    """

    __slots__ = ("_counts", "_min", "_max")

    def __init__(self, values: Iterable[int] = ()) -> None:
        self._counts: dict[int, int] = {}
        self._min = 0
        self._max = 0
        for value in values:
            self.add(value)

    def add(self, value: int) -> None:
        """Adds an integer from -2^63 to 2^63 - 1."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{value!r} is not an integer; use add_scaled for fractions")
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"{value} does not fit 64 bits")
        value = int(value)
        self._keep_bounds()
        if not self._counts:
            self._min = self._max = value
        elif value < self._min:
            self._min = value
        elif value > self._max:
            self._max = value
        self._add_count(bucket_of(value), 1)

    def add_scaled(self, value: float, scale: float) -> None:
        """Adds ``value * scale``, rounded to the nearest integer, and away from zero if
        it is exactly between two."""
        product = float(value) * float(scale)
        if product - product != 0.0:
            raise ValueError(f"{value} * {scale} is not finite")
        whole = int(product)
        if abs(product - whole) >= 0.5:
            whole += 1 if product > 0 else -1
        self.add(whole)

    def _keep_bounds(self) -> None:
        """Keeps minimum and maximum for the case that the current event is undone."""
        if call.undo is not None:
            call.undo.append((self._put_bounds, self._min, self._max))

    def _put_bounds(self, least: int, most: int) -> None:
        self._min, self._max = least, most

    def _add_count(self, bucket: int, count: int) -> None:
        counts, undo = self._counts, call.undo
        before = counts.get(bucket, 0)
        counts[bucket] = min(_MASK, before + count)
        if undo is not None:
            undo.append((counts.__setitem__, bucket, before) if before else (counts.pop, bucket))

    def merge(self, other: "Percentiles") -> None:
        """Adds the values of another sketch."""
        if not other._counts:
            return
        self._keep_bounds()
        if self._counts:
            self._min = min(self._min, other._min)
            self._max = max(self._max, other._max)
        else:
            self._min, self._max = other._min, other._max
        for bucket, count in list(other._counts.items()):
            self._add_count(bucket, count)

    @property
    def count(self) -> int:
        """The number of values."""
        return min(_MASK, sum(self._counts.values()))

    @property
    def min(self) -> "int | None":
        """The smallest value; none if there are no values."""
        return self._min if self._counts else None

    @property
    def max(self) -> "int | None":
        """The largest value; none if there are no values."""
        return self._max if self._counts else None

    def percentile(self, percent: int) -> "int | None":
        """The percentile, for a whole number from 0 to 100; none if there are no
        values."""
        if not self._counts:
            return None
        return self._ranked([percent])[0]

    def _ranked(self, percents: Iterable[int]) -> list[int]:
        buckets = sorted(self._counts)
        total = sum(self._counts.values())
        found = []
        for percent in percents:
            rank = max(1, -(-total * percent // 100))
            passed = 0
            for bucket in buckets:
                passed += self._counts[bucket]
                if passed >= rank:
                    found.append(min(self._max, max(self._min, middle_of(bucket))))
                    break
        return found

    def to_bytes(self) -> bytes:
        """The bytes of the sketch."""
        out = bytearray(b"\3")
        if self._counts:
            _write_natural(out, _zigzag(self._min))
            _write_natural(out, _zigzag(self._max))
            following = _BUCKET_MIN
            for bucket in sorted(self._counts):
                _write_natural(out, bucket - following)
                _write_natural(out, self._counts[bucket])
                following = bucket + 1
        return bytes(out)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Percentiles":
        """The sketch with these bytes."""
        if data[:1] != b"\3":
            raise SketchError("these are not the bytes of a percentile sketch")
        sketch = cls()
        if len(data) == 1:
            return sketch
        least, at = _read_natural(data, 1)
        most, at = _read_natural(data, at)
        sketch._min, sketch._max = _unzigzag(least), _unzigzag(most)
        following = _BUCKET_MIN
        while at < len(data):
            skipped, at = _read_natural(data, at)
            count, at = _read_natural(data, at)
            bucket = following + skipped
            if bucket > _BUCKET_MAX or count == 0:
                raise SketchError("a bucket of a percentile sketch is out of range")
            sketch._counts[bucket] = count
            following = bucket + 1
        buckets = list(sketch._counts)
        single = len(buckets) == 1 and sketch._counts[buckets[0]] == 1
        if (
            not buckets
            or bucket_of(sketch._min) != buckets[0]
            or bucket_of(sketch._max) != buckets[-1]
            or sketch._min > sketch._max
            or (single and sketch._min != sketch._max)
        ):
            raise SketchError("the minimum or maximum is not in its bucket")
        return sketch

    def to_json(self) -> str:
        """The JSON of the sketch in a row."""
        sketch = base64.b64encode(self.to_bytes()).decode()
        if not self._counts:
            numbers = "".join(f'"p{percent}":null,' for percent in _RANKS)
            return f'{{"count":0,"min":null,{numbers}"max":null,"sketch":"{sketch}"}}'
        ranked = self._ranked(_RANKS)
        numbers = "".join(f'"p{it}":{value},' for it, value in zip(_RANKS, ranked))
        return (
            f'{{"count":{self.count},"min":{self._min},{numbers}"max":{self._max},'
            f'"sketch":"{sketch}"}}'
        )

    @classmethod
    def from_json(cls, value: Any) -> "Percentiles":
        """The sketch with this JSON, already parsed."""
        sketch = cls.from_bytes(_sketch_bytes(value))
        import json

        if json.loads(sketch.to_json()) != value:
            raise SketchError("the numbers are not those of the sketch")
        return sketch

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Percentiles) and self.to_bytes() == other.to_bytes()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Percentiles(count={self.count}, p50={self.percentile(50)})"


def _sketch_bytes(value: Any) -> bytes:
    if not isinstance(value, dict) or not isinstance(value.get("sketch"), str):
        raise SketchError("the JSON of a sketch is an object with the member `sketch`")
    text = value["sketch"]
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SketchError(f"the sketch is not base64: {error}") from None
    if base64.b64encode(data).decode() != text:
        raise SketchError("the sketch is not base64 in its only form")
    return data


def _zigzag(value: int) -> int:
    return value * 2 if value >= 0 else -value * 2 - 1


def _unzigzag(value: int) -> int:
    return value >> 1 if value % 2 == 0 else -(value >> 1) - 1


def _write_natural(out: bytearray, value: int) -> None:
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _read_natural(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data):
            raise SketchError("the bytes of a percentile sketch are cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if (byte == 0 and shift) or value > _MASK:
                raise SketchError("an integer of a percentile sketch is out of range")
            return value, at
        shift += 7
        if shift > 63:
            raise SketchError("an integer of a percentile sketch is out of range")
