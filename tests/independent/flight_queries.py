"""Answers of queries over the tables of `flight-delays`, by SQLite and zoneinfo.

Reads events as lines of JSON from standard input. Prints one JSON object: for each query,
a list of rows. The start of an event's bucket is computed from the definition alone: it is
the last time, not after the event, at which the zone's clock shows the start of a bucket.
"""
import datetime
import json
import sqlite3
import sys
from zoneinfo import ZoneInfo

UTC = datetime.timezone.utc
EPOCH = datetime.datetime(1970, 1, 1)

db = sqlite3.connect(":memory:")
db.execute("create table flight (type text, carrier text, origin text, hour text, delay integer)")


def rows():
    for line in sys.stdin:
        event = json.loads(line)
        if event["type"] in ("flight.departed", "flight.cancelled"):
            data = event["data"]
            hour = event["time"][:13] + ":00:00Z"
            yield event["type"], data["carrier"], data["origin"], hour, data.get("delay_min")


db.executemany("insert into flight values (?, ?, ?, ?, ?)", rows())


def floor(local, unit, count):
    """The start of the bucket on the clock."""
    if unit == "mo":
        months = (local.year - 1970) * 12 + local.month - 1
        months -= months % count
        return datetime.datetime(1970 + months // 12, months % 12 + 1, 1)
    seconds = {"h": 3_600, "d": 86_400, "w": 7 * 86_400}[unit] * count
    origin = EPOCH - datetime.timedelta(days=3) if unit == "w" else EPOCH
    passed = local - origin
    return origin + passed // datetime.timedelta(seconds=seconds) * datetime.timedelta(seconds=seconds)


def bucket(time, zone, unit, count):
    zone = ZoneInfo(zone)
    local = time.astimezone(zone).replace(tzinfo=None)
    start = floor(local, unit, count)
    starts = []
    for fold in (0, 1):
        candidate = start.replace(tzinfo=zone, fold=fold).astimezone(UTC)
        if candidate <= time and candidate.astimezone(zone).replace(tzinfo=None) == start:
            starts.append(candidate)
    assert starts, f"{time} in {zone}: the clock skips {start}"
    return max(starts).astimezone(zone).isoformat()


hours = {}
for hour, departures, cancellations in db.execute(
    "select hour, sum(type = 'flight.departed'), sum(type = 'flight.cancelled') from flight group by hour"
):
    hours[hour] = (departures, cancellations)


def zoned(zone, unit, count):
    groups = {}
    for hour, (departures, _) in hours.items():
        key = bucket(datetime.datetime.fromisoformat(hour), zone, unit, count)
        group = groups.setdefault(key, [0, 0])
        group[0] += 1
        group[1] += departures
    found = [{"hour": key, "n": n, "departures": total} for key, (n, total) in groups.items()]
    return sorted(found, key=lambda row: datetime.datetime.fromisoformat(row["hour"]))


def answer(sql, names):
    return [dict(zip(names, row)) for row in db.execute(sql)]


result = {
    "busiest": answer(
        """select carrier, sum(type = 'flight.departed') as departures, coalesce(sum(delay), 0),
             count(distinct hour)
           from flight group by carrier order by departures desc, carrier limit 5""",
        ["carrier", "departures", "delay", "hours"],
    ),
    "week": answer(
        """select origin, sum(type = 'flight.departed'), sum(type = 'flight.cancelled')
           from flight where origin in ('JFK', 'LGA')
             and hour >= '2013-03-04T05:00:00Z' and hour < '2013-03-11T04:00:00Z'
           group by origin order by origin""",
        ["origin", "departures", "cancellations"],
    ),
    "late": answer(
        "select hour, sum(delay) as delay from flight group by hour order by delay desc, hour limit 10",
        ["hour", "delay_min_sum"],
    ),
    "spread": [
        {
            "p50": sorted(d for d, _ in hours.values())[-(-len(hours) * 50 // 100) - 1],
            "p95": sorted(d for d, _ in hours.values())[-(-len(hours) * 95 // 100) - 1],
            "min": min(d for d, _ in hours.values()),
            "max": max(d for d, _ in hours.values()),
        }
    ],
}
for zone, unit, count in [
    ("America/New_York", "d", 1),
    ("America/New_York", "h", 4),
    ("Europe/Berlin", "w", 1),
    ("Europe/Berlin", "h", 1),
    ("Australia/Lord_Howe", "d", 1),
    ("Asia/Kolkata", "mo", 1),
    ("UTC", "h", 7),
]:
    result[f"{zone} {count}{unit}"] = zoned(zone, unit, count)
print(json.dumps(result))
