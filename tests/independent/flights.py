"""Departures, cancellations and delays by carrier, origin and hour, by SQLite.

Reads events as lines of JSON from standard input. Prints one JSON object: the tables of
the plugin `flight-delays` by key, with the fields that the test compares.
"""
import json
import sqlite3
import sys

db = sqlite3.connect(":memory:")
db.execute("create table flight (type text, carrier text, origin text, hour text, delay integer)")
events = 0


def rows():
    global events
    for line in sys.stdin:
        event = json.loads(line)
        events += 1
        if event["type"] in ("flight.departed", "flight.cancelled"):
            data = event["data"]
            yield event["type"], data["carrier"], data["origin"], event["time"][:13] + ":00:00Z", data.get("delay_min")


db.executemany("insert into flight values (?, ?, ?, ?, ?)", rows())


def by(column):
    query = f"""
        select {column},
               sum(type = 'flight.departed'),
               sum(type = 'flight.cancelled'),
               coalesce(sum(delay), 0),
               count(delay)
        from flight group by {column}"""
    table = {}
    for key, departures, cancellations, total, known in db.execute(query):
        table[key] = {
            "departures": departures,
            "cancellations": cancellations,
            "delay_min_sum": total,
            "delays_known": known,
        }
    return table


result = {"by_carrier": by("carrier"), "by_origin": by("origin"), "by_hour": by("hour")}
print(json.dumps(result | {"events": events}))
