"""Orders, items and cents per minute and country; orders without usable cents are parked."""

from lantern import Table, integer, minute, projection, text, timestamp

by_minute = Table(
    "by_minute",
    minute=timestamp,
    country=text,
    orders=integer("sum"),
    items=integer("sum"),
    cents=integer("sum", "cent"),
)


@projection(
    name="minute-totals",
    version="0.1.0",
    subscribes=["order.placed"],
    on_failure="park-event",
    members={"country": text, "cents": integer, "quantity": integer(optional=True, default=1)},
    data=False,
)
def apply(event):
    start = minute(event.time)
    row = by_minute.row((start, event.data["country"]))
    row["minute"] = start
    row["country"] = event.data["country"]
    row["orders"] += 1
    row["items"] += event.data["quantity"]
    row["cents"] += event.data["cents"]
