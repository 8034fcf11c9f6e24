"""Kinds of values: of the fields of a table, of private values, and of members of
events' data.

Each kind is an object. Use it as it is, or call it to add a merge, a unit or a default:

>>> orders = integer("sum")
>>> cents = integer("sum", "cent")
>>> orders.merge, cents.unit
('sum', 'cent')
"""

from __future__ import annotations

import datetime as _datetime
import marshal
from typing import Any, Callable

from ._json import escape, number_text, read_json, write_json
from .code import compiled
from .errors import ManifestError, RowError
from .sketches import Distinct, Percentiles
from .times import Timestamp, text_of

MERGES = ("same", "sum", "min", "max", "newest", "sketch")
"""How the values of one key are combined if several partitions have a row under it."""

TIME_MIN = -62_135_596_800_000_000
TIME_END = 253_402_207_200_000_000
_INT_MIN = -(2**63)
_INT_MAX = 2**64 - 1
_UNSET: Any = object()


class Field:
    """A declared kind, with all that belongs to it."""

    __slots__ = ("kind", "merge", "unit", "default", "optional")

    def __init__(
        self,
        kind: str,
        merge: str = "same",
        unit: str = "",
        default: Any = None,
        optional: bool = False,
    ) -> None:
        self.kind = kind
        """The kind of the contract, such as ``integer``."""
        self.merge = merge
        """How values of several partitions are combined."""
        self.unit = unit
        """A unit for people: ``EUR``, ``ms``, ``%``."""
        self.default = default
        """The value in a new row."""
        self.optional = optional
        """Whether the field is a member of data that may be missing."""

    def __call__(
        self,
        merge: "str | None" = None,
        unit: "str | None" = None,
        *,
        default: Any = _UNSET,
        optional: "bool | None" = None,
    ) -> "Field":
        """The same kind with another merge, unit or default.

        ``merge`` is ``same`` (the values of all partitions are equal, as for parts of the
        key), ``sum``, ``min``, ``max`` or ``newest``. ``default`` is the value in a new row:
        by default 0, 0.0, ``""`` or ``False``, and no value for times, for JSON, and for
        fields with another merge than ``same`` and ``sum``. A member of data with
        ``optional`` may be missing; the default of such a member is None.
        """
        merge = self.merge if merge is None else merge
        if merge not in MERGES:
            raise ManifestError(f"the merge {merge!r} is not one of {', '.join(MERGES)}")
        if default is _UNSET and optional:
            default = None
        elif default is _UNSET:
            default = self.default if merge in ("same", "sum", "sketch") else None
        return Field(
            self.kind,
            merge,
            self.unit if unit is None else unit,
            default,
            self.optional if optional is None else optional,
        )

    def __repr__(self) -> str:
        return f"{self.kind}({self.merge!r}, {self.unit!r})"


integer = Field("integer", default=0)
"""A whole number from -2^63 to 2^64 - 1."""
number = Field("number", default=0.0)
"""A double."""
text = Field("text", default="")
"""Text."""
boolean = Field("boolean", default=False)
"""True or false."""
timestamp = Field("timestamp")
"""A :class:`.Timestamp`. A ``datetime`` with a time zone, RFC 3339 text and integers of
microseconds are converted."""
json = Field("json")
"""Any JSON: None, booleans, numbers, text, lists, and dicts with text as names."""
distinct = Field("distinct", "sketch")
"""A :class:`.Distinct`: counts distinct values."""
percentiles = Field("percentiles", "sketch")
"""A :class:`.Percentiles`."""
binary = Field("binary", default=b"")
"""Bytes; for private values only."""
nothing = Field("nothing")
"""No content, for private values only. Use it for a set, whose members are the keys."""


# Each of the following functions returns an error in place of raising it, because that takes
# far less time, and most events may fail.


def whole(value: Any) -> "int | RowError":
    """``value`` as an integer of a row, or why it is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        if _INT_MIN <= value <= _INT_MAX:
            return int(value)
        return RowError(f"is {value}; integers are from -2^63 to 2^64 - 1")
    hint = "; use int() or round()" if isinstance(value, float) else ""
    return RowError(f"is {value!r}, which is not an integer{hint}")


def double(value: Any) -> "float | RowError":
    """``value`` as a number of a row, or why it is none."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            return RowError(f"is {value}, which a double cannot hold")
        if value - value == 0.0:
            return value
        return RowError(f"is {value}; only finite numbers can be stored")
    if hasattr(value, "__float__") and not isinstance(value, str):
        return double(float(value))
    return RowError(f"is {value!r}, which is not a number")


def words(value: Any) -> "str | RowError":
    """``value`` as the text of a row, or why it is none."""
    if isinstance(value, str):
        if not value.isascii() and not _is_text(value):
            return RowError(f"is {value!r}, which has half of a surrogate pair")
        return str(value)
    return RowError(f"is {value!r}, which is not text")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def truth(value: Any) -> "bool | RowError":
    """``value`` as a boolean of a row, or why it is none."""
    if isinstance(value, bool):
        return value
    return RowError(f"is {value!r}, which is not True or False")


def moment(value: Any) -> "Timestamp | RowError":
    """``value`` as a time of a row, or why it is none."""
    if not isinstance(value, (int, str, _datetime.datetime)) or isinstance(value, bool):
        return RowError(f"is {value!r}, which is not a time")
    try:
        value = Timestamp.of(value)
    except ValueError as error:
        return RowError(f"is not a time: {error}")
    if TIME_MIN <= value < TIME_END:
        return value
    return RowError(f"is {value}; only times from year 1 to 9999-12-30T22:00Z can be stored")


def plain(value: Any) -> Any:
    """``value`` as JSON that is read back, or why it is no JSON."""
    try:
        encoded = write_json(value, sort=True, depth_max=63)
        encoded.encode()
    except RowError as error:
        return RowError(f"cannot be written as JSON: {error}")
    except UnicodeEncodeError:
        return RowError("has half of a surrogate pair")
    except RecursionError:
        return RowError("is nested too deep, or contains itself")
    return read_json(encoded)


def copied(value: Any) -> Any:
    """A copy of JSON that :func:`plain` has returned."""
    return marshal.loads(marshal.dumps(value)) if isinstance(value, (list, dict)) else value


def _same(value: Any) -> Any:
    return value


def _instance(of: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if isinstance(value, of):
            return value
        return RowError(f"is {value!r}, which is not a {of.__name__}")

    return check


def _bytes(value: Any) -> "bytes | RowError":
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    return RowError(f"is {value!r}, which is not bytes")


def _nothing(value: Any) -> Any:
    if value is None or value is True:
        return True
    return RowError(f"is {value!r}; a set has no values: write put(key)")


def _read_time(value: Any) -> Timestamp:
    return Timestamp.parse(value)


CHECKS: dict[str, Callable[[Any], Any]] = {
    "integer": whole,
    "number": double,
    "text": words,
    "boolean": truth,
    "timestamp": moment,
    "json": plain,
    "distinct": _instance(Distinct),
    "percentiles": _instance(Percentiles),
    "binary": _bytes,
    "nothing": _nothing,
}
"""Converts a value of each kind to the value that is read back, or returns why it has another
kind."""


class ValueCodec:
    """How a value of one kind becomes the bytes of a private row."""

    def __init__(self, field: Field) -> None:
        self.kind = field.kind
        self.check = CHECKS[field.kind]
        """Converts a value to the value that is read back, or returns why it has another
        kind."""
        self.initial = field.default
        self.copy = copied if field.kind == "json" else _same
        """Copies a value, which is restored if the event fails. Sketches are not copied,
        because they undo their changes themselves."""
        self.binary = field.kind in ("binary", "nothing")
        """Whether :meth:`encode` returns bytes and not text."""

    def default(self) -> Any:
        """The value under a key that has none."""
        if self.kind == "distinct":
            return Distinct()
        if self.kind == "percentiles":
            return Percentiles()
        if self.kind == "json":
            initial = plain(self.initial)
            if type(initial) is RowError:
                raise initial
            return initial
        if self.kind == "nothing":
            return True
        return self.initial

    def encode(self, value: Any) -> Any:
        """The bytes, or their text."""
        kind = self.kind
        if kind == "integer":
            return int.__repr__(value)
        if kind == "number":
            return number_text(value)
        if kind in ("text", "binary"):
            return value
        if kind == "boolean":
            return "true" if value else "false"
        if kind == "timestamp":
            return int.__repr__(value)
        if kind == "nothing":
            return b""
        if kind == "json":
            return write_json(value, sort=True)
        return value.to_json()

    def decode(self, data: bytes) -> Any:
        """The value with these bytes."""
        kind = self.kind
        if kind == "text":
            return data.decode()
        if kind == "binary":
            return bytes(data)
        if kind == "timestamp":
            return Timestamp(int(data))
        if kind == "nothing":
            return True
        value = read_json(data)
        if kind == "number":
            return float(value)
        if kind == "distinct":
            return Distinct.from_row(value)
        if kind == "percentiles":
            return Percentiles.from_json(value)
        return value


_FAST_CHECKS = {
    # The generated code replaces the first `v` of each check by the value. For integers, the
    # comparison with small numbers comes first, because it is faster.
    "integer": "type(v) is int and (-1000000000 < v < 1000000000 "
    f"or {_INT_MIN} <= v <= {_INT_MAX})",
    "number": "type(v) is float and v - v == 0.0",
    "text": "type(v) is str and (v.isascii() or is_text(v))",
    "boolean": "v is True or v is False",
    "timestamp": f"type(v) is Timestamp and {TIME_MIN} <= v < {TIME_END}",
    "distinct": "type(v) is Distinct",
    "percentiles": "type(v) is Percentiles",
    # A value of the kind `json` is always checked, and replaced by the value that is read back.
    "json": "v is True and False",
}

_WRITERS = {
    "integer": "v",
    "number": "number_text(v)",
    "text": "escape(v)",
    "boolean": "'true' if v else 'false'",
    "timestamp": "'\"' + text_of(v) + '\"'",
    "json": "write_json(v, True)",
    "distinct": "v.to_json()",
    "percentiles": "v.to_json()",
}

_READERS = {
    "number": "float(v)",
    "timestamp": "read_time(v)",
    "distinct": "Distinct.from_row(v)",
    "percentiles": "Percentiles.from_json(v)",
}

_FRESH = {"distinct": "Distinct()", "percentiles": "Percentiles()"}


class StructCodec:
    """Converts rows with declared fields to JSON objects and back. The functions for this are
    generated from the fields, so that a row costs little."""

    binary = False

    def __init__(self, fields: dict[str, Field]) -> None:
        self.fields = fields
        self._known = ", ".join(f"`{name}`" for name in fields)
        for name, field in fields.items():
            if field.kind not in _WRITERS:
                raise ManifestError(f"the field `{name}` cannot be of the kind `{field.kind}`")
            if field.default is not None:
                default = CHECKS[field.kind](field.default)
                if type(default) is RowError:
                    raise ManifestError(f"the default of the field `{name}` {default}")
        self._checks = [(name, CHECKS[field.kind]) for name, field in fields.items()]
        self.names: dict[str, Any] = {
            "Timestamp": Timestamp,
            "Distinct": Distinct,
            "Percentiles": Percentiles,
            "number_text": number_text,
            "text_of": text_of,
            "escape": escape,
            "write_json": write_json,
            "read_json": read_json,
            "read_time": _read_time,
            "is_text": _is_text,
            "copied": copied,
        }
        names = dict(self.names)
        exec(compiled(self._code(), "<lantern row codec>"), names)
        self.default: Callable[[], dict[str, Any]] = names["default"]
        """A new row."""
        self.encode: Callable[[dict[str, Any]], str] = names["encode"]
        """The JSON of a row."""
        self.decode: Callable[[bytes], dict[str, Any]] = names["decode"]
        """The row with this JSON."""
        self.copy: Callable[[dict[str, Any]], dict[str, Any]] = names.get("copy", dict.copy)
        """Copies a row, which is restored if the event fails. Sketches are not copied,
        because they undo their changes themselves."""

    def fit_expression(self) -> str:
        """An expression of `row` that tells whether it needs no conversion."""
        checks = [f"len(row) == {len(self.fields)}"]
        for name, field in self.fields.items():
            value = f"(v := row[{name!r}])"
            checks.append(f"({_FAST_CHECKS[field.kind].replace('v', value, 1)} or v is None)")
        return " and ".join(checks)

    def _code(self) -> str:
        fresh, labels, writers, readers = [], [], [], []
        for name, field in self.fields.items():
            kind = field.kind
            if kind == "json" and field.default is not None:
                value = f"read_json({write_json(field.default, sort=True)!r})"
            elif kind == "timestamp" and field.default is not None:
                value = f"Timestamp({int(moment(field.default))})"
            else:
                value = _FRESH.get(kind) or repr(field.default)
            fresh.append(f"{name!r}: {value}")
            labels.append(f"{escape(name)}:%s".replace("%", "%%").replace("%%s", "%s"))
            writers.append(f"'null' if (v := row[{name!r}]) is None else {_WRITERS[kind]}")
            if kind in _READERS:
                readers.append(
                    f"    v = row[{name!r}]\n"
                    f"    if v is not None: row[{name!r}] = {_READERS[kind]}\n"
                )
        row_format = "{" + ",".join(labels) + "}"
        values = "".join(f"{writer}, " for writer in writers)
        joined = f"{row_format!r} % ({values})" if writers else repr(row_format)
        template = "{" + ", ".join(f"{name!r}: row.get({name!r})" for name in self.fields) + "}"
        return (
            f"def default(): return {{{', '.join(fresh)}}}\n"
            f"def encode(row):\n    return {joined}\n"
            f"def decode(data):\n    row = read_json(data)\n    row = {template}\n"
            + "".join(readers)
            + "    return row\n"
            + self._copy_code()
        )

    def _copy_code(self) -> str:
        """The function that copies a row, if it is more than a copy of a dict."""
        values = [
            f"{name!r}: copied(row[{name!r}])"
            for name, field in self.fields.items()
            if field.kind == "json"
        ]
        return f"def copy(row): return {{**row, {', '.join(values)}}}\n" if values else ""

    def check(self, row: Any) -> "dict[str, Any] | RowError":
        """Converts a row in place to the row that is read back, and returns it. If that is
        not possible, it returns the error. The caller adds table and key to the error."""
        for name, check in self._checks:
            value = row.get(name)
            if value is not None:
                value = check(value)
                if type(value) is RowError:
                    value.args = (f"field `{name}` {value}",)
                    value.field = name
                    return value
            row[name] = value
        # The row has all declared fields now.
        return row if len(row) == len(self._checks) else self._undeclared(row)

    def _undeclared(self, row: dict[str, Any]) -> RowError:
        name = next(name for name in row if name not in self.fields)
        error = RowError(f"the field `{name}` is not declared; the fields are {self._known}")
        error.field = name
        return error


def check_fields(table: str, fields: dict[str, Any]) -> dict[str, Field]:
    """The fields that a table declares.

    Raises ManifestError if one of them is not a field.
    """
    for name, field in fields.items():
        if not isinstance(field, Field):
            raise ManifestError(
                f"table `{table}`: `{name}={field!r}` is not a field; "
                "write for instance integer, integer(\"sum\", \"EUR\"), text or timestamp"
            )
    return dict(fields)
