"""Names the place in a script at which something went wrong."""

from __future__ import annotations

import ast
import functools
import os
import traceback
from types import TracebackType
from typing import Any, Mapping

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
    found = []
    while trace is not None:
        code = trace.tb_frame.f_code
        name = code.co_filename
        if name in sources or not (name.startswith("<") or name.startswith(_OWN)):
            found.append((name, trace.tb_lineno, code.co_name))
        trace = trace.tb_next
    named = [frame for frame in found if frame[0] in sources]
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
    """The place of an error in a row that was found at the end of an event: the line that
    sets the field, if there is exactly one such line; otherwise the function."""
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    field = getattr(error, "field", "")
    found = field_places(field, sources) if field else []
    if len(found) == 1:
        return (*found[0], code.co_name)
    return code.co_filename, code.co_firstlineno, code.co_name


class Places:
    """The places in a projection's modules at which something went wrong. Known places are
    kept, because most events may fail, and most of these fail at the same few places."""

    _KEPT_MAX = 256

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = sources
        self._kept: dict[Any, tuple[str, list[Any]]] = {}

    def reason(self, error: BaseException, function: Any) -> str:
        """Why an event was parked: the error, and file, line and source line."""
        key: list[Any] = []
        trace = error.__traceback__
        if trace is not None:
            # The first frame is the SDK's, and so in no place.
            trace = trace.tb_next
        while trace is not None:
            # The instruction and not the line: to find the line takes much longer.
            key += (id(trace.tb_frame.f_code), trace.tb_lasti)
            trace = trace.tb_next
        if isinstance(error, RowError):
            key += (function, error.field)
        kept = self._kept.get(tuple(key))
        if kept is None:
            # The code is kept as well, so that no other code can have its `id`.
            code = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
            kept = (_place(error, self._sources, function), code)
            if len(self._kept) >= self._KEPT_MAX:
                self._kept.clear()
            self._kept[tuple(key)] = kept
        return what(error) + kept[0]


def _place(error: BaseException, sources: Mapping[str, str], function: Any) -> str:
    """File, line and source line of an error; empty if they are not known."""
    found = frames(error.__traceback__, sources)
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
