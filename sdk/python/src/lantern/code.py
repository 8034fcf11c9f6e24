"""Compiled code, kept so that the same text is compiled once."""

from __future__ import annotations

import functools
import types


@functools.lru_cache(maxsize=256)
def compiled(text: str, name: str) -> types.CodeType:
    """The code of a text."""
    return compile(text, name, "exec", dont_inherit=True)
