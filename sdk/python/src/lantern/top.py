"""The N largest values of each group.

One private table has all groups. For each group, it has one row with the group's N largest items in
order. Every other item has two rows. The row under the item's name contains its value. The row
under its value gives the order of the items: if one of the N largest shrinks or is removed, these
rows show the next largest item.
"""

from __future__ import annotations

import struct
from typing import Any, Callable, NamedTuple

from .errors import LanternError
from .keys import Key, Narrow, key_text
from .tables import CACHE_ROWS, Rows

_MIN = -(2**63)
_MAX = 2**63 - 1
_OTHERS = struct.Struct("<Q")
_VALUE = struct.Struct("<q")


class Ranked(NamedTuple):
    """An item among the N largest of its group."""

    item: str
    """The item's key."""
    value: int
    """The value."""


class _Group(NamedTuple):
    """The row of a group. It is replaced and never changed."""

    largest: list[Ranked]
    """In order, the largest first."""
    others: int
    """How many other items there are."""


class _TopCodec:
    """The bytes of the rows, which are the same in the Rust SDK. A row is a group or the value of
    an item, or it only marks an item's place in the order of values."""

    binary = True

    def default(self) -> _Group:
        return _Group([], 0)

    def copy(self, row: Any) -> Any:
        return row

    def check(self, row: Any) -> Any:
        return row

    def encode(self, row: Any) -> bytes:
        if row is True:
            return b"p"
        if isinstance(row, int):
            return b"v" + _VALUE.pack(row)
        parts = [b"g", _OTHERS.pack(row.others)]
        for item, value in row.largest:
            name = item.encode()
            parts += [_VALUE.pack(value), _OTHERS.pack(len(name)), name]
        return b"".join(parts)

    def decode(self, data: bytes) -> Any:
        kind = data[:1]
        if kind == b"v":
            return _VALUE.unpack_from(data, 1)[0]
        if kind == b"p":
            return True
        if kind != b"g":
            raise ValueError("no row of a TopN has these bytes")
        largest = []
        at = 9
        while at < len(data):
            end = at + 16 + _OTHERS.unpack_from(data, at + 8)[0]
            item = data[at + 16 : end].decode()
            largest.append(Ranked(item, _VALUE.unpack_from(data, at)[0]))
            at = end
        return _Group(largest, _OTHERS.unpack_from(data, 1)[0])


class TopN(Rows[Any]):
    """The ``count`` largest values of each group, exact while values grow, shrink and are
    removed::

        best = Table("best", product=text, cents=integer("same", "cent"))
        ranking = TopN("ranking", 3)

        def apply(event):
            if ranking.add(day(event.time), event.data["product"], event.data["cents"]):
                for rank, (product, cents) in enumerate(ranking.largest(day(event.time)), 1):
                    best.put((day(event.time), Narrow(rank)), product=product, cents=cents)

    Values are integers of 64 bits. Of equal values, the item whose key comes first in the
    order of bytes ranks first. ``TopN`` is a private table: whenever a change returns true,
    copy the items to a public table for readers.

    All items of a group are kept. So clear a group that is no longer needed, such as a past day.
    Each partition of the log has a ranking of its own, and rankings of several partitions cannot be
    merged. To separate the items of tenants, make the tenant part of the group.
    """

    def __init__(self, name: str, count: int, /, *, cache: int = CACHE_ROWS) -> None:
        if count < 1:
            raise ValueError(f"TopN({name!r}, {count}) keeps nothing")
        self.count = count
        """How many items of a group are ranked."""
        super().__init__(name, "", _TopCodec(), public=False, cache=cache)

    def add(self, group: Key, item: Key, amount: int) -> bool:
        """Adds ``amount``, which may be negative, to the value of ``item``; a new item begins
        at 0. Returns whether the N largest have changed."""
        name = key_text(item)
        return self._change(key_text(group), name, lambda value: (value or 0) + amount)

    def set(self, group: Key, item: Key, value: int) -> bool:
        """Sets the value of ``item``. Returns whether the N largest have changed."""
        return self._change(key_text(group), key_text(item), lambda _: value)

    def remove(self, group: Key, item: Key) -> bool:
        """Removes ``item``. Returns whether the N largest have changed."""
        return self._change(key_text(group), key_text(item), None)

    def largest(self, group: Key) -> list[Ranked]:
        """The N largest of ``group``, largest first; fewer if it has fewer items."""
        return list(self._group(key_text(group)).largest)

    def value(self, group: Key, item: Key) -> "int | None":
        """The value of ``item``, whether it is among the N largest or not; none if there is
        no such item."""
        name, own = key_text(group), key_text(item)
        for ranked in self._group(name).largest:
            if ranked.item == own:
                return ranked.value
        return self._read(_item_key(name, own))

    def clear(self, group: Key) -> None:
        """Removes all items of ``group``."""
        name = key_text(group)
        self.delete(key_text(("group", name)))
        for prefix in (_item_key(name, ""), _places_key(name)):
            for key, _ in self._scan(prefix, "", "", None, False):
                self.delete(key)

    def _group(self, group: str) -> _Group:
        return self._read(key_text(("group", group))) or _Group([], 0)

    def _put_group(self, group: str, largest: list[Ranked], others: int) -> None:
        row = _Group(largest, others) if largest or others else None
        self._set(key_text(("group", group)), row)

    def _change(
        self, group: str, item: str, change: "Callable[[int | None], int] | None"
    ) -> bool:
        """Sets the value of an item to the result of ``change``, or removes it."""
        largest, others = self._group(group)
        ranked = [it for it in largest if it.item == item]
        before = ranked[0].value if ranked else None
        if not ranked and others:
            before = self._read(_item_key(group, item))
        after = None if change is None else self._checked(item, change(before))
        if before == after:
            return False
        if ranked:
            rest = [it for it in largest if it.item != item]
        else:
            rest = largest
            if before is not None:
                self._remove_other(group, item, before)
                others -= 1
        candidates = rest if after is None else _sorted([*rest, Ranked(item, after)])
        shrinks = after is None or (before is not None and after < before)
        if ranked and others and shrinks and (after is None or candidates[-1].item == item):
            # An item that is not ranked may be larger now.
            candidates, others = self._promote(group, candidates, others)
        for other in candidates[self.count :]:
            self._put_other(group, other.item, other.value)
            others += 1
        kept = candidates[: self.count]
        self._put_group(group, kept, others)
        return kept != largest

    def _promote(
        self, group: str, candidates: list[Ranked], others: int
    ) -> tuple[list[Ranked], int]:
        """Adds the first of the items that are not ranked to the candidates."""
        prefix = _places_key(group)
        for key, _ in self._scan(prefix, "", "", 1, False):
            inverse, _, item = key[len(prefix) :].partition("/")
            narrow = Narrow.parse(inverse)
            if narrow is None:
                raise LanternError(f"{key!r} is not a key of a TopN")
            self._remove_other(group, item, ~narrow)
            return _sorted([*candidates, Ranked(item, ~narrow)]), others - 1
        return candidates, others

    def _checked(self, item: str, value: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise LanternError(f"the value of {item!r} is {value!r}, which is not an integer")
        if not _MIN <= value <= _MAX:
            raise LanternError(f"the value of {item!r} leaves the range of 64 bits")
        return int(value)

    def _put_other(self, group: str, item: str, value: int) -> None:
        self._set(_item_key(group, item), value)
        self._set(_place_key(group, item, value), True)

    def _remove_other(self, group: str, item: str, value: int) -> None:
        self.delete(_item_key(group, item))
        self.delete(_place_key(group, item, value))


def _sorted(items: list[Ranked]) -> list[Ranked]:
    # The order of code points is that of UTF-8.
    return sorted(items, key=lambda it: (-it.value, it.item))


def _item_key(group: str, item: str) -> str:
    """The key of an item's row by its name. The item is the last part and is not escaped,
    because escaping could change the order."""
    return key_text(("item", group, "")) + item


def _places_key(group: str) -> str:
    return key_text(("place", group, ""))


def _place_key(group: str, item: str, value: int) -> str:
    """The key of an item's row by its value. These keys sort by descending value, and among
    equal values by item."""
    return f"{_places_key(group)}{Narrow(~value).text}/{item}"
