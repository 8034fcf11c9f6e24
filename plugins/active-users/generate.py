"""Writes events.ndjson: visits of 60 users in spring 2026, from a fixed seed."""

import json
import random
from datetime import datetime, timedelta, timezone
from pathlib import Path

SEED = 17
EVENTS = 900


def events():
    """The events, in the order of the log: a few are late."""
    source = random.Random(SEED)
    start = datetime(2026, 2, 20, tzinfo=timezone.utc)
    minutes = sorted(source.randrange(0, 50 * 24 * 60) for _ in range(EVENTS))
    for number, minute in enumerate(minutes):
        late = source.randrange(0, 600) if source.random() < 0.05 else 0
        time = start + timedelta(minutes=minute - late, milliseconds=source.randrange(60_000))
        user = f"u{int(source.triangular(0, 60, 5))}"
        yield {
            "specversion": "1.0",
            "id": f"v{number}",
            "source": "site",
            "type": source.choice(["page.viewed", "page.viewed", "cart.added", "order.placed"]),
            **({} if source.random() < 0.03 else {"subject": user}),
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "datacontenttype": "application/json",
            "data": {} if source.random() < 0.03 else {"account": f"a{hash_of(user)}"},
        }


def hash_of(user):
    """Returns the number of a user's account. Every two users share an
    account."""
    return int(user[1:]) // 2


if __name__ == "__main__":
    lines = [json.dumps(event, separators=(",", ":")) + "\n" for event in events()]
    Path(__file__).with_name("events.ndjson").write_text("".join(lines), encoding="utf-8")
