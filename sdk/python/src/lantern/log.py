"""Messages for the log of the plugin: ``lantern plugin logs NAME``."""

from __future__ import annotations

from ._host import call


def _log(level: str, message: object) -> None:
    if call.host is not None:
        call.host.log(max(0, call.cause), level, str(message))


def trace(message: object) -> None:
    """Logs a message of the lowest level."""
    _log("trace", message)


def debug(message: object) -> None:
    """Logs a message for the author of the projection."""
    _log("debug", message)


def info(message: object) -> None:
    """Logs a message; ``print`` does the same."""
    _log("info", message)


def warn(message: object) -> None:
    """Logs a warning."""
    _log("warn", message)


def error(message: object) -> None:
    """Logs an error."""
    _log("error", message)
