"""Keys of rows and of timers.

A key is text, ordered by its bytes. A tuple is one key of several parts, with ``/`` between them. A
``/`` or ``%`` inside a part becomes ``%2F`` or ``%25``. Put the part by which rows are read first,
and a time before everything else.

=====================  =====================================================
value                  in a key
=====================  =====================================================
text                   unchanged
:class:`.Timestamp`    RFC 3339: ``2026-03-01T12:00:00Z``
:class:`.Window`       its start
a date                 ``2026-03-01``
an integer from 0 on   20 digits, so that keys sort as numbers do
:class:`Narrow`        a short form that sorts as integers do: ``d1999``
=====================  =====================================================
"""

from __future__ import annotations

import datetime as _datetime
from typing import Any, NamedTuple

from .errors import KeyRefused
from .times import Timestamp, Window, text_of

Key = Any
"""A value that can be a key, or a tuple of such values."""

NUL = "U+0000 cannot be part of a key"

NO_KEYS = frozenset((float, bool, type(None), list, dict, set, bytes))
"""Types whose values are often taken for keys by mistake."""


class Narrow(int):
    """An integer as a short key that sorts as integers do.

    >>> [key_text(Narrow(number)) for number in (-1999, -10, -7, 0, 7, 10, 1999)]
    ['W8000', 'Y89', 'Z2', 'a0', 'a7', 'b10', 'd1999']
    >>> Narrow.parse("d1999") == 1999
    True
    """

    @property
    def text(self) -> str:
        """The key."""
        if not -(2**63) <= self < 2**63:
            raise KeyRefused(f"{int(self)} does not fit 64 bits")
        digits = str(abs(int(self)))
        if self < 0:
            return chr(ord("Z") - len(digits) + 1) + "".join(str(9 - int(it)) for it in digits)
        return chr(ord("a") + len(digits) - 1) + digits

    @classmethod
    def parse(cls, text: str) -> "Narrow | None":
        """The integer whose key is ``text``; none if there is none."""
        letter, digits = text[:1], text[1:]
        if not (digits.isascii() and digits.isdigit()):
            return None
        negative = "A" <= letter <= "Z"
        number = -int("".join(str(9 - int(it)) for it in digits)) if negative else int(digits)
        narrow = cls(number)
        return narrow if -(2**63) <= number < 2**63 and narrow.text == text else None


class InTenant(NamedTuple):
    """The key of a row in a table with ``per_tenant``: its tenant, and the rest."""

    tenant: str
    """The tenant, as in the event."""
    key: Key
    """The row's key within the tenant."""

    @classmethod
    def parse(cls, text: str) -> "InTenant | None":
        """The tenant and the rest of a key that a scan returned."""
        tenant, nul, rest = text.partition("\0")
        return cls(tenant, rest) if nul else None


def key_text(key: Key) -> str:
    """The text of a key.

    >>> key_text(("a/b", 7))
    'a%2Fb/00000000000000000007'
    """
    kind = type(key)
    if kind is str:
        return key
    if kind is tuple:
        parts = []
        for part in key:
            if type(part) is not str:
                if type(part) is tuple or isinstance(part, InTenant):
                    raise KeyRefused(f"{part!r} cannot be a part of a key")
                part = key_text(part)
            if "%" in part or "/" in part:
                part = part.replace("%", "%25").replace("/", "%2F")
            parts.append(part)
        return "/".join(parts)
    if kind is Timestamp:
        return text_of(key)
    if kind is InTenant:
        return f"{key.tenant}\0{key_text(key.key)}"
    if kind is Window:
        return text_of(key.start)
    if kind is Narrow:
        return key.text
    if isinstance(key, str):
        return str(key)
    if isinstance(key, _datetime.datetime):
        return text_of(Timestamp.of(key))
    if isinstance(key, _datetime.date):
        return key.isoformat()
    if isinstance(key, int) and not isinstance(key, bool):
        if not 0 <= key < 2**64:
            raise KeyRefused(f"the integer {key} is not from 0 to 2^64 - 1; use Narrow({key})")
        return f"{int(key):020}"
    text = getattr(key, "key_text", None)
    if isinstance(text, str):
        return text
    raise KeyRefused(no_key(key))


def no_key(key: Any) -> str:
    """Why a value cannot be a key."""
    name = type(key).__name__
    return f"{key!r} is a {name}; a key is text, a time, an integer, or a tuple of these"


def key_part(part: str) -> str:
    """The original text of ``part``, one part of a key with several parts: without escapes.

    >>> [key_part(part) for part in key_text(("a/b", "100 %")).split("/")]
    ['a/b', '100 %']
    """
    return part.replace("%2F", "/").replace("%25", "%") if "%" in part else part


def split_tenant(where: str, key: Key) -> tuple[str, str]:
    """A key's tenant, which is empty if it has none, and the rest."""
    tenant = ""
    rest = key
    if type(key) is InTenant:
        tenant, rest = key
        if not tenant:
            raise KeyRefused(
                f"{where}: key {key_text(rest)!r}: the tenant is empty; "
                "handle events without a tenant separately"
            )
    rest = key_text(rest)
    if "\0" in rest or "\0" in tenant:
        raise KeyRefused(f"{where}: key {rest!r}: {NUL}")
    return tenant, rest


def end_of_prefix(prefix: str) -> str:
    """The end of the range of all keys that begin with ``prefix``; empty if the range has
    no end."""
    while prefix:
        last = ord(prefix[-1])
        prefix = prefix[:-1]
        if last < 0x10FFFF:
            following = last + 1
            if 0xD800 <= following <= 0xDFFF:
                following = 0xE000
            return prefix + chr(following)
    return ""
