"""Errors of a projection.

An exception that leaves the function that applies an event parks this event, with the
exception's text, the line of the script and its source as the reason.
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

    # These are attributes of the class. A function `__init__` would double the time to
    # create an error.
    field: str = ""
    """The field, if it is one of them."""
    is_at_end: bool = False
    """Whether the row was checked after the projection's function has returned."""

    def locate(self, place: str) -> None:
        """Puts the place of the error in front of its text. The caller raises the error
        again, which takes less time than another error would."""
        self.args = (place + str(self),)


class ManifestError(LanternError):
    """A declaration that breaks a rule of the contract."""


class ParametersError(LanternError):
    """Parameters that do not match those of the projection."""


class UndeclaredError(LanternError):
    """Something was used that the projection does not declare: an attribute, a timer
    without event time, or the type of an emitted event."""


class FlushError(LanternError):
    """A changed row could not be sent to the host."""

    def __init__(self, cause: int, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause
        """The index of the timer or event that changed the row."""
