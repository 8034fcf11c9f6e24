"""Finds out from the text of a projection which attributes of events it reads, and which
members of their data.

The host passes only the attributes that the manifest requests, and decodes members of data once for
all projections. A name that is found but never read costs little. If a member is read but was not
found, its value is taken from the JSON of the event. The value is the same, but this costs more.
"""

from __future__ import annotations

import ast
import functools
import io
import tokenize
from typing import Iterator, NamedTuple

ATTRIBUTES = (
    "id",
    "source",
    "subject",
    "tenant",
    "dataschema",
    "datacontenttype",
    "extensions",
    "data",
)
"""The attributes that a manifest can request, in the order of the contract."""

MEMBERS_MAX = 32
"""How many members are asked for without being declared."""


NESTING_MAX = 50
"""The maximum nesting of brackets, and the maximum number of operators before a value. Python's
parser and compiler need stack for each level, and a component has little stack."""


@functools.lru_cache(maxsize=64)
def check_nesting(text: str, name: str) -> None:
    """Raises SyntaxError if an expression is nested too deep to be compiled."""
    depth = run = 0
    for token in _tokens(text):
        if token.type == tokenize.OP and token.string in "([{":
            depth += 1
        elif token.type == tokenize.OP and token.string in ")]}":
            depth -= 1
        run = run + 1 if token.string in _BEFORE_VALUE else 0
        if depth > NESTING_MAX or run > NESTING_MAX:
            line, column = token.start
            raise SyntaxError(
                f"nested more than {NESTING_MAX} deep", (name, line, column + 1, token.line)
            )


def _tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    try:
        yield from tokenize.generate_tokens(io.StringIO(text).readline)
    except (tokenize.TokenError, SyntaxError):
        # The compiler finds the same error, and its message is better.
        return


_BEFORE_VALUE = frozenset(("-", "+", "~", "not", "lambda", ":", "await", "**", "(", "[", "{"))


class Usage(NamedTuple):
    """What a projection reads."""

    names: frozenset[str]
    """All names behind a dot."""
    members: tuple[str, ...]
    """Members of data that are read by a constant name, in order."""


@functools.lru_cache(maxsize=64)
def usage_of(texts: tuple[str, ...]) -> Usage:
    """The attributes and members that the modules with these texts read.

    >>> usage = usage_of(('def f(event): return event.data["cents"], event.tenant',))
    >>> usage.members, "tenant" in usage.names
    (('cents',), True)
    """
    names: set[str] = set()
    members: dict[str, None] = {}
    for text in texts:
        tree = ast.parse(text)
        held = _data_variables(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                names.add(node.attr)
            name = _member(node, held)
            if name is not None:
                members[name] = None
    return Usage(frozenset(names), tuple(members)[:MEMBERS_MAX])


def _data_variables(tree: ast.AST) -> set[str]:
    """The variables that hold the data of an event: ``order = event.data``."""
    held = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)):
            targets, value = [node.target], node.value
        else:
            continue
        if isinstance(value, ast.Attribute) and value.attr == "data":
            held.update(it.id for it in targets if isinstance(it, ast.Name))
    return held


def _member(node: ast.AST, held: set[str]) -> "str | None":
    """The constant name of a member that ``node`` reads."""
    if isinstance(node, ast.Subscript):
        value, name = node.value, node.slice
    elif (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "get"
        and node.args
    ):
        value, name = node.func.value, node.args[0]
    else:
        return None
    if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
        return None
    is_data = (isinstance(value, ast.Attribute) and value.attr == "data") or (
        isinstance(value, ast.Name) and value.id in held
    )
    return name.value if is_data else None
