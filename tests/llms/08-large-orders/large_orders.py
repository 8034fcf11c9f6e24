"""Emits `order.large` for orders of at least `least` cents and counts them per country."""

from lantern import Parameters, Refused, Table, integer, projection, text

settings = Parameters(least=50_000)

large = Table(
    "large",
    country=text,
    orders=integer("sum"),
    cents=integer("sum", "cent"),
    largest=integer("max", "cent"),
)


@projection(
    name="large-orders",
    version="0.1.0",
    subscribes=["order.placed"],
    emits=["order.large"],
    on_failure="park-event",
    members={"user": text, "product": text, "country": text, "cents": integer},
    data=False,
)
def apply(event):
    data = event.data
    user, product, country, cents = data["user"], data["product"], data["country"], data["cents"]
    if cents <= 0:
        raise Refused(f"cents is {cents}")
    if cents < settings.least:
        return
    row = large.row(country)
    row["country"] = country
    row["orders"] += 1
    row["cents"] += cents
    row["largest"] = cents if row["largest"] is None else max(row["largest"], cents)
    event.emit(
        "order.large",
        {"user": user, "product": product, "cents": cents},
        subject=event.subject,
    )
