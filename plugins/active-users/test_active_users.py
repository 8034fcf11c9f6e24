"""The tables equal sets of users, computed with the time zones of the standard library."""

import json
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from lantern.testing import Harness, check_determinism, event, read_ndjson

FOLDER = Path(__file__).parent
SCRIPT = FOLDER / "active_users.py"
LINES = [json.loads(line) for line in (FOLDER / "events.ndjson").read_text().splitlines()]


def expected(zone, user_of):
    """Number of users and of events by day, week and month."""
    found = {"daily": defaultdict(list), "weekly": defaultdict(list), "monthly": defaultdict(list)}
    for line in LINES:
        user = user_of(line)
        if user:
            local = datetime.fromisoformat(line["time"]).astimezone(ZoneInfo(zone))
            day = local.date()
            found["daily"][str(day)].append(user)
            found["weekly"][str(day - timedelta(days=day.weekday()))].append(user)
            found["monthly"][str(day)[:7]].append(user)
    return {
        table: {key: (len(set(users)), len(users)) for key, users in periods.items()}
        for table, periods in found.items()
    }


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Los_Angeles", "Asia/Kathmandu"])
@pytest.mark.parametrize("member", ["", "account"])
def test_users_are_those_of_an_independent_computation(zone, member):
    host = Harness(SCRIPT, {"zone": zone, "user": member})
    host.feed_ndjson(FOLDER / "events.ndjson")
    assert host.parked == []
    user_of = (lambda line: line["data"].get(member)) if member else (lambda line: line.get("subject"))
    for table, periods in expected(zone, user_of).items():
        rows = host.rows(table)
        assert {key: (row["users"]["estimate"], row["events"]) for key, row in rows.items()} == periods
        assert len(periods) > 2 or table == "monthly"


def test_the_tables_depend_on_the_events_alone():
    check_determinism(SCRIPT, read_ndjson(FOLDER / "events.ndjson"), {"zone": "Europe/Berlin"})


def test_many_users_are_estimated_within_five_percent():
    host = Harness(SCRIPT)
    host.feed(event("e", subject=f"user-{n}", time="2026-03-01T12:00:00Z") for n in range(5_000))
    estimate = host.row("daily", "2026-03-01")["users"]["estimate"]
    assert abs(estimate - 5_000) < 250


def test_wrong_parameters_are_refused():
    for parameters in ({"zone": "Europe/Berlinn"}, {"zone": 1}, {"usr": "x"}):
        with pytest.raises(Exception, match="time zone|zone|usr"):
            Harness(SCRIPT, parameters)
