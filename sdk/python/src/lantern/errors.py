"""Errors of a projection.

If an exception leaves the function that applies an event, the event is parked. The reason has the
exception's text, and the line of the script with its source.
"""

from __future__ import annotations


class LanternError(Exception):
    """The base of all errors that the SDK raises."""


class Refused(LanternError):
    """An event that the projection refuses: ``raise Refused("cents is negative")``.

    Any other exception parks the event as well, but its reason contains the exception's
    name. The reason of this exception is only its message.
    """


class DataError(LanternError):
    """The data of an event is not JSON, or a declared member has another kind."""


class KeyRefused(LanternError):
    """A value that cannot be the key of a row or of a timer."""


class RowError(LanternError):
    """A row that does not match the fields of its table."""

    # This is an attribute of the class. A function `__init__` would double the time to
    # create an error.
    field: str = ""
    """The field, if it is one of them."""


class ManifestError(LanternError):
    """A declaration that breaks a rule of the contract."""


class ParametersError(LanternError):
    """Parameters that do not match those of the projection."""


class UndeclaredError(LanternError):
    """The projection used something that it does not declare: an attribute, a timer without event
    time, or the type of an emitted event."""


class FlushError(LanternError):
    """A changed row could not be sent to the host."""

    def __init__(self, cause: int, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause
        """The index of the timer or event that changed the row."""
