"""Counts per type and hour that are written once, when the hour is over; late events apart."""

from lantern import OpenWindows, Table, integer, on_timer, projection, text, timestamp, tumbling

hours = Table("hours", start=timestamp, end=timestamp, type=text, events=integer("sum"))
late = Table("late", events=integer("sum"))
open_hours = OpenWindows("open_hours", integer)


@projection(
    name="final-hours",
    version="0.1.0",
    subscribes=["*"],
    on_failure="park-event",
    lateness="30m",
    tick="1m",
)
def apply(event):
    if open_hours.add(event, tumbling("1h"), event.type, lambda events: events + 1):
        late.row(event.type)["events"] += 1


@on_timer
def fired(timer):
    for closed in open_hours.close(timer):
        window = closed.window
        hours.put(
            (window.start, closed.key),
            start=window.start,
            end=window.end,
            type=closed.key,
            events=closed.value,
        )
