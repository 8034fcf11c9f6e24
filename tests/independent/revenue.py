"""Orders, quantity and cents by product and by minute, by SQLite.

Reads events as lines of JSON from standard input, prints one JSON object: the
tables of the plugin `revenue` by key.
"""
import json
import sqlite3
import sys

db = sqlite3.connect(":memory:")
db.execute("create table placed (product text, minute text, quantity integer, cents integer)")


def rows():
    for line in sys.stdin:
        event = json.loads(line)
        if event["type"] == "order.placed":
            data = event["data"]
            yield data["product"], event["time"][:16] + ":00Z", data["quantity"], data["cents"]


db.executemany("insert into placed values (?, ?, ?, ?)", rows())
products = db.execute("select product, count(*), sum(quantity), sum(cents) from placed group by product")
minutes = db.execute("select minute, count(*), sum(cents) from placed group by minute")
print(json.dumps({
    "by_product": {key: {"orders": n, "quantity": q, "cents": c} for key, n, q, c in products},
    "by_minute": {key: {"orders": n, "cents": c} for key, n, c in minutes},
}))
