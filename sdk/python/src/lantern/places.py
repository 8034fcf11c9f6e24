"""Names the place in a script at which something went wrong."""

from __future__ import annotations

import ast
import functools
import os
from types import CodeType, FunctionType, TracebackType
from typing import Any, Mapping, NamedTuple

from .errors import LanternError, Refused, RowError

_OWN = os.path.dirname(__file__)
_FRAMES_MAX = 4
_LINE_MAX = 160
_NAMES_MAX = 256
_names: dict[type, str] = {}
"""How a type of errors is named in reasons. The SDK's own errors have no name."""


def what(error: BaseException) -> str:
    """The error without its place."""
    kind = type(error)
    name = _names.get(kind)
    if name is None:
        name = "" if issubclass(kind, LanternError) else kind.__name__
        if len(_names) >= _NAMES_MAX:
            _names.clear()
        _names[kind] = name
    try:
        text = str(error)
    except Exception:  # an exception of the projection with a broken `__str__`
        text = ""
    if name:
        return f"{name}: {text}" if text else name
    return text or ("refused" if isinstance(error, Refused) else "")


def frames(
    trace: "TracebackType | None", sources: Mapping[str, str]
) -> list[tuple[str, int, str]]:
    """File, line and function of the frames of the projection, outermost first."""
    return [
        (code.co_filename, line, code.co_name) for _, code, line in _own_frames(trace, sources)
    ]


def _own_frames(
    trace: "TracebackType | None", sources: Mapping[str, str]
) -> "list[tuple[int, CodeType, int]]":
    """Depth, code and line of the frames of the projection, outermost first."""
    found = []
    depth = 0
    while trace is not None:
        code = trace.tb_frame.f_code
        name = code.co_filename
        is_sdk = name.startswith("<") or name.startswith(_OWN)
        if name in sources or not is_sdk:
            found.append((depth, code, trace.tb_lineno))
        trace, depth = trace.tb_next, depth + 1
    named = [frame for frame in found if frame[1].co_filename in sources]
    return named or found


def source_line(name: str, line: int, sources: Mapping[str, str]) -> str:
    """The line of a module, without indentation; empty if it is not known."""
    lines = _lines(sources.get(name, ""))
    text = lines[line - 1].strip() if 0 < line <= len(lines) else ""
    return text if len(text) <= _LINE_MAX else text[:_LINE_MAX] + "…"


# Kept, because most events may fail.
@functools.lru_cache(maxsize=64)
def _lines(text: str) -> list[str]:
    return text.splitlines()


def field_places(field: str, sources: Mapping[str, str]) -> list[tuple[str, int]]:
    """Files and lines that set a field of a row: ``row["cents"] = …`` or ``cents=…``."""
    return [
        (name, line) for name, text in sources.items() for line in _field_lines(text, field)
    ]


@functools.lru_cache(maxsize=256)
def _field_lines(text: str, field: str) -> list[int]:
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            key = node.slice
            if isinstance(key, ast.Constant) and key.value == field:
                found.append(node.lineno)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in ("put", "update"):
                found += [it.value.lineno for it in node.keywords if it.arg == field]
    return found


def _row_place(
    error: BaseException, sources: Mapping[str, str], function: Any
) -> "tuple[str, int, str] | None":
    """The place of an error in a row that was found at the end of an event. It is the line that
    sets the field, if there is exactly one such line; otherwise it is the function."""
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    field = getattr(error, "field", "")
    found = field_places(field, sources) if field else []
    if len(found) == 1:
        return (*found[0], code.co_name)
    return code.co_filename, code.co_firstlineno, code.co_name


class _Kept(NamedTuple):
    """A known place."""

    text: str
    depth: int
    """The number of functions above the innermost one of the projection; -1 if there is none."""
    code: "CodeType | None"
    """The code of that function."""

    def is_place_of(self, trace: "TracebackType | None") -> bool:
        """Whether it is the place of the error with this traceback."""
        if self.code is None:
            return True
        for _ in range(self.depth):
            trace = trace.tb_next if trace is not None else None
        # Each of these two reads is an audit event of Python, and takes a tenth of the time that
        # an event takes.
        return trace is not None and trace.tb_frame.f_code is self.code


class Places:
    """The places in a projection's modules at which errors occurred. Known places are kept, because
    most events may fail, and most failures are at the same few places."""

    _KEPT_MAX = 256

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = sources
        self._kept: dict[Any, _Kept] = {}

    def reason(self, error: BaseException, function: Any) -> str:
        """Why a call failed: the error, and file, line and source line."""
        trace = error.__traceback__
        # The first function belongs to the SDK, so it is left out.
        return what(error) + _place(error, trace and trace.tb_next, self._sources, function)

    def reason_of_event(self, error: BaseException, function: FunctionType) -> str:
        """As :meth:`reason`, for an error that has left ``function``, which was called with an
        event, or that was found in its rows afterwards."""
        # The first function is the loop over the events.
        trace = error.__traceback__.tb_next  # type: ignore[union-attr]
        key: Any
        if trace is None:
            kind = type(error)
            key = error.field if kind is RowError else kind  # type: ignore[attr-defined]
        else:
            # This is `function`, so the instruction is sufficient as the key.
            key = trace.tb_lasti
            inner = trace.tb_next
            if inner is not None:
                key = _instructions(key, inner)
        kept = self._kept.get(key)
        # At depth 0 the place is in `function`, which needs no check.
        if kept is None or (kept.depth > 0 and not kept.is_place_of(trace)):
            kept = self._keep(key, error, trace, function)
        name = _names.get(type(error))
        if name == "":
            return str(error) + kept.text
        return what(error) + kept.text

    def _keep(
        self,
        key: Any,
        error: BaseException,
        trace: "TracebackType | None",
        function: Any,
    ) -> _Kept:
        text = _place(error, trace, self._sources, function)
        found = _own_frames(trace, self._sources)
        kept = _Kept(text, *found[-1][:2]) if found else _Kept(text, -1, None)
        if len(self._kept) >= self._KEPT_MAX:
            self._kept.clear()
        self._kept[key] = kept
        return kept


def _instructions(first: int, trace: "TracebackType | None") -> tuple[int, ...]:
    """The instructions of a traceback whose first function is at the instruction ``first``,
    and the lines of the other functions. Tracebacks of different functions have the same ones
    only by chance. The functions are not read, because each read is an audit event of Python,
    which takes a tenth of the time that an event takes."""
    key = [first]
    while trace is not None:
        key += (trace.tb_lasti, trace.tb_lineno)
        trace = trace.tb_next
    return tuple(key)


def _place(
    error: BaseException,
    trace: "TracebackType | None",
    sources: Mapping[str, str],
    function: Any,
) -> str:
    """File, line and source line of an error; empty if they are not known."""
    found = frames(trace, sources)
    if not found:
        place = _row_place(error, sources, function) if isinstance(error, RowError) else None
        if place is None:
            return ""
        found = [place]
    name, line, function = found[-1]
    shown = os.path.basename(name)
    source = source_line(name, line, sources)
    text = f", at {shown}:{line} in {function}"
    if source:
        text += f": `{source}`"
    for outer, outer_line, outer_function in found[-2 : -1 - _FRAMES_MAX : -1]:
        text += f"; called from {os.path.basename(outer)}:{outer_line} in {outer_function}"
    return text


def refusal(error: BaseException, name: str, sources: Mapping[str, str]) -> str:
    """Why a script was refused: ``name:line: error``, and the source line."""
    if isinstance(error, SyntaxError) and error.filename in (name, None, "<unknown>"):
        line, column = error.lineno or 1, error.offset or 0
        place = f"{name}:{line}:{column}" if column > 0 else f"{name}:{line}"
        source = source_line(name, line, sources)
        text = f"{place}: {type(error).__name__}: {error.msg}"
        return f"{text}: `{source}`" if source else text
    found = [frame for frame in frames(error.__traceback__, sources) if frame[0] in sources]
    if not found:
        return f"{name}:1: {what(error)}"
    _, line, function = found[-1]
    source = source_line(name, line, sources)
    inside = "" if function == "<module>" else f" in {function}"
    text = f"{name}:{line}: {what(error)}{inside}"
    return f"{text}: `{source}`" if source else text
