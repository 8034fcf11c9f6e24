"""The table equals a computation over the set of active days of each user."""

import json
from collections import Counter, defaultdict
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from lantern.testing import Harness, check_determinism, event, read_ndjson

FOLDER = Path(__file__).parent
SCRIPT = FOLDER / "retention_cohorts.py"
LINES = [json.loads(line) for line in (FOLDER / "events.ndjson").read_text().splitlines()]


def start_of(unit, day):
    """The first day of the period."""
    if unit == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if unit == "month" else day


def between(unit, first, later):
    """The number of periods between two first days."""
    if unit == "month":
        return (later.year - first.year) * 12 + later.month - first.month
    return (later - first).days // (7 if unit == "week" else 1)


def expected(unit, zone, periods):
    active = defaultdict(set)
    for line in LINES:
        if "subject" in line:
            local = datetime.fromisoformat(line["time"]).astimezone(ZoneInfo(zone))
            active[line["subject"]].add(start_of(unit, local.date()))
    counts = Counter()
    for starts in active.values():
        first = min(starts)
        for start in starts:
            if between(unit, first, start) <= periods:
                counts[str(first), between(unit, first, start)] += 1
    return counts


@pytest.mark.parametrize("unit", ["day", "week", "month"])
@pytest.mark.parametrize(("zone", "periods"), [("UTC", 12), ("America/New_York", 3), ("Asia/Tokyo", 60)])
def test_cohorts_are_those_of_an_independent_computation(unit, zone, periods):
    host = Harness(SCRIPT, {"unit": unit, "zone": zone, "periods": periods})
    host.feed_ndjson(FOLDER / "events.ndjson")
    assert host.parked == []
    rows = host.rows("cohorts").values()
    found = {(row["cohort"], row["period"]): row["users"] for row in rows}
    assert found == expected(unit, zone, periods)
    assert len(found) > 3


def test_the_table_depends_on_the_events_alone():
    check_determinism(SCRIPT, read_ndjson(FOLDER / "events.ndjson"), {"unit": "day"})


def test_an_event_before_the_cohort_is_not_counted():
    host = Harness(SCRIPT)
    days = [date(2026, 3, 9), date(2026, 3, 2), date(2026, 3, 16)]
    host.feed(event("e", subject="u1", time=f"{day}T12:00:00Z") for day in days)
    assert list(host.rows("cohorts")) == ["2026-03-09/a0", "2026-03-09/a1"]


@pytest.mark.parametrize("parameters", [{"unit": "year"}, {"periods": 61}, {"periods": -1}, {"zone": "x"}])
def test_wrong_parameters_are_refused(parameters):
    with pytest.raises(Exception, match="is not one of|not one of|from 0 to 60|time zone"):
        Harness(SCRIPT, parameters)
