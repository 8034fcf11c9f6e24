"""Decodes members of events' data as the host does, for tests."""

from __future__ import annotations

import functools
import json
from typing import Any

from . import _host
from .events import MemberColumn
from .program import Member
from .times import Timestamp


def decode_members(members: list[Member], data: list[bytes]) -> list[MemberColumn]:
    """Members of all events, decoded as the host does it."""
    payloads = [members_of(payload) for payload in data] if members else []
    return [_decode_member(member, payloads) for member in members]


def _decode_member(
    member: Member, payloads: "list[list[tuple[str, Any, str]] | None]"
) -> MemberColumn:
    valid, values, mismatched = [], [], []
    for place, payload in enumerate(payloads):
        status, value = _member_value(member, payload)
        if status == "mismatched":
            mismatched.append(place)
        valid.append(status == "valid")
        values.append(value)
    if member.kind == "boolean":
        packed: Any = _bitmap([bool(it) for it in values])
    elif member.kind in ("integer", "timestamp"):
        packed = [int(it or 0) for it in values]
    elif member.kind == "number":
        packed = [0.0 if it is None else float(it) for it in values]
    else:
        packed = _host.column([it or "" for it in values])
    return MemberColumn(member.kind, _bitmap(valid), packed, mismatched)


def _bitmap(flags: list[bool]) -> bytes:
    bits = bytearray((len(flags) + 7) // 8)
    for place, flag in enumerate(flags):
        bits[place // 8] |= flag << place % 8
    return bytes(bits)


class _Number(str):
    """The text of a number."""


@functools.lru_cache(maxsize=16_384)
def members_of(payload: bytes) -> "list[tuple[str, Any, str]] | None":
    """Name, value and JSON text of each member; none if the payload is not a JSON object.
    The value of a number is its text."""
    try:
        text = payload.decode()
        json.loads(text)
        at = text.index("{") + 1
    except (ValueError, RecursionError):
        return None
    if text[: at - 1].strip():
        return None
    decoder = json.JSONDecoder(parse_int=_Number, parse_float=_Number)
    found = []
    while True:
        while text[at] in " \t\r\n,":
            at += 1
        if text[at] == "}":
            return found
        name, at = decoder.raw_decode(text, at)
        while text[at] in " \t\r\n:":
            at += 1
        start = at
        value, at = decoder.raw_decode(text, at)
        found.append((name, value, text[start:at]))


def _member_value(
    member: Member, payload: "list[tuple[str, Any, str]] | None"
) -> tuple[str, Any]:
    if payload is None:
        return "mismatched", None
    found = [(value, text) for name, value, text in payload if name == member.name]
    if not found or (len(found) == 1 and found[0][0] is None):
        return "missing", None
    if len(found) > 1:
        return "mismatched", None
    (value, raw), kind = found[0], member.kind
    if kind in ("json", "distinct", "percentiles"):
        return "valid", raw
    is_number = type(value) is _Number
    if kind == "integer" and is_number and value.lstrip("-").isdigit():
        if -(2**63) <= int(value) < 2**63 and value != "-0":
            return "valid", int(value)
    elif kind == "number" and is_number:
        if abs(float(value)) != float("inf"):
            return "valid", float(value)
    elif kind == "text" and type(value) is str:
        return "valid", value
    elif kind == "boolean" and isinstance(value, bool):
        return "valid", value
    elif kind == "timestamp" and type(value) is str:
        try:
            return "valid", Timestamp.parse(value)
        except ValueError:
            pass
    return "mismatched", None
