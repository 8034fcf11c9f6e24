"""Computes what the ten projections have to show for `events.ndjson`, without Lantern.

Each function below follows the text of one `task.md`, with the standard library only, and returns
the tables, the number of parked events and the emitted events. `python3 expect.py` writes
`expected.json` (the tables, by key) and `outcome.json` (the number of parked events, and the type,
subject and data of the emitted ones) into the folder of each task.

Sketches are written as what can be compared: `{"estimate": n}` for distinct values, and the exact
percentiles (the smallest value that at least p percent of the values do not exceed).
"""

import json
import math
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

HERE = Path(__file__).parent
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
MISSING = object()


class Bad(Exception):
    """The event must be parked."""


def read_events():
    """The events of the file in its order, with `at` as their time."""
    events = []
    for line in (HERE / "events.ndjson").read_text("utf-8").splitlines():
        event = json.loads(line)
        event["at"] = datetime.fromisoformat(event["time"].replace("Z", "+00:00")).astimezone(timezone.utc)
        events.append(event)
    return events


def stamp(at):
    """A time as rows show it: in UTC, with no fraction, or three or six digits of it."""
    at = at.astimezone(timezone.utc)
    whole = at.strftime("%Y-%m-%dT%H:%M:%S")
    if at.microsecond == 0:
        return f"{whole}Z"
    if at.microsecond % 1000 == 0:
        return f"{whole}.{at.microsecond // 1000:03}Z"
    return f"{whole}.{at.microsecond:06}Z"


def floor(at, step):
    """The start of the step that contains a time, counted from 1970 in UTC."""
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    return epoch + (at - epoch) // step * step


def member(event, name, kind, default=MISSING):
    """A member of the data; the event is bad if it is missing or of another kind."""
    data = event.get("data")
    if not isinstance(data, dict):
        raise Bad
    value = data.get(name)
    if value is None:
        if default is MISSING:
            raise Bad
        return default
    if type(value) is not kind:
        raise Bad
    return value


def of_types(events, *types):
    """The events of some types."""
    return [event for event in events if event["type"] in types]


def keep_good(events, read):
    """What `read` returns for each good event, and the number of bad ones."""
    good, parked = [], 0
    for event in events:
        try:
            good.append((event, read(event)))
        except Bad:
            parked += 1
    return good, parked


class Watermark:
    """The highest time so far minus the lateness, at whole ticks."""

    def __init__(self, lateness, tick=MINUTE):
        self.lateness, self.tick, self.highest, self.value = lateness, tick, None, None

    def advance(self, at):
        """Takes the time of one more event."""
        self.highest = at if self.highest is None else max(self.highest, at)
        self.value = floor(self.highest - self.lateness, self.tick)

    def passed(self, at):
        """Whether the watermark has reached a time."""
        return self.value is not None and self.value >= at


def minute_totals(events):
    """Task 1."""
    orders = of_types(events, "order.placed")
    good, parked = keep_good(
        orders,
        lambda e: (member(e, "country", str), member(e, "cents", int), member(e, "quantity", int, 1)),
    )
    groups = defaultdict(list)
    for event, (country, cents, quantity) in good:
        groups[stamp(floor(event["at"], MINUTE)), country].append((cents, quantity))
    table = {
        f"{start}/{country}": {
            "minute": start,
            "country": country,
            "orders": len(group),
            "items": sum(quantity for _, quantity in group),
            "cents": sum(cents for cents, _ in group),
        }
        for (start, country), group in groups.items()
    }
    return {"by_minute": table}, parked, []


def daily_users(events):
    """Task 2, with the zone America/New_York."""
    zone = ZoneInfo("America/New_York")
    good, parked = keep_good(events, lambda e: member(e, "user", str))
    groups = defaultdict(list)
    for event, user in good:
        groups[event["at"].astimezone(zone).date().isoformat(), event["type"]].append(user)
    table = {
        f"{date}/{kind}": {
            "date": date,
            "type": kind,
            "events": len(users),
            "users": {"estimate": len(set(users))},
        }
        for (date, kind), users in groups.items()
    }
    return {"days": table}, parked, []


def percentiles(values):
    """The exact percentiles of some integers."""
    values = sorted(values)
    row = {"count": len(values), "min": values[0] if values else None}
    for p in (50, 75, 90, 95, 99):
        row[f"p{p}"] = values[math.ceil(len(values) * p / 100) - 1] if values else None
    row["max"] = values[-1] if values else None
    return row


def order_percentiles(events):
    """Task 3."""
    good, parked = keep_good(
        of_types(events, "order.placed", "cart.added"), lambda e: member(e, "cents", int, None)
    )
    groups = defaultdict(list)
    for event, cents in good:
        if cents is not None and cents > 0:
            groups[event["data"]["country"]].append((event["type"], cents))
    table = {}
    for country, group in groups.items():
        orders = [cents for kind, cents in group if kind == "order.placed"]
        every = [cents for _, cents in group]
        table[country] = {
            "country": country,
            "orders": len(orders),
            "carts": len(group) - len(orders),
            "order_cents": percentiles(orders),
            "smallest": min(every),
            "largest": max(every),
        }
    return {"amounts": table}, parked, []


def last_prices(events):
    """Task 4."""
    good, parked = keep_good(
        of_types(events, "order.placed"),
        lambda e: (member(e, "user", str), member(e, "product", str), member(e, "cents", int)),
    )
    prices, dearest = {}, defaultdict(list)
    # A stable sort: of equal times, the later event of the log stays the later one.
    for event, (user, product, cents) in sorted(good, key=lambda it: it[0]["at"]):
        prices[product] = {"at": stamp(event["at"]), "cents": cents, "user": user}
        dearest[event["at"].date().isoformat()].append(cents)
    days = {day: {"cents": max(amounts)} for day, amounts in dearest.items()}
    return {"prices": prices, "dearest": days}, parked, []


def final_hours(events):
    """Task 5."""
    watermark = Watermark(timedelta(minutes=30))
    counts, late = defaultdict(int), defaultdict(int)
    for event in events:
        start = floor(event["at"], HOUR)
        if watermark.passed(start + HOUR):
            late[event["type"]] += 1
        else:
            counts[start, event["type"]] += 1
        watermark.advance(event["at"])
    hours = {
        f"{stamp(start)}/{kind}": {
            "start": stamp(start),
            "end": stamp(start + HOUR),
            "type": kind,
            "events": count,
        }
        for (start, kind), count in counts.items()
        if watermark.passed(start + HOUR)
    }
    return {"hours": hours, "late": {kind: {"events": n} for kind, n in late.items()}}, 0, []


def sessions(events):
    """Task 6."""
    gap = timedelta(minutes=30)
    watermark = Watermark(HOUR)
    by_user, late, parked = defaultdict(list), defaultdict(int), 0
    for event in of_types(events, "page.viewed"):
        at = event["at"]
        try:
            user, product = member(event, "user", str), member(event, "product", str)
        except Bad:
            parked += 1
            watermark.advance(at)
            continue
        if watermark.passed(at + gap):
            late[user] += 1
        else:
            by_user[user].append((at, product))
        watermark.advance(at)
    table = {}
    for user, views in by_user.items():
        runs = []
        for at, product in sorted(views):
            if runs and at - runs[-1][-1][0] < gap:
                runs[-1].append((at, product))
            else:
                runs.append([(at, product)])
        for run in runs:
            start, last = run[0][0], run[-1][0]
            if watermark.passed(last + gap):
                table[f"{stamp(start)}/{user}"] = {
                    "start": stamp(start),
                    "user": user,
                    "last": stamp(last),
                    "views": len(run),
                    "products": {"estimate": len({product for _, product in run})},
                }
    late_rows = {user: {"user": user, "views": n} for user, n in late.items()}
    return {"sessions": table, "late": late_rows}, parked, []


def abandoned_carts(events):
    """Task 7, with a wait of 45 minutes."""
    wait = timedelta(minutes=45)
    watermark = Watermark(timedelta(minutes=10))
    carts, parked = [], 0
    for event in of_types(events, "cart.added", "order.placed"):
        at = event["at"]
        watermark.advance(at)
        is_cart = event["type"] == "cart.added"
        try:
            user = member(event, "user", str)
            # The cents of an order are not read, so that they may be of any kind.
            cents = member(event, "cents", int) if is_cart else None
        except Bad:
            parked += 1
            continue
        if is_cart:
            carts.append({"user": user, "at": at, "cents": cents, "ordered": False})
        else:
            for cart in carts:
                if cart["user"] == user and cart["at"] <= at <= cart["at"] + wait:
                    cart["ordered"] = True
    table, emitted = {}, []
    for cart in carts:
        if cart["ordered"] or not watermark.passed(cart["at"] + wait):
            continue
        user, cents = cart["user"], cart["cents"]
        row = table.setdefault(user, {"user": user, "carts": 0, "cents": 0})
        row["carts"] += 1
        row["cents"] += cents
        emitted.append(("cart.abandoned", user, {"user": user, "cents": cents}))
    return {"abandoned": table}, parked, emitted


def large_orders(events):
    """Task 8, with alerts from 15,000 cents on."""

    def read(event):
        user, product = member(event, "user", str), member(event, "product", str)
        country, cents = member(event, "country", str), member(event, "cents", int)
        if cents <= 0:
            raise Bad
        return user, product, country, cents

    good, parked = keep_good(of_types(events, "order.placed"), read)
    groups, emitted = defaultdict(list), []
    for event, (user, product, country, cents) in good:
        if cents >= 15_000:
            groups[country].append(cents)
            data = {"user": user, "product": product, "cents": cents}
            emitted.append(("order.large", event["subject"], data))
    table = {
        country: {"country": country, "orders": len(it), "cents": sum(it), "largest": max(it)}
        for country, it in groups.items()
    }
    return {"large": table}, parked, emitted


def tenant_products(events):
    """Task 9."""

    def read(event):
        if "tenant" not in event:
            raise Bad
        return (
            member(event, "product", str),
            member(event, "cents", int, 0),
            member(event, "user", str, None),
        )

    good, parked = keep_good(of_types(events, "order.placed"), read)
    groups = defaultdict(list)
    for event, (product, cents, user) in good:
        groups[event["tenant"], product].append((event["at"], cents, user))
    table = {}
    for (tenant, product), group in groups.items():
        newest = sorted(group, key=lambda it: it[0])[-1]
        table[f"{tenant}\0{product}"] = {
            "product": product,
            "orders": len(group),
            "cents": sum(cents for _, cents, _ in group),
            "users": {"estimate": len({user for *_, user in group if user is not None})},
            "last_user": newest[2],
            "last_at": stamp(newest[0]),
        }
    return {"products": table}, parked, []


def berlin_days(events):
    """Task 10."""
    zone = ZoneInfo("Europe/Berlin")
    watermark = Watermark(2 * HOUR)
    days, final, by_hour = defaultdict(list), defaultdict(list), defaultdict(int)
    late, parked = 0, 0
    for event in of_types(events, "order.placed"):
        at = event["at"]
        try:
            cents = member(event, "cents", int, None)
        except Bad:
            parked += 1
            cents = None
        if cents is not None:
            local = at.astimezone(zone)
            start = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
            # Adding days to a time in a zone changes the date on the zone's clocks, so this is the
            # next midnight in the zone.
            bounds = start.astimezone(timezone.utc), (start + timedelta(days=1)).astimezone(timezone.utc)
            by_hour[local.hour] += 1
            days[bounds].append(cents)
            if watermark.passed(bounds[1]):
                late += 1
            else:
                final[bounds].append(cents)
        watermark.advance(at)

    def rows(groups):
        return {
            stamp(start): {
                "start": stamp(start),
                "end": stamp(end),
                "hours": int((end - start) / HOUR),
                "orders": len(amounts),
                "cents": sum(amounts),
            }
            for (start, end), amounts in groups.items()
        }

    closed = {bounds: it for bounds, it in final.items() if watermark.passed(bounds[1])}
    tables = {
        "days": rows(days),
        "final_days": rows(closed),
        "by_hour": {str(hour): {"hour": hour, "orders": n} for hour, n in by_hour.items()},
        "late": {"final_days": {"events": late}} if late else {},
    }
    return tables, parked, []


TASKS = {
    "01-minute-totals": minute_totals,
    "02-daily-users": daily_users,
    "03-order-percentiles": order_percentiles,
    "04-last-prices": last_prices,
    "05-final-hours": final_hours,
    "06-sessions": sessions,
    "07-abandoned-carts": abandoned_carts,
    "08-large-orders": large_orders,
    "09-tenant-products": tenant_products,
    "10-berlin-days": berlin_days,
}


def expected():
    """For each task: its tables, and what else has happened."""
    events = read_events()
    for name, compute in TASKS.items():
        tables, parked, emitted = compute(events)
        emitted = [{"type": kind, "subject": subject, "data": data} for kind, subject, data in emitted]
        yield name, tables, {"parked": parked, "emitted": emitted}


def dump(value):
    """A value as JSON in one line."""
    return json.dumps(value, ensure_ascii=False)


def main():
    """Writes the two files of each task, with one row or event in a line."""
    for name, tables, outcome in expected():
        parts = []
        for table, rows in tables.items():
            lines = ",\n".join(f"    {dump(key)}: {dump(row)}" for key, row in sorted(rows.items()))
            parts.append(f"  {dump(table)}: {{\n{lines}\n  }}")
        text = "{\n" + ",\n".join(parts) + "\n}\n"
        (HERE / name / "expected.json").write_text(text, "utf-8")
        lines = ",\n".join(f"    {dump(event)}" for event in outcome["emitted"])
        emitted = f"[\n{lines}\n  ]" if lines else "[]"
        text = f'{{\n  "parked": {outcome["parked"]},\n  "emitted": {emitted}\n}}\n'
        (HERE / name / "outcome.json").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
