"""Compares the fold of events.ndjson with an independent computation: natively, and in the
host if LANTERN_BIN is set and the plugin is built.

`check.py generate` writes events.ndjson, always the same.
"""
import json
import os
import random
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

HERE = Path(__file__).parent
EVENTS = HERE / "events.ndjson"
DAY = timedelta(days=1)
START = datetime(2026, 3, 1)


def generate():
    chance, now, lines = random.Random(7), START, []
    products = [f"p{number}" for number in range(1, 9)]

    def add(kind, at, data):
        event = {"specversion": "1.0", "id": f"e{len(lines)}", "source": "shop", "type": kind, "subject": data["product"],
                 "time": at.isoformat(timespec="seconds") + "Z", "data": data}
        lines.append(json.dumps(event, separators=(",", ":")) + "\n")

    for product in products:
        add("stock.received", now, {"product": product, "quantity": chance.randint(20, 200)})
    while now < START + 24 * DAY:
        now += timedelta(seconds=chance.randint(60, 7_000))
        # Nothing is sold for five days in the middle.
        if START + 9 * DAY < now < START + 14 * DAY and chance.random() < 0.95:
            continue
        product = products[min(int(chance.expovariate(0.5)), len(products) - 1)]
        late = timedelta(minutes=chance.choice([0, 0, 0, 10, 50])) + chance.choice([0] * 30 + [1, 8]) * DAY
        kind = chance.choices(["order.placed", "stock.received", "stock.counted"], [30, 2, 1])[0]
        quantity = {"order.placed": 4, "stock.received": 120, "stock.counted": 60}[kind]
        data = {"product": product, "quantity": chance.randint(0, quantity)}
        if chance.random() < 0.01:
            data["quantity"] = chance.choice([-1, None, 1.5])
        add(kind, now - late, data)
    EVENTS.write_text("".join(lines), newline="\n")


def expected():
    """Computes the expected rows and alerts. For each event it adds up all
    recent sales of the product again."""
    rows, sales, alerts, parked = {}, {}, [], 0
    newest = watermark = None
    rank = {"ok": 0, "low": 1, "out": 2}

    def judge(product, at, day):
        row = rows[product]
        row["sold_7d"] = sum(quantity for sold, quantity in sales.get(product, []) if day - 7 < sold <= day)
        row["days_left"] = row["on_hand"] / (row["sold_7d"] / 7) if row["sold_7d"] else None
        low = row["days_left"] is not None and row["days_left"] < 7
        before, row["status"] = row["status"], "out" if row["on_hand"] <= 0 else "low" if low else "ok"
        if row["status"] == "out" != before:
            row["stockouts"] += 1
            row["out_since"] = at
        if row["status"] != "out":
            row["out_since"] = None
        if rank[row["status"]] > rank[before]:
            alerts.append({name: row[name] for name in ("product", "status", "on_hand", "days_left")})

    last_day = {}
    for line in EVENTS.read_text().splitlines():
        event = json.loads(line)
        at = datetime.fromisoformat(event["time"].rstrip("Z"))
        product, quantity = event["data"]["product"], event["data"]["quantity"]
        if type(quantity) is not int or quantity < 0:
            parked += 1
        else:
            row = rows.setdefault(product, dict(product=product, on_hand=0, received=0, sold=0, corrected=0, sold_7d=0, days_left=None,
                                                status="ok", stockouts=0, out_since=None, changed=at))
            row["changed"] = max(row["changed"], at)
            if event["type"] == "stock.received":
                row["received"] += quantity
                row["on_hand"] += quantity
            elif event["type"] == "stock.counted":
                row["corrected"] += quantity - row["on_hand"]
                row["on_hand"] = quantity
            else:
                day = (at - START).days
                row["sold"] += quantity
                row["on_hand"] -= quantity
                sales.setdefault(product, []).append((day, quantity))
                last_day[product] = max(last_day.get(product, day), day)
            judge(product, at, last_day.get(product, 0))
        newest = at if newest is None else max(newest, at)
        seconds = int((newest - timedelta(hours=1) - START).total_seconds()) // 600 * 600
        if watermark != (moved := START + timedelta(seconds=seconds)):
            watermark, today = moved, (moved - START).days
            for product in sorted(rows):
                if rows[product]["sold_7d"] and last_day[product] < today:
                    # The timer is due at the midnight after the last day.
                    due, last_day[product] = START + (last_day[product] + 1) * DAY, today
                    judge(product, due, today)
    for row in rows.values():
        for name in ("changed", "out_since"):
            row[name] = row[name] and row[name].isoformat() + "Z"
    return {"inventory": [rows[product] for product in sorted(rows)], "emitted": alerts, "parked": parked}


def of_host(lantern, plugin):
    command = [lantern, "test", EVENTS, plugin, "--json", "--allow-parked"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    rows = report["tables"]["inventory"]
    return {"inventory": [rows[key] for key in sorted(rows)], "emitted": [event["data"] for event in report["emitted"]], "parked": len(report["parked"])}


def main():
    if sys.argv[1:] == ["generate"]:
        return generate()
    wanted = expected()
    assert wanted["parked"] > 0 and len(wanted["emitted"]) > 10 and any(row["stockouts"] for row in wanted["inventory"])
    for batch in (1, 7, 1_000):
        program = subprocess.run([HERE / "build/test", "fold", EVENTS, str(batch)], check=True, capture_output=True)
        assert json.loads(program.stdout) == wanted, f"the native fold in batches of {batch} differs"
    print(f"{len(wanted['inventory'])} products and {len(wanted['emitted'])} alerts equal the independent computation")
    lantern, plugin = os.environ.get("LANTERN_BIN"), HERE / "build/inventory-health.wasm"
    if lantern and plugin.exists():
        assert of_host(lantern, plugin) == wanted, "the host's fold differs"
        print("and so does the fold in the host")
    else:
        print("SKIPPED: the fold in the host; run make, and set LANTERN_BIN")


main()
