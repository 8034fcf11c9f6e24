"""Journeys from view over cart to order, by country, by SQLite and a regular expression.

Reads events as lines of JSON from standard input. Prints one JSON object: the table of the
plugin `funnel` by key. A user's steps are written as a text with one letter for each step,
in which the regular expression finds the journeys.
"""
import datetime
import json
import re
import sqlite3
import sys

LETTERS = {"page.viewed": "v", "cart.added": "c", "order.placed": "o"}
# A view, the first cart after it, and the first order after that. A journey may end early.
JOURNEY = re.compile("v(?:[^c]*(?P<cart>c)(?:[^o]*(?P<order>o)|[^o]*$)|[^c]*$)")

db = sqlite3.connect(":memory:")
db.execute("create table step (place integer primary key, user text, letter text, country text, ms integer)")
db.execute("create table journey (country text, to_cart integer, to_order integer)")


def steps():
    for line in sys.stdin:
        event = json.loads(line)
        time = datetime.datetime.fromisoformat(event["time"].replace("Z", "+00:00"))
        ms = round(time.timestamp() * 1000)
        data = event["data"]
        yield data["user"], LETTERS[event["type"]], data["country"], ms


db.executemany("insert into step (user, letter, country, ms) values (?, ?, ?, ?)", steps())
users = {}
for user, letter, country, ms in db.execute("select user, letter, country, ms from step order by place"):
    users.setdefault(user, []).append((letter, country, ms))
for rows in users.values():
    for found in JOURNEY.finditer("".join(letter for letter, _, _ in rows)):
        _, country, began = rows[found.start()]
        took = [
            max(0, rows[found.start(name)][2] - began) if found[name] else None
            for name in ("cart", "order")
        ]
        db.execute("insert into journey values (?, ?, ?)", (country, *took))

query = """
    select country, count(*), count(to_cart), count(to_order),
           coalesce(sum(to_cart), 0),
           coalesce(sum(to_order), 0), min(to_order), max(to_order),
           count(*) filter (where to_order <= 60000),
           count(*) filter (where to_order > 60000 and to_order <= 600000),
           count(*) filter (where to_order > 600000 and to_order <= 3600000),
           count(*) filter (where to_order > 3600000)
    from journey group by country"""
names = (
    "views carts orders to_cart_ms_sum to_order_ms_sum "
    "to_order_ms_min to_order_ms_max orders_within_1m orders_within_10m orders_within_1h orders_within_1d"
).split()
table = {country: dict(zip(names, values)) for country, *values in db.execute(query)}
# Carts and orders that belong to no journey.
for country, steps_on in db.execute("select country, count(*) from step where letter <> 'v' group by country"):
    row = table.setdefault(country, {})
    row["outside"] = steps_on - row.get("carts", 0) - row.get("orders", 0)
print(json.dumps({"by_country": table}))
