"""The newest price of each product by event time, and the largest amount of each day."""

from lantern import Table, integer, projection, text, timestamp

prices = Table(
    "prices",
    newest_by="at",
    at=timestamp("newest"),
    cents=integer("newest", "cent"),
    user=text("newest"),
)
dearest = Table("dearest", cents=integer("max", "cent"))


@projection(
    name="last-prices",
    version="0.1.0",
    subscribes=["order.placed"],
    on_failure="park-event",
    members={"user": text, "product": text, "cents": integer},
    data=False,
)
def apply(event):
    user, product, cents = event.data["user"], event.data["product"], event.data["cents"]
    known = prices.get(product)
    if known is None or event.time >= known["at"]:
        prices.put(product, at=event.time, cents=cents, user=user)

    day = str(event.time)[:10]
    best = dearest.get(day)
    if best is None or cents > best["cents"]:
        dearest.put(day, cents=cents)
