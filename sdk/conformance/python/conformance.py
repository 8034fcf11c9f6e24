"""The conformance projection in Python: see ../README.md"""

from lantern import (
    InTenant,
    OpenSessions,
    OpenWindows,
    Parameters,
    PrivateTable,
    Recent,
    Refused,
    Table,
    TimeZone,
    boolean,
    distinct,
    hopping,
    integer,
    json,
    minute,
    nothing,
    number,
    on_setup,
    on_timer,
    percentiles,
    projection,
    text,
    timestamp,
)

sums = Table(
    "sums",
    newest_by="last",
    key=text,
    events=integer("sum"),
    total=integer("sum"),
    least=integer("min"),
    greatest=integer("max"),
    last=timestamp("newest"),
)
values = Table("values", id=text, n=integer, x=number, s=text, b=boolean, t=timestamp, j=json)
scans = Table("scans", id=text, count=integer, keys=json, total=integer)
fired = Table("fired", key=text, at=timestamp, watermark=timestamp, times=integer("sum"))
tenants = Table(
    "tenants", per_tenant=True, subject=text, events=integer("sum"), closed=integer("sum")
)
minutes = Table("minutes", start=timestamp, user=text, events=integer("sum"))
hops = Table("hops", start=timestamp, end=timestamp, user=text, total=integer("sum"))
sessions = Table("sessions", start=timestamp, end=timestamp, user=text, events=integer("sum"))
sliding = Table("sliding", user=text, events=integer, total=integer)
settled = Table("settled", at=timestamp, user=text, total=integer)
late = Table(
    "late", user=text, hops=integer("sum"), sessions=integer("sum"), sliding=integer("sum")
)
days = Table("days", day=text, start=timestamp, end=timestamp, events=integer("sum"))
hours = Table("hours", start=timestamp, end=timestamp, events=integer("sum"))
sketches = Table(
    "sketches", key=text, texts=distinct, values=percentiles, scaled=percentiles
)
seen = PrivateTable("seen", nothing)
open_hops = OpenWindows("open_hops", integer)
open_sessions = OpenSessions("open_sessions", integer)
recent = Recent("recent", integer)

settings = Parameters(zone="Europe/Berlin", factor=1)
zone = TimeZone()


@on_setup
def configure():
    global zone
    zone = TimeZone(settings.zone)


def i64(value):
    """The value, if it fits 64 bits with a sign."""
    if not -(2**63) <= value < 2**63:
        raise Refused(f"{value} does not fit 64 bits")
    return value


def optional(kind):
    return kind(optional=True, default=None)


@projection(
    name="conformance",
    version="1.0.0",
    subscribes="c.*",
    on_failure="park-event",
    attributes=["id", "subject", "tenant"],
    data=False,
    members={
        **dict.fromkeys(("key", "s", "start", "end"), optional(text)),
        **dict.fromkeys(("n", "limit", "seconds"), optional(integer)),
        "x": optional(number),
        **dict.fromkeys(("b", "reverse", "fail"), optional(boolean)),
        "t": optional(timestamp),
        "j": optional(json),
    },
    emits=["conformance.out"],
    lateness="10s",
    tick="5s",
)
def apply(event):
    handler = HANDLERS.get(event.type)
    if handler is not None:
        handler(event)


def required(event, name):
    value = event.data[name]
    if value is None:
        raise Refused(f"`{name}` is missing")
    return value


def key_of(event):
    key = required(event, "key")
    if not key:
        raise Refused("`key` is empty")
    return key


def count(event, key, n=None):
    row = sums.row(key)
    row["key"] = key
    row["events"] += 1
    row["last"] = event.time
    if n is not None:
        value = i64(n * settings.factor)
        row["total"] = i64(row["total"] + value)
        row["least"] = value if row["least"] is None else min(row["least"], value)
        row["greatest"] = value if row["greatest"] is None else max(row["greatest"], value)


def add(event):
    count(event, key_of(event), event.data["n"])


def delete(event):
    sums.delete(key_of(event))


def once(event):
    key = key_of(event)
    if key not in seen:
        seen.put(key)
        count(event, key)


def value(event):
    data = event.data
    row = {name: data[name] for name in ("n", "x", "s", "b", "t", "j")}
    values.put(event.id, {"id": event.id, **row})


def scan(event):
    data = event.data
    limit = required(event, "limit")
    if not 0 <= limit <= 1_000:
        raise Refused(f"the limit {limit} is not from 0 to 1,000")
    found = list(
        sums.scan(
            start=required(event, "start"),
            end=required(event, "end"),
            limit=limit,
            newest_first=bool(data["reverse"]),
        )
    )
    total = 0
    for _, row in found:
        total = i64(total + row["total"])
    keys = [key for key, _ in found]
    scans.put(event.id, id=event.id, count=len(found), keys=keys, total=total)


def remind(event):
    key = key_of(event)
    seconds = event.data["seconds"]
    if seconds is None:
        event.cancel_timer(key)
    else:
        event.set_timer(event.time + i64(seconds * 1_000_000), key)


def emit(event):
    key, n = required(event, "key"), required(event, "n")
    if n > 100:
        raise Refused(f"{n} events are more than 100")
    for i in range(n):
        event.emit("conformance.out", {"key": key, "i": i}, subject=event.subject)


def fail(event):
    key = key_of(event)
    failing = event.data["fail"]
    count(event, key)
    sums.delete("gone")
    event.emit("conformance.out", {"key": key, "i": 0}, subject=event.subject)
    event.set_timer(event.time + "5s", key)
    if failing:
        raise Refused("the event says so")


def tenant(event):
    if event.tenant and event.subject:
        key = InTenant(event.tenant, event.subject)
        row = tenants.row(key)
        row["subject"] = event.subject
        row["events"] += 1
        event.set_timer(event.time + "10s", key)


def visit(event):
    user = key_of(event)
    n = event.data["n"]
    n = 1 if n is None else n
    start = minute(event.time)
    row = minutes.row((start, user))
    row.update(start=start, user=user)
    row["events"] += 1
    late_hops = open_hops.add(event, hopping("60s", "20s"), user, lambda sum: i64(sum + n))
    late_session = open_sessions.add(event, "30s", user, lambda events: events + 1) is None
    slide = recent.add(event, "60s", user, n)
    if slide is not None:
        show(user, slide)
    if late_hops or late_session or slide is None:
        row = late.row(user)
        row["user"] = user
        row["hops"] += late_hops
        row["sessions"] += late_session
        row["sliding"] += slide is None


def show(user, slide):
    found = slide.values()
    sliding.put(user, user=user, events=len(found), total=i64(sum(found)))


def day(event):
    time = event.data["t"]
    time = event.time if time is None else time
    date = zone.date(time).isoformat()
    window = zone.day(time)
    row = days.row(date)
    row.update(day=date, start=window.start, end=window.end)
    row["events"] += 1
    window = zone.hour(time)
    row = hours.row(window)
    row.update(start=window.start, end=window.end)
    row["events"] += 1


def sketch(event):
    key = key_of(event)
    data = event.data
    row = sketches.row(key)
    row["key"] = key
    if data["s"] is not None:
        row["texts"].add(data["s"])
    if data["n"] is not None:
        row["values"].add(data["n"])
    if data["x"] is not None:
        row["scaled"].add_scaled(data["x"], 1_000)


HANDLERS = {
    "c.add": add,
    "c.delete": delete,
    "c.once": once,
    "c.value": value,
    "c.scan": scan,
    "c.remind": remind,
    "c.emit": emit,
    "c.fail": fail,
    "c.tenant": tenant,
    "c.visit": visit,
    "c.day": day,
    "c.sketch": sketch,
}


@on_timer
def timer(timer):
    for closed in open_hops.close(timer):
        start, end = closed.window
        hops.put((start, closed.key), start=start, end=end, user=closed.key, total=closed.value)
    for closed in open_sessions.close(timer):
        start, end = closed.window
        row = {"start": start, "end": end, "user": closed.key, "events": closed.value}
        sessions.put((start, closed.key), row)
    advanced = recent.advance(timer)
    if advanced is not None:
        user = advanced.key
        for slide in advanced.settled():
            total = i64(sum(slide.values()))
            settled.put((slide.at, user), at=slide.at, user=user, total=total)
        show(user, advanced.current())
    if timer.key.startswith("\1"):
        return
    if timer.tenant:
        tenants.row(InTenant(timer.tenant, timer.key))["closed"] += 1
        return
    row = fired.row(timer.key)
    row.update(key=timer.key, at=timer.at, watermark=timer.watermark)
    row["times"] += 1
    timer.emit("conformance.out", {"timer": timer.key}, subject=timer.key)
