"""How many users of a cohort come back after one period, two periods, and so on."""

from lantern import (
    Narrow,
    Parameters,
    Refused,
    Table,
    TimeZone,
    date,
    integer,
    on_setup,
    projection,
    text,
)
from lantern.times import day_of

PERIODS_MAX = 60

cohorts = Table(
    "cohorts",
    "Users of each cohort that were active in a period.",
    cohort=text,
    period=integer,
    users=integer("sum"),
)
users = Table(
    "users",
    "The cohort of a user, and the periods in which it was active, as bits.",
    private=True,
    cohort=integer(default=None),
    active=integer,
)

settings = Parameters(unit="week", periods=12, zone="UTC")
zone = TimeZone()


@on_setup
def configure():
    global zone
    zone = TimeZone(settings.zone)
    if settings.unit not in UNITS:
        raise Refused(f"parameters: `unit` is {settings.unit!r}, not one of {', '.join(UNITS)}")
    if not 0 <= settings.periods <= PERIODS_MAX:
        raise Refused(f"parameters: `periods` is {settings.periods}, not from 0 to {PERIODS_MAX}")


@projection(name="retention-cohorts", version="0.1.0", subscribes=["*"])
def apply(event):
    if not event.subject:
        return
    number_of, _ = UNITS[settings.unit]
    period = number_of(zone.date(event.time))
    user = users.row(event.subject)
    if user["cohort"] is None:
        user["cohort"] = period
    after = period - user["cohort"]
    if not 0 <= after <= settings.periods or user["active"] >> after & 1:
        return
    user["active"] |= 1 << after
    cohort = first_day(user["cohort"])
    row = cohorts.row((cohort, Narrow(after)))
    row["cohort"] = cohort
    row["period"] = after
    row["users"] += 1


def first_day(period):
    """The first day of a period, as text."""
    _, day = UNITS[settings.unit]
    return date(day(period) * 86_400_000_000)


def days(day):
    """Days since 1970-01-01."""
    return day_of(day.year, day.month, day.day)


# The number of the period that contains a day, and the first day of a period. 1970-01-01
# was a Thursday; weeks begin on Monday.
UNITS = {
    "day": (days, lambda period: period),
    "week": (lambda day: (days(day) + 3) // 7, lambda period: period * 7 - 3),
    "month": (
        lambda day: day.year * 12 + day.month - 1,
        lambda period: day_of(period // 12, period % 12 + 1, 1),
    ),
}
