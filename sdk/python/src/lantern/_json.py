"""JSON as rows contain it: the same bytes in all languages.

Numbers of the kind ``number`` are written as Rust's ``serde_json`` writes a double
(``1.0``, ``1e+16``, ``0.00001``, ``1e-6``); text is UTF-8 with the shortest escapes; the
members of objects inside a ``json`` field are sorted by their names.
"""

from __future__ import annotations

import json
from json.encoder import encode_basestring as _python_escape
from typing import Any

try:
    from _json import encode_basestring as escape
except ImportError:  # pragma: no cover - only in interpreters without the C module
    escape = _python_escape

from .errors import RowError
from .times import Timestamp, text_of

DEPTH_MAX = 64
"""How deep arrays and objects may be nested."""

_INT_MIN = -(2**63)
_INT_MAX = 2**64 - 1


def number_text(number: float) -> str:
    """A finite double, as ``serde_json`` writes it.

    >>> [number_text(it) for it in (1.0, 1e16, 1e-5, 1e-6, 1.5e300, -0.0)]
    ['1.0', '1e+16', '0.00001', '1e-6', '1.5e+300', '-0.0']
    """
    text = float.__repr__(number)
    if "e" not in text:
        return text
    mantissa, exponent = text.split("e")
    power = int(exponent)
    if power == -5:
        sign = "-" if mantissa[0] == "-" else ""
        return f"{sign}0.0000{mantissa.lstrip('-').replace('.', '')}"
    return f"{mantissa}e{power:+}"


def write_json(value: Any, sort: bool = False, depth_max: int = DEPTH_MAX) -> str:
    """``value`` as JSON without white space. With ``sort``, the members of objects are in
    the order of their names, otherwise in the order in which the objects have them."""
    parts: list[str] = []
    _write(value, sort, depth_max, parts)
    return "".join(parts)


def _write(value: Any, sort: bool, depth: int, parts: list[str]) -> None:
    if value is None:
        parts.append("null")
    elif value is True:
        parts.append("true")
    elif value is False:
        parts.append("false")
    elif isinstance(value, str):
        parts.append(escape(value))
    elif isinstance(value, Timestamp):
        parts.append(f'"{text_of(value)}"')
    elif isinstance(value, int):
        if _INT_MIN <= value <= _INT_MAX:
            parts.append(int.__repr__(value))
        else:
            # Other languages cannot read larger integers.
            _write(float(value), sort, depth, parts)
    elif isinstance(value, float):
        if value - value != 0.0:
            raise RowError(f"{value} is not finite; JSON has only finite numbers")
        parts.append(number_text(value))
    elif isinstance(value, dict):
        _write_object(value, sort, depth, parts)
    elif isinstance(value, (list, tuple)):
        if depth == 0:
            raise RowError("arrays and objects are nested too deep")
        parts.append("[")
        for place, item in enumerate(value):
            if place:
                parts.append(",")
            _write(item, sort, depth - 1, parts)
        parts.append("]")
    elif hasattr(value, "to_json"):
        parts.append(value.to_json())
    else:
        raise RowError(
            f"{value!r} is a {type(value).__name__}, which JSON does not have; "
            "sets become lists with sorted(…)"
        )


def _write_object(value: dict[Any, Any], sort: bool, depth: int, parts: list[str]) -> None:
    if depth == 0:
        raise RowError("arrays and objects are nested too deep")
    names = list(value)
    for name in names:
        if not isinstance(name, str):
            raise RowError(f"{name!r} is not text; the names of an object must be text")
    if sort:
        names.sort()
    mark = "{"
    for name in names:
        parts.append(f"{mark}{escape(name)}:")
        mark = ","
        _write(value[name], sort, depth - 1, parts)
    parts.append("}" if mark == "," else "{}")


def read_json(text: str | bytes) -> Any:
    """Parses JSON. ``NaN`` and infinities are refused, as they are not JSON."""
    if isinstance(text, bytes):
        text = text.decode()
    if "-0" in text:
        return json.loads(text, parse_constant=_refuse_constant, parse_int=_read_integer)
    return json.loads(text, parse_constant=_refuse_constant)


def _read_integer(text: str) -> "int | float":
    # `-0` is no integer in other languages: they read it as the double -0.0.
    return -0.0 if text == "-0" else int(text)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
