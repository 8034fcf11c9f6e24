"""Writes events.ndjson: visits of 90 users over 14 weeks, from a fixed seed."""

import json
import random
from datetime import datetime, timedelta, timezone
from pathlib import Path

SEED = 18
EVENTS = 1_200
USERS = 90


def events():
    """The events: users begin one after the other, and come back less and less often."""
    source = random.Random(SEED)
    start = datetime(2026, 1, 5, tzinfo=timezone.utc)
    visits = []
    for user in range(USERS):
        first = source.uniform(0, 60)
        visits.append((first, user))
        for _ in range(EVENTS // USERS):
            visits.append((first + min(38, source.expovariate(1 / 12)), user))
    visits.sort()
    for number, (day, user) in enumerate(visits[:EVENTS]):
        time = start + timedelta(milliseconds=int(day * 86_400_000))
        yield {
            "specversion": "1.0",
            "id": f"v{number}",
            "source": "site",
            "type": "page.viewed",
            **({} if source.random() < 0.02 else {"subject": f"u{user}"}),
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "datacontenttype": "application/json",
            "data": {},
        }


if __name__ == "__main__":
    lines = [json.dumps(event, separators=(",", ":")) + "\n" for event in events()]
    Path(__file__).with_name("events.ndjson").write_text("".join(lines), encoding="utf-8")
