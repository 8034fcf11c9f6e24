"""Daily, weekly and monthly active users, by the calendar of a time zone."""

from lantern import (
    Parameters,
    Table,
    TimeZone,
    distinct,
    integer,
    on_setup,
    projection,
    text,
)

daily = Table("daily", "Users per day.", day=text, users=distinct, events=integer("sum"))
weekly = Table("weekly", "Users per week.", monday=text, users=distinct, events=integer("sum"))
monthly = Table("monthly", "Users per month.", month=text, users=distinct, events=integer("sum"))

settings = Parameters(zone="UTC", user="")
zone = TimeZone()


@on_setup
def configure():
    global zone
    zone = TimeZone(settings.zone)
    if settings.user:
        return {"members": {settings.user: text(optional=True)}}


@projection(
    name="active-users",
    version="0.1.0",
    subscribes=["*"],
    attributes=["subject"],
    data=False,
    on_failure="park-event",
)
def apply(event):
    user = event.data[settings.user] if settings.user else event.subject
    if not user:
        return
    date = zone.date(event.time)
    monday = zone.date(zone.week(event.time).start)
    count(daily, "day", date.isoformat(), user)
    count(weekly, "monday", monday.isoformat(), user)
    count(monthly, "month", f"{date:%Y-%m}", user)


def count(table, field, period, user):
    row = table.row(period)
    row[field] = period
    row["users"].add(user)
    row["events"] += 1
