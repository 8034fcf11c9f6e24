"""The benchmark W1: events and cents per tenant and minute, and revenue per product."""
from lantern import Table, integer, minute, projection, text

tenant_minute = Table("tenant_minute", count=integer("sum"), cents=integer("sum", "cent"))
product = Table("product", orders=integer("sum"), cents=integer("sum", "cent"))


@projection(
    name="w1",
    subscribes=["page.viewed", "cart.added", "order.placed"],
    on_failure="park-event",
    attributes=["tenant"],
    members={"product": text, "cents": integer(optional=True)},
    data=False,
)
def apply(event):
    cents = event.data.get("cents") or 0
    row = tenant_minute.row((minute(event.time), event.tenant))
    row["count"] += 1
    row["cents"] += cents
    if event.type == "order.placed":
        sold = product.row(event.data["product"])
        sold["orders"] += 1
        sold["cents"] += cents
