"""An event that fails leaves nothing behind, and the call goes on without it."""

import json
import random

import pytest

from lantern.testing import Harness, event

PROJECTION = """
from lantern import *

rows = Table("rows", n=integer("sum"), j=json, users=distinct, sizes=percentiles)
plain = Table("plain", cache=4, n=integer("sum"), s=text)
tenants = Table("tenants", per_tenant=True, n=integer("sum"))
scans = Table("scans", found=json)
closed = Table("closed", value=json)
counts = PrivateTable("counts", integer)
lists = PrivateTable("lists")
private = PrivateTable("private", distinct)
seen = PrivateTable("seen", nothing)
windows = OpenWindows("windows", integer)
wide = OpenWindows("wide", n=integer, j=json, users=distinct)
sessions = OpenSessions("sessions", n=integer, users=distinct)
recent = Recent("recent", integer)

def number(event, key, n):
    rows.row(key)["n"] += n

def inside(event, key, n):
    row = rows.row(key)
    row["j"] = row["j"] or {"deep": [[]]}
    row["j"]["deep"][0].append(n)
    row["j"]["last"] = n

def sketch(event, key, n):
    row = rows.row(key)
    for value in range(n):
        row["users"].add(f"u{value * n}")
    row["sizes"].add(n - 50)

def merge(event, key, n):
    row = rows.row(key)
    for other in ("a", "b"):
        row["users"].merge(rows.row(other)["users"])
        row["sizes"].merge(rows.row(other)["sizes"])

def put(event, key, n):
    plain.put(key, n=n, s=key)
    if n % 2:
        plain.row(key)["n"] += 1

def delete(event, key, n):
    plain.delete(key)
    if n % 2:
        plain.row(key)["n"] = n

def move(event, key, n):
    row = plain.take(key)
    if row is not None:
        row["n"] += n
        plain.put(key + key, row)
    row = plain.get_mutable("aa")
    if row is not None:
        row["s"] += "x"

def tenant(event, key, n):
    tenants.row(InTenant(event.tenant, key))["n"] += n

def values(event, key, n):
    counts.add(key, n)
    value = lists.get(key, [])
    value.append(n)
    lists.put(key, value)
    if seen.take(key) is None:
        seen.put(key)
    users = private.get(key) or Distinct()
    users.add(n)
    private.put(key, users)

def later(event, key, n):
    event.set_timer(event.time + n * 1_000_000, key)
    if n % 3 == 0:
        event.cancel_timer("a")

def emit(event, key, n):
    event.emit("out", {"key": key, "n": n})

def window(event, key, n):
    def add(value):
        value["n"] += n
        value["users"].add(key)
        value["j"] = value["j"] or []
        value["j"].append(n)
    windows.add(event, hopping("10s", "5s"), key, lambda value: value + n)
    wide.add(event, tumbling("7s"), InTenant(event.tenant, key), add)

def session(event, key, n):
    def add(value):
        value["n"] += n
        value["users"].add(n)
    sessions.add(event, "4s", key, add)
    recent.add(event, "9s", key, n)

def scan(event, key, n):
    # Rows that this event has changed are sent to the host first.
    found = [[name, row["n"]] for name, row in plain.scan(limit=5)]
    scans.put(Narrow(event.offset), found=found)

def caught(event, key, n):
    try:
        plain.row(key)["n"] += 1
        plain.row("")
    except KeyRefused:
        pass

def refuse(event, key, n):
    raise Refused("no")

def wrong_kind(event, key, n):
    rows.row(key)["n"] = "many"

def no_member(event, key, n):
    event.data["nothing"]

def in_window(event, key, n):
    def add(value):
        value["n"] += 1
        raise ValueError("within")
    wide.add(event, tumbling("7s"), InTenant(event.tenant, key), add)

STEPS = {it.__name__: it for it in (
    number, inside, sketch, merge, put, delete, move, tenant, values, later, emit, window,
    session, scan, caught, refuse, wrong_kind, no_member, in_window)}

@projection(name="p", subscribes=["*"], emits=["out"], lateness="2s", tick="1s",
            on_failure="park-event")
def apply(event):
    for name, key, n in event.data["steps"]:
        STEPS[name](event, key, n)

@on_timer
def fired(timer):
    found = []
    for it in windows.close(timer):
        found.append([str(it.window.start), it.key, it.value])
    for it in wide.close(timer):
        found.append([it.tenant, it.key, it.value["n"], it.value["j"], it.value["users"].estimate()])
    for it in sessions.close(timer):
        found.append([str(it.window.start), it.key, it.value["n"], it.value["users"].estimate()])
    advanced = recent.advance(timer)
    if advanced is not None:
        found.append([[str(it.at), it.values()] for it in advanced.settled()])
    closed.put((timer.at, timer.key.replace("\\1", "own ")), value=found)
"""

STEPS = (
    "number inside sketch merge put delete move tenant values later emit window session scan caught"
).split()
FAILURES = ("refuse", "wrong_kind", "no_member", "in_window")
SECOND = 1_000_000


def random_events(seed, failing):
    """Events, and the same ones with nothing in place of those that fail."""
    source = random.Random(seed)
    events, without = [], []
    time = 1_000 * SECOND
    for _ in range(120):
        time += source.randrange(0, 2 * SECOND)
        steps = [
            [source.choice(STEPS), source.choice("abc"), source.choice((1, 2, 7, 30))]
            for _ in range(source.randrange(1, 6))
        ]
        if source.random() < 0.03:
            steps.append(["sketch", "a", 600])
        fails = source.random() < failing
        if fails:
            at = source.randrange(len(steps) + 1)
            steps.insert(at, [source.choice(FAILURES), source.choice("abc"), 1])
        options = {
            "time": max(0, time - source.randrange(0, 4 * SECOND)),
            "tenant": source.choice(("t1", "t2")),
            "subject": source.choice(("s1", "s2", "s3", "")),
        }
        events.append((event("e", {"steps": steps}, **options), fails))
        without.append(event("e", {"steps": []}, **options) if fails else events[-1][0])
    return events, without


def result(events, policy, size, drop):
    text = PROJECTION.replace('on_failure="park-event"', f'on_failure="{policy}"')
    host = Harness.of_text(text, batch_size=size, drop_instances=drop)
    host.feed(events)
    assert host.timer_failures == []
    return host


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("size", "drop"), [(1_000, False), (7, False), (7, True), (1, False)])
def test_a_fold_with_failing_events_is_the_fold_without_them(seed, size, drop):
    events, without = random_events(seed, 0.4)
    found = result([it for it, _ in events], "park-event", size, drop)
    expected = result(without, "park-event", 1_000, False)
    assert expected.parked == []
    assert [it.offset for it in found.parked] == [n for n, (_, fails) in enumerate(events) if fails]
    assert found.outcome()._replace(parked=[]) == expected.outcome(), f"seed {seed}"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [1_000, 5])
def test_later_events_of_the_subject_wait_behind_a_rejected_one(seed, size):
    events, _ = random_events(seed, 0.1)
    found = result([it for it, _ in events], "park-subject", size, False)
    waiting, without, parked = set(), [], []
    for offset, (it, fails) in enumerate(events):
        owner = (it.tenant, it.subject)
        if fails or owner in waiting:
            parked.append(offset)
            if it.subject:
                waiting.add(owner)
            it = it._replace(data=json.dumps({"steps": []}).encode())
        without.append(it)
    expected = result(without, "park-event", 1_000, False)
    assert [it.offset for it in found.parked] == parked
    assert found.outcome()._replace(parked=[]) == expected.outcome(), f"seed {seed}"


def test_a_projection_that_halts_keeps_what_came_before():
    events, _ = random_events(1, 0.1)
    first = next(n for n, (_, fails) in enumerate(events) if fails)
    found = result([it for it, _ in events], "halt", 1_000, False)
    expected = result([it for it, _ in events[:first]], "park-event", 1_000, False)
    assert found.halted and found.outcome() == expected.outcome()


HEAD = """
from lantern import *
t = Table("t", n=integer("sum"), s=text)
@projection(name="p", subscribes=["*"], on_failure="park-event")
def apply(event):
    t.row("k")["n"] += 1
"""


def instances(body, count=10):
    """How many instances a fold of events of which half run ``body`` needs; and the reasons."""
    host = Harness.of_text(HEAD + f"    if event.type == 'bad':\n        {body}\n")
    made = []
    fresh = host._instance
    host._instance = lambda: made.append(1) or fresh()
    host.feed(event(kind) for _ in range(count) for kind in ("good", "bad"))
    assert host.rows("t") == {"k": {"n": count, "s": ""}}
    assert len(host.parked) == count
    return len(made), host.parked[0].reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise Refused('no')", "`bad` at offset 1: no, at script.py:8 in apply: `raise Refused('no')`"),
        ("1 / 0", "ZeroDivisionError: division by zero, at script.py:8 in apply"),
        ("t.row('k')['s'] = 1", "field `s` is 1, which is not text, at script.py:8 in apply"),
        ("t.row('')", "a key cannot be empty, at script.py:8"),
    ],
)
def test_an_event_that_is_rejected_costs_no_instance(body, reason):
    made, found = instances(body)
    assert made == 0 and reason in found


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise MemoryError", "MemoryError, at script.py:8"),
        ("(lambda f: f(f))(lambda f: f(f))", "RecursionError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        # The changed row was sent to the host.
        ("list(t.scan()); raise Refused('no')", "no, at script.py:8"),
    ],
)
def test_limits_and_events_with_rows_at_the_host_fail_the_call(body, reason):
    made, found = instances(body)
    assert made > 0 and reason in found


def test_an_error_that_hides_a_limit_is_no_reason_to_reject():
    made, found = instances("\n        try: raise MemoryError\n        except MemoryError as e: raise Refused('too big') from e")
    assert made > 0 and "too big" in found


def test_a_timer_of_another_tenant_is_refused_by_the_host():
    host = Harness.of_text(
        """
from lantern import *
@projection(name="p", subscribes=["*"], on_failure="park-event", lateness="1s", tick="1s")
def apply(event):
    event.set_timer(event.time + "1h", InTenant(event.data["tenant"], "k"))
"""
    )
    host.feed(event("e", {"tenant": it}, tenant="t1") for it in ("t1", "t2", "t1"))
    assert [it.offset for it in host.parked] == [1] and list(host.timers) == ["t1\0k"]
    assert "belongs to another tenant than its cause" in host.parked[0].reason
