"""The SDK for Lantern projections in Python.

A projection is a module with tables and one function that applies an event:

>>> from lantern import Table, projection, integer, minute, timestamp
>>> by_minute = Table("by_minute", minute=timestamp, orders=integer("sum"), cents=integer("sum"))
>>> @projection(name="revenue", subscribes=["order.placed"], on_failure="park-event")
... def apply(event):
...     row = by_minute.row(minute(event.time))
...     row["minute"] = minute(event.time)
...     row["orders"] += 1
...     row["cents"] += event.data["cents"]

Test it with :mod:`lantern.testing`, and upload the file with ``lantern plugin push``.
"""

from . import log
from .errors import (
    DataError,
    KeyRefused,
    LanternError,
    ManifestError,
    ParametersError,
    Refused,
    RowError,
    UndeclaredError,
)
from .events import Data, Event, Timer
from .fields import (
    Field,
    binary,
    boolean,
    distinct,
    integer,
    json,
    nothing,
    number,
    percentiles,
    text,
    timestamp,
)
from .keys import InTenant, Key, Narrow, key_part, key_text
from .parameters import Parameters
from .program import on_setup, on_timer, prepare, projection
from .sketches import Distinct, Percentiles, bucket_of, middle_of
from .tables import PrivateTable, Table
from .times import Duration, Timestamp, Window, date, day, hour, micros_of, minute, second
from .top import Ranked, TopN
from .windows import (
    Advanced,
    Closed,
    Joined,
    OpenSessions,
    OpenWindows,
    Recent,
    Slide,
    Windows,
    hopping,
    tumbling,
)
from .zones import TimeZone

__version__ = "0.1.0"

__all__ = [
    "Advanced",
    "Closed",
    "Data",
    "DataError",
    "Distinct",
    "Duration",
    "Event",
    "Field",
    "InTenant",
    "Joined",
    "Key",
    "KeyRefused",
    "LanternError",
    "ManifestError",
    "Narrow",
    "OpenSessions",
    "OpenWindows",
    "Parameters",
    "ParametersError",
    "Percentiles",
    "PrivateTable",
    "Ranked",
    "Recent",
    "Refused",
    "RowError",
    "Slide",
    "Table",
    "TimeZone",
    "Timer",
    "Timestamp",
    "TopN",
    "UndeclaredError",
    "Window",
    "Windows",
    "binary",
    "boolean",
    "bucket_of",
    "date",
    "day",
    "distinct",
    "hopping",
    "hour",
    "integer",
    "json",
    "key_part",
    "key_text",
    "log",
    "micros_of",
    "middle_of",
    "minute",
    "nothing",
    "number",
    "on_setup",
    "on_timer",
    "percentiles",
    "prepare",
    "projection",
    "second",
    "text",
    "timestamp",
    "tumbling",
]
