"""Tables: rows under ordered keys.

Rows that are used stay in memory, and changed rows are sent to the host in one call at
the end of a batch. Memory is only a cache: the host may drop it between any two calls.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Callable, Generic, Iterable, Iterator, Mapping, TypeVar

from . import _host
from ._host import call
from .errors import FlushError, KeyRefused, ManifestError, RowError
from .fields import Field, StructCodec, ValueCodec, check_fields, json
from .keys import NO_KEYS, NUL, InTenant, Key, end_of_prefix, key_text, no_key
from .program import current
from .times import Duration, Timestamp, micros_of

V = TypeVar("V")

_UNKNOWN: Any = object()
"""Stands for the previous row of a key, if that row is not known."""

CACHE_ROWS = 32_768
"""How many rows a table keeps in memory unless it says otherwise."""
_SCAN_PAGE = 1_000
_KEY_BYTES_MAX = 1_024
"""The longest key that the host takes."""
_TOO_LONG = f"a key has at most {_KEY_BYTES_MAX} bytes"
_KEY_SHOWN_MAX = 64
"""How much of a key a message shows."""
_MEMO_MAX = 4_096


full: list["Rows[Any]"] = []
"""The tables that have more rows in memory than they should."""


def make_room() -> None:
    """Drops rows from memory. No event is being applied, so no row is in use."""
    for table in full:
        table.flush()
        table.rows.clear()
    full.clear()


def _row_function(table: "Rows[Any]") -> Any:
    """The function that returns a row to change. It is a closure, because it is called for
    every event, and variables of a closure are faster than attributes of the table."""
    get, touched, fresh, copy = (
        table.rows.get,
        table.touched,
        table._fresh_row,
        table.codec.copy,
    )
    prefix = f"table `{table.name}`: "
    # For keys of two parts whose second part is text: the key's text and the type of its first
    # part. The type matters because equal parts, such as 60 and Timestamp(60), may have different
    # texts.
    memo: dict[Any, tuple[type, str]] = {}
    known = memo.get

    def row(key: Key) -> Any:
        if type(key) is tuple:
            entry = known(key)
            if entry is not None and entry[0] is type(key[0]):
                key = entry[1]
            else:
                key = remember(key)
        found = get(key)
        if found is None:
            # Errors are raised here and not in functions called from here, because each
            # function that an exception leaves takes a twentieth of the time of an event,
            # and most events may fail.
            if type(key) is not str:
                if type(key) in NO_KEYS:
                    raise KeyRefused(prefix + no_key(key))
                try:
                    key = key_text(key)
                except KeyRefused as error:
                    error.args = (f"{prefix}{error}",)
                    raise
                found = get(key)
            if found is None:
                found = fresh(key)
                if type(found) is KeyRefused:
                    raise found
                return found
        if key not in touched:
            touched[key] = copy(found)
        return found

    def remember(key: Any) -> str:
        text = table._key(key)
        if len(key) == 2 and type(key[0]) in (Timestamp, str) and type(key[1]) is str:
            if len(memo) >= _MEMO_MAX:
                memo.clear()
            memo[key] = (type(key[0]), text)
        return text

    return row


class Rows(Generic[V]):
    """The rows of a table in memory; the base of all tables."""

    def __init__(
        self,
        name: str,
        description: str,
        codec: Any,
        *,
        public: bool,
        per_tenant: bool = False,
        newest_by: "str | None" = None,
        retention: "Duration | None" = None,
        cache: int = CACHE_ROWS,
    ) -> None:
        self.name = name
        """The table's name."""
        self.description = description
        """A sentence for people."""
        self.public = public
        """Whether readers see it."""
        self.per_tenant = per_tenant
        """Whether each row belongs to a tenant."""
        self.newest_by = newest_by
        """The time field that decides which partition's value counts."""
        self.retention = None if retention is None else micros_of(retention)
        """Microseconds for which a row is kept after its last change."""
        self.cache_max = max(1, cache)
        self.codec = codec
        # These three objects are never replaced, because generated code refers to them.
        self.rows: dict[str, Any] = {}
        """Rows that are known; none for a key without a row."""
        self.touched: dict[str, Any] = {}
        """The rows that the current event may have changed, as they were before it."""
        self.changed: dict[str, int] = {}
        """For each changed row that was not sent to the host, the event that has changed it."""
        self.mutable = self._tenant_row if per_tenant else _row_function(self)
        """The row under a key to change; a new one if there is none."""
        self.id = current().add_table(self)
        """The table's index in the manifest."""

    def fields(self) -> dict[str, Field]:
        """The declared fields; none for values."""
        return getattr(self.codec, "fields", {})

    # Keys.

    def _key(self, key: Key) -> str:
        if self.per_tenant:
            if type(key) is not InTenant:
                raise self._refused(key, "the table is per tenant; use InTenant(tenant, key)")
            if not key.tenant:
                raise self._refused(
                    key, "the tenant is empty; handle events without a tenant separately"
                )
        if type(key) in NO_KEYS:
            # Each function that an exception leaves takes a tenth of the time of an event, and most
            # events may fail. So this check is not in a function of its own.
            raise KeyRefused(f"table `{self.name}`: {no_key(key)}")
        try:
            return key_text(key)
        except KeyRefused as error:
            error.args = (f"table `{self.name}`: {error}",)
            raise

    def _refused(self, key: Key, why: str) -> KeyRefused:
        shown = key_text(key) if isinstance(key, tuple) else key
        if isinstance(shown, str) and len(shown) > _KEY_SHOWN_MAX:
            shown = shown[:_KEY_SHOWN_MAX] + "…"
        return KeyRefused(f"table `{self.name}`: key {shown!r}: {why}")

    def _key_fault(self, key: str) -> str:
        """The reason why a text cannot be a key; empty if it can. The host would end the call for
        such a key, which takes far longer than to park the event."""
        if not key:
            return "a key cannot be empty"
        if len(key) > _KEY_BYTES_MAX:
            return _TOO_LONG
        nul = key.find("\0")
        if self.per_tenant:
            nul = key.find("\0", nul + 1)
        if nul >= 0:
            return NUL
        try:
            encoded = key.encode()
        except UnicodeEncodeError:
            return "half of a surrogate pair cannot be part of a key"
        return _TOO_LONG if len(encoded) > _KEY_BYTES_MAX else ""

    def _check_key(self, key: str) -> None:
        fault = self._key_fault(key)
        if fault:
            raise self._refused(key, fault)

    def _check_tenant(self, key: str) -> None:
        if call.tenant is None or not key.startswith(f"{call.tenant}\0"):
            raise self._refused(key, "only an event or a timer of its tenant may change a row")

    # Reading.

    def _load(self, key: str) -> Any:
        """The row under ``key`` from the host; None if there is none. The caller has checked the
        key."""
        host = _host.host()
        data = host.get(self.id, key)
        row = None if data is None else self._decode(key, data)
        self.rows[key] = row
        if len(self.rows) > self.cache_max and self not in full:
            full.append(self)
        return row

    def _decode(self, key: str, data: bytes) -> Any:
        try:
            return self.codec.decode(data)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RowError(f"table `{self.name}`: row {key!r}: {error}") from None

    def _read(self, key: str) -> Any:
        row = self.rows.get(key)
        if row is None and key not in self.rows:
            self._check_key(key)
            row = self._load(key)
        return row

    def _fresh_row(self, key: str) -> Any:
        """The row under ``key`` to change. It is not in memory, or does not exist. Returns an
        error if ``key`` cannot be a key."""
        row = None
        if key not in self.rows:
            fault = self._key_fault(key)
            if fault:
                return self._refused(key, fault)
            row = self._load(key)
        self._touch(key, row)
        if row is None:
            row = self.rows[key] = self.codec.default()
        return row

    def _touch(self, key: str, row: Any) -> None:
        """Keeps a copy of a row, which the current event is about to change."""
        if key not in self.touched:
            self.touched[key] = None if row is None else self.codec.copy(row)

    def _tenant_row(self, key: Key) -> Any:
        text = self._key(key)
        row = self._read(text)
        self._check_tenant(text)
        if row is None:
            return self._fresh_row(text)
        self._touch(text, row)
        return row

    def _existing(self, key: Key) -> Any:
        """The row under ``key`` to change, or none."""
        key = self._key(key)
        row = self._read(key)
        if row is not None:
            if self.per_tenant:
                self._check_tenant(key)
            self._touch(key, row)
        return row

    def _set(self, key: Key, row: Any) -> None:
        key = self._key(key)
        if key not in self.rows:
            self._check_key(key)
        self._set_text(key, row)

    def _set_text(self, key: str, row: Any) -> None:
        if self.per_tenant:
            self._check_tenant(key)
        if key not in self.touched:
            # It is replaced and never changed after that, so it needs no copy.
            self.touched[key] = self.rows.get(key, _UNKNOWN)
        self.rows[key] = row

    def delete(self, key: Key) -> None:
        """Deletes the row under ``key``, if there is one."""
        self._set(key, None)

    def __contains__(self, key: Key) -> bool:
        return self._read(self._key(key)) is not None

    def prefetch(self, keys: Iterable[Key]) -> None:
        """Reads the rows under ``keys`` in one call of the host, so that later reads of
        these rows are fast. Call it in a function with :func:`.prepare`. It has no other
        effect."""
        rows = self.rows
        wanted = []
        for key in keys:
            if type(key) is not str or self.per_tenant:
                key = self._key(key)
            if key not in rows:
                self._check_key(key)
                wanted.append(key)
        wanted = list(dict.fromkeys(wanted))[: max(0, self.cache_max - len(rows))]
        if not wanted:
            return
        found, (ends, values) = _host.host().get_many(self.id, _host.column(wanted))
        start = 0
        for key, exists, end in zip(wanted, found, ends):
            rows[key] = self._decode(key, values[start:end]) if exists else None
            start = end

    def _scan(
        self,
        prefix: "Key | None",
        start: Key,
        end: Key,
        limit: "int | None",
        newest_first: bool,
    ) -> Iterator[tuple[str, Any]]:
        if self.touched:
            self.check()
            self.note(call.cause)
            call.sent = call.cause
        self.flush()
        first, last = key_text(start), key_text(end)
        if prefix is not None:
            first = key_text(prefix)
            last = end_of_prefix(first)
        left = _SCAN_PAGE**3 if limit is None else limit
        found = []
        while left > 0:
            wanted = min(left, _SCAN_PAGE)
            page = _host.host().scan(self.id, first, last, wanted, newest_first)
            for key, data in page:
                found.append((key, self._decode(key, data)))
            left -= len(page)
            if len(page) < wanted:
                break
            if newest_first:
                last = page[-1][0]
            else:
                first = page[-1][0] + "\0"
        return iter(found)

    # Writing.

    def check(self) -> None:
        """Checks the rows that an event has touched, and converts them to what a later read
        of the row would return."""
        rows, codec = self.rows, self.codec
        for key in self.touched:
            row = rows[key]
            if row is not None:
                row = codec.check(row)
                if type(row) is RowError:
                    raise self._located(key, row)
                rows[key] = row

    def _located(self, key: str, error: RowError) -> RowError:
        """Adds the place to an error of a row that was checked after the projection's
        function has returned."""
        error.args = (f"table `{self.name}`: row {key!r}: {error}",)
        return error

    def note(self, cause: int) -> None:
        """Notes that the event ``cause`` has changed the rows that it has touched."""
        for key in self.touched:
            self.changed[key] = cause

    def undo(self) -> None:
        """Puts back the rows that the current event has touched."""
        rows = self.rows
        for key, row in self.touched.items():
            if row is _UNKNOWN:
                rows.pop(key, None)
            else:
                rows[key] = row
        self.touched.clear()

    def check_code(self, suffix: str, names: dict[str, Any]) -> list[str]:
        """The code of :meth:`check` for the generated loop over events. Adds the names that
        the code uses to ``names``."""
        names.update({f"touched{suffix}": self.touched, f"check{suffix}": self.check})
        return [f"if touched{suffix}: check{suffix}()"]

    def note_code(self, suffix: str, names: dict[str, Any]) -> list[str]:
        """The code of :meth:`note` for the generated loop over events, after the event
        ``index`` is applied. Adds the names that the code uses to ``names``."""
        names.update({f"touched{suffix}": self.touched, f"changed{suffix}": self.changed})
        return [
            f"if touched{suffix}:",
            f"    for key in touched{suffix}: changed{suffix}[key] = index",
            f"    touched{suffix}.clear()",
        ]

    def flush(self) -> None:
        """Sends the changed rows to the host."""
        changed = self.changed
        if not changed:
            return
        rows, encode = self.rows, self.codec.encode
        keys, causes, values = [], [], []
        gone, gone_causes = [], []
        for key, cause in changed.items():
            row = rows[key]
            if row is None:
                gone.append(key)
                gone_causes.append(cause)
                continue
            try:
                values.append(encode(row))
            except Exception as error:
                reason = f"table `{self.name}`: row {key!r}: {error}"
                raise FlushError(cause, reason) from None
            keys.append(key)
            causes.append(cause)
        host = _host.host()
        if gone:
            host.delete_many(gone_causes, self.id, _host.column(gone))
        if keys:
            columns = _host.byte_column(values) if self.codec.binary else _host.column(values)
            host.put_many(causes, self.id, _host.column(keys), columns)
        changed.clear()

    def reset(self) -> None:
        """Forgets all rows in memory, as a fresh instance has."""
        self.rows.clear()
        self.touched.clear()
        self.changed.clear()


class Table(Rows[dict[str, Any]]):
    """A table of rows with declared fields.

    >>> from lantern import integer, text
    >>> products = Table("products", product=text, cents=integer("sum", "cent"))

    :param name: lower-case letters, digits, ``_`` and ``-``.
    :param description: a sentence for people.
    :param private: readers do not see the table.
    :param per_tenant: every row belongs to a tenant; keys are :class:`.InTenant`.
    :param newest_by: the time field that decides which partition's value counts for
        fields with the merge ``newest``.
    :param retention: how long a row is kept after its last change: ``"7d"``.
    :param cache: how many rows are kept in memory.
    :param columns: more fields, for names that are not Python identifiers or that are also
        the name of one of these parameters.
    :param fields: the fields, in the order in which rows have them.
    """

    def __init__(
        self,
        name: str,
        description: str = "",
        /,
        *,
        private: bool = False,
        per_tenant: bool = False,
        newest_by: "str | None" = None,
        retention: "Duration | None" = None,
        cache: int = CACHE_ROWS,
        columns: "Mapping[str, Field] | None" = None,
        **fields: Field,
    ) -> None:
        declared = check_fields(name, {**fields, **(columns or {})})
        if newest_by is not None and newest_by not in declared:
            raise ManifestError(f"table `{name}`: newest_by={newest_by!r} is not a field")
        super().__init__(
            name,
            description,
            StructCodec(declared),
            public=not private,
            per_tenant=per_tenant,
            newest_by=newest_by,
            retention=retention,
            cache=cache,
        )
        self.row: Callable[[Key], dict[str, Any]] = self.mutable
        """The row under a key, to read and to change; a new row with the defaults of the
        fields if there is none. Use the row only until the projection's function returns: a
        change after that is lost."""

    def get(self, key: Key) -> "Mapping[str, Any] | None":
        """The row under ``key``, to read only; none if there is none."""
        row = self._read(self._key(key))
        return None if row is None else MappingProxyType(row)

    def get_mutable(self, key: Key) -> "dict[str, Any] | None":
        """The row under ``key``, to read and to change; none if there is none."""
        return self._existing(key)

    def put(self, key: Key, row: "Mapping[str, Any] | None" = None, **values: Any) -> None:
        """Puts a row under ``key``, in place of any other. Missing fields have their
        defaults."""
        self._set(key, {**self.codec.default(), **(row or {}), **values})

    def take(self, key: Key) -> "dict[str, Any] | None":
        """Removes the row under ``key``, and returns it."""
        key = self._key(key)
        row = self._read(key)
        if row is not None:
            if self.per_tenant:
                self._check_tenant(key)
            self._touch(key, row)
            self.rows[key] = None
        return row

    def scan(
        self,
        prefix: "Key | None" = None,
        *,
        start: Key = "",
        end: Key = "",
        limit: "int | None" = None,
        newest_first: bool = False,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Rows with their keys, in the order of the keys: those whose keys begin with
        ``prefix``, or those from ``start`` up to but not including ``end``.

        All of these rows are read at once, so set ``limit`` if there may be many. Changing
        the returned rows changes nothing in the table.
        """
        return self._scan(prefix, start, end, limit, newest_first)

    def check_code(self, suffix: str, names: dict[str, Any]) -> list[str]:
        """As :meth:`Rows.check_code`, without a call for rows that need no conversion."""
        names.update(self.codec.names)
        names.update(
            {
                f"touched{suffix}": self.touched,
                f"rows{suffix}": self.rows,
                f"convert{suffix}": self.codec.check,
                f"located{suffix}": self._located,
                "RowError": RowError,
            }
        )
        return [
            f"for key in touched{suffix}:",
            f"    row = rows{suffix}[key]",
            "    try:",
            f"        if row is None or ({self.codec.fit_expression()}):",
            "            continue",
            "    except KeyError:",
            "        pass",
            f"    row = convert{suffix}(row)",
            f"    if type(row) is RowError: raise located{suffix}(key, row)",
        ]


class PrivateTable(Rows[Any]):
    """A table of single values that readers do not see.

    >>> from lantern import integer
    >>> seen = PrivateTable("seen", integer)

    ``kind`` is one of the kinds of fields, or ``binary``, or ``nothing`` for a set. Values of
    the kind ``json`` (the default) are lists, dicts and other values of JSON; ``get`` returns
    a copy of the value, so put it back after a change.
    """

    def __init__(
        self,
        name: str,
        kind: Field = json,
        /,
        *,
        description: str = "",
        per_tenant: bool = False,
        retention: "Duration | None" = None,
        cache: int = CACHE_ROWS,
    ) -> None:
        if not isinstance(kind, Field):
            raise ManifestError(f"table `{name}`: {kind!r} is not a kind; write integer or json")
        super().__init__(
            name,
            description,
            ValueCodec(kind),
            public=False,
            per_tenant=per_tenant,
            retention=retention,
            cache=cache,
        )
        self._copies = kind.kind in ("json", "distinct", "percentiles")

    def _copy(self, value: Any) -> Any:
        if self._copies and value is not None:
            encoded = self.codec.encode(value)
            return self.codec.decode(encoded.encode())
        return value

    def get(self, key: Key, default: Any = None) -> Any:
        """The value under ``key``; ``default`` if there is none."""
        value = self._read(self._key(key))
        return default if value is None else self._copy(value)

    def put(self, key: Key, value: Any = None) -> None:
        """Puts a value under ``key``, in place of any other."""
        value = self.codec.check(value)
        if type(value) is RowError:
            raise RowError(f"table `{self.name}`: the value {value}")
        if value is None:
            raise RowError(f"table `{self.name}`: None is not a value; use delete(key)")
        self._set(key, self._copy(value) if self._copies else value)

    def add(self, key: Key, amount: "int | float" = 1) -> Any:
        """Adds to the number under ``key``, which begins at 0, and returns the sum."""
        value = self._read(self._key(key))
        total = amount if value is None else value + amount
        self.put(key, total)
        return total

    def take(self, key: Key) -> Any:
        """Removes the value under ``key``, and returns it; none if there is none."""
        value = self.get(key)
        if value is not None:
            self.delete(key)
        return value

    def scan(
        self,
        prefix: "Key | None" = None,
        *,
        start: Key = "",
        end: Key = "",
        limit: "int | None" = None,
        newest_first: bool = False,
    ) -> Iterator[tuple[str, Any]]:
        """Values with their keys; see :meth:`Table.scan`."""
        return self._scan(prefix, start, end, limit, newest_first)

    def check(self) -> None:
        """Does nothing: values were checked when they were put."""

    def check_code(self, suffix: str, names: dict[str, Any]) -> list[str]:
        """As :meth:`check`."""
        return []
