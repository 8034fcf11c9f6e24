"""Projections in the harness: tables, events, timers, emitted events, failures."""

import random
from collections import defaultdict

import pytest

from lantern import LanternError, ManifestError, ParametersError
from lantern.testing import Harness, check_determinism, event

HEAD = "from lantern import *\n"


def harness(body, parameters="", **options):
    return Harness.of_text(HEAD + body, parameters, **options)


def fails(body, *events, on_failure="park-event"):
    """The reasons of events that are parked by a body of `apply`."""
    host = harness(
        "t = Table('t', n=integer('sum'), x=number, s=text, b=boolean, at=timestamp, j=json)\n"
        f"@projection(name='p', subscribes=['*'], on_failure={on_failure!r})\n"
        "def apply(event):\n" + "".join(f"    {line}\n" for line in body.split("\n"))
    )
    host.feed(events or [event("e", {})])
    return [it.reason for it in host.parked]


def test_the_example_of_the_guide_counts_per_minute():
    host = harness(
        """
by_minute = Table("by_minute", minute=timestamp, orders=integer("sum"), cents=integer("sum", "cent"))

@projection(name="revenue", version="0.1.0", subscribes=["order.placed"], on_failure="park-event")
def apply(event):
    row = by_minute.row(minute(event.time))
    row["minute"] = minute(event.time)
    row["orders"] += 1
    row["cents"] += event.data["cents"]
"""
    )
    host.feed(event("order.placed", {"cents": 5}, time=f"2026-03-01T12:0{n % 2}:00Z") for n in range(5))
    assert host.raw_rows("by_minute") == {
        "2026-03-01T12:00:00Z": b'{"minute":"2026-03-01T12:00:00Z","orders":3,"cents":15}',
        "2026-03-01T12:01:00Z": b'{"minute":"2026-03-01T12:01:00Z","orders":2,"cents":10}',
    }
    manifest = host.manifest
    assert manifest.attributes == ["data"] and manifest.members == [("cents", "json", True)]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("t.row('k')['n'] = 'x'", "table `t`: row 'k': field `n` is 'x', which is not an integer"),
        ("t.row('k')['n'] += 0.5", "which is not an integer; use int() or round()"),
        ("t.row('k')['n'] = True", "is True, which is not an integer"),
        ("t.row('k')['n'] = 2**64", "integers are from -2^63 to 2^64 - 1"),
        ("t.row('k')['x'] = float('nan')", "only finite numbers can be stored"),
        ("t.row('k')['s'] = 7", "field `s` is 7, which is not text"),
        ("t.row('k')['s'] = '\\ud800'", "half of a surrogate pair"),
        ("t.row('k')['b'] = 1", "is 1, which is not True or False"),
        ("t.row('k')['at'] = 'today'", "field `at` is not a time"),
        ("t.row('k')['at'] = Timestamp.MAX", "only times from year 1"),
        ("t.row('k')['j'] = {1: 2}", "the names of an object must be text"),
        ("t.row('k')['j'] = {1, 2}", "sets become lists with sorted"),
        ("t.row('k')['typo'] = 1", "the field `typo` is not declared; the fields are `n`, `x`"),
        ("t.row('')", "table `t`: key '': a key cannot be empty"),
        ("t.row('a\\0b')", "U+0000 cannot be part of a key"),
        ("t.row(1.5)", "is a float; a key is text"),
        ("event.data['cents']", "KeyError: 'cents', at script.py:5 in apply"),
        ("raise Refused('cents is negative')", "at offset 0: cents is negative, at script.py:5"),
        ("event.emit('x', 1)", 'event type `x` is not declared; add emits=["x"]'),
        ("event.set_timer(event.time, 'k')", "timers need event time; add lateness"),
        ("event.nothing", "an event has no attribute 'nothing'"),
        ("getattr(event, 'subject')", 'add attributes=["subject"]'),
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
    ],
)
def test_a_failing_event_is_parked_with_its_reason(body, reason):
    (found,) = fails(body)
    assert reason in found


def test_a_reason_names_the_callers():
    text = """
t = Table("t", n=integer)
def inner(event):
    return event.data["deep"]["er"]
def outer(event):
    return inner(event)
@projection(name="p", subscribes=["*"], on_failure="park-event")
def apply(event):
    outer(event)
"""
    host = harness(text)
    host.feed([event("e", {"deep": {}})])
    assert host.parked[0].reason == (
        "`e` at offset 0: KeyError: 'er', at script.py:5 in inner: "
        '`return event.data["deep"]["er"]`; called from script.py:7 in outer; '
        "called from script.py:10 in apply"
    )


def test_values_are_converted_to_what_is_read_back():
    host = harness(
        """
import datetime
t = Table("t", x=number, at=timestamp, j=json)
@projection(name="p", subscribes=["*"])
def apply(event):
    row = t.row("k")
    row["x"] += 1
    row["at"] = datetime.datetime(2026, 3, 1, tzinfo=datetime.timezone.utc)
    row["j"] = {"b": (1, 2), "a": event.data}
"""
    )
    host.feed([event("e", {"z": 1, "y": [1e2]})] * 2)
    assert host.raw_rows("t") == {
        "k": b'{"x":2.0,"at":"2026-03-01T00:00:00Z","j":{"a":{"y":[100.0],"z":1},"b":[1,2]}}'
    }


def test_data_is_the_same_whether_it_was_decoded_or_parsed():
    payloads = [
        b'{"a":1,"b":null}', b'{"b":2}', b'{"a":"x","a":"y"}', b'[1,2]', b'"text"', b"7", b"null",
        b'{"a":{"n":[1.5]},"c":"\\u00fc"}', "{\"a\":\"ü\"}".encode(), b"not json", b'{"\\u0061":5}',
        b'{"a":-0}', b"{}",
    ]
    body = """
t = Table("t", seen=json)
@projection(name="p", subscribes=["*"], on_failure="park-event")
def apply(event):
    {first}
    data = event.data
    seen = [data, isinstance(data, dict)]
    if isinstance(data, dict):
        seen += [data.get("a"), data.get("b", 9), "a" in data, len(data), sorted(data), bool(data)]
        seen += [data.get("c")]
    t.put(Narrow(event.offset), seen=seen)
"""
    events = [event("e", payload) for payload in payloads]
    decoded, parsed = harness(body.format(first="pass")), harness(body.format(first="event.data"))
    plain = harness(body.format(first="pass").replace('"a"', "chr(97)").replace('"b"', "chr(98)").replace('"c"', "chr(99)"))
    for host in (decoded, parsed, plain):
        host.feed(events)
    assert decoded.manifest.members and not plain.manifest.members
    assert decoded.raw_rows("t") == parsed.raw_rows("t") == plain.raw_rows("t")
    assert len(decoded.rows("t")) == len(payloads) - 1
    assert [it.offset for it in decoded.parked] == [9]


def test_declared_members_are_typed():
    host = harness(
        """
t = Table("t", all=json)
@projection(name="p", subscribes=["*"], on_failure="park-event", data=False, members={
    "n": integer, "s": text(optional=True), "x": number(optional=True, default=0.5),
    "b": boolean(optional=True), "at": timestamp(optional=True), "j": json(optional=True)})
def apply(event):
    data = event.data
    t.put(Narrow(event.offset), all=[data[it] for it in ("n", "s", "x", "b", "at", "j")])
"""
    )
    host.feed(
        event("e", it)
        for it in (
            {"n": 1, "s": "ü", "x": 2, "b": True, "at": "2026-03-01T01:00:00+01:00", "j": {"k": [1]}},
            {"n": 2}, {"s": "no n"}, {"n": "1"}, {"n": 1.0}, {"n": 3, "b": 1}, [1],
        )
    )
    assert list(host.rows("t").values()) == [
        {"all": [1, "ü", 2.0, True, "2026-03-01T00:00:00Z", {"k": [1]}]},
        {"all": [2, None, 0.5, None, None, None]},
    ]
    reasons = [it.reason for it in host.parked]
    assert "data: the member `n` is missing or null" in reasons[0]
    assert "data: the member `n` is not of the kind integer" in reasons[1]
    assert "data: the member `b` is not of the kind boolean" in reasons[3]
    assert len(reasons) == 5


def test_private_tables_keep_what_was_put():
    host = harness(
        """
counts = PrivateTable("counts", integer)
lists = PrivateTable("lists")
seen = PrivateTable("seen", nothing)
raw = PrivateTable("raw", binary)
@projection(name="p", subscribes=["*"])
def apply(event):
    counts.add("all", 2)
    got = lists.get("l", [])
    got.append(event.offset)
    if event.offset != 1:
        lists.put("l", got)
    seen.put(event.type)
    raw.put("r", bytes([event.offset, 255]))
    assert event.type in seen and "other" not in seen
    if event.offset == 2:
        assert seen.take(event.type) is True
"""
    )
    host.feed([event("a"), event("b"), event("c")])
    assert host.parked == []
    assert host.raw_rows("counts") == {"all": b"6"}
    assert host.raw_rows("lists") == {"l": b"[0,2]"}
    assert host.raw_rows("seen") == {"a": b"", "b": b""}
    assert host.raw_rows("raw") == {"r": b"\2\xff"}


def test_a_failed_event_leaves_nothing_and_its_subject_waits():
    text = """
t = Table("t", n=integer("sum"))
@projection(name="p", subscribes=["*"], emits=["out"], lateness="1s", tick="1s")
def apply(event):
    t.row("all")["n"] += 1
    event.emit("out", {"n": 1})
    event.set_timer(event.time + "1h", event.type)
    if event.data.get("bad"):
        raise Refused("bad")
"""
    host = harness(text)
    events = [event("a", subject="u1"), event("b", {"bad": 1}, subject="u1"), event("c", subject="u1"), event("d", subject="u2")]
    host.feed(events)
    assert host.row("t", "all") == {"n": 2}
    assert [it.offset for it in host.parked] == [1, 2]
    assert host.parked[1].reason == "it waits behind a parked event of its subject"
    assert list(host.timers) == ["a", "d"] and [it.cause for it in host.emitted] == [0, 3]
    halted = harness(text.replace("@projection(", "@projection(on_failure='halt', "))
    halted.feed(events)
    assert "bad" in halted.halted and halted.row("t", "all") == {"n": 1}


def test_rows_of_other_tenants_are_refused():
    host = harness(
        """
t = Table("t", per_tenant=True, n=integer("sum"))
@projection(name="p", subscribes=["*"], on_failure="park-event")
def apply(event):
    t.row(InTenant(event.data["tenant"], "k"))["n"] += 1
"""
    )
    host.feed(event("e", {"tenant": it}, tenant="t1") for it in ("t1", "t2", "", "t1"))
    assert host.rows("t") == {"t1\0k": {"n": 2}}
    assert "only an event or a timer of its tenant may change a row" in host.parked[0].reason
    assert "the tenant is empty" in host.parked[1].reason


def test_parameters_are_checked():
    text = """
settings = Parameters(top=10, zone="UTC", api=str)
t = Table("t", n=integer)
@projection(name="p", subscribes=["*"])
def apply(event):
    t.row(settings.zone)["n"] = settings.top
@on_setup
def configure():
    return {"version": "1." + str(settings.top) + ".0"}
"""
    host = harness(text, {"api": "x", "top": 3})
    host.feed([event("e")])
    assert host.rows("t") == {"UTC": {"n": 3}} and host.manifest.version == "1.3.0"
    for parameters, reason in (
        ({}, "`api` is missing"),
        ({"api": 1}, "`api` is 1, which is not string"),
        ({"api": "x", "topp": 3}, "`topp` is unknown; there are `top`, `zone`, `api`"),
        ("[1]", "is not a JSON object"),
        ("{", "parameters: "),
    ):
        with pytest.raises(ParametersError, match=reason):
            harness(text, parameters)
    with pytest.raises(ParametersError, match="this projection takes none"):
        harness("@projection(subscribes='*')\ndef apply(event): pass\n", {"a": 1})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "defines no projection"),
        ("t = Table('T')", "must be 1 to 63 lower-case letters"),
        ("t = Table('t'); u = Table('t')", "two tables are named `t`"),
        ("t = Table('t', n=int)", "is not a field"),
        ("t = Table('t', n=binary)", "cannot be of the kind `binary`"),
        ("t = Table('t', newest_by='at', n=integer)", "is not a field"),
        ("t = Table('t', n=integer('max', default='x'))", "the default of the field `n` is 'x'"),
        ("integer('most')", "the merge 'most' is not one of"),
    ],
)
def test_wrong_declarations_are_refused(text, reason):
    with pytest.raises(LanternError, match=reason):
        harness(text)
    assert issubclass(ManifestError, LanternError)


def test_prefetch_reads_many_rows_in_one_call():
    text = """
t = Table("t", cache=10, n=integer("sum"))
@projection(name="p", subscribes=["*"])
def apply(event):
    t.row(event.data["key"])["n"] += 1
{prepare}
"""
    prepare = "@prepare\ndef ahead(events):\n    t.prefetch(event.data['key'] for event in events)\n"
    events = [event("e", {"key": f"k{n % 8}"}) for n in range(64)]
    plain, ahead = harness(text.format(prepare=""), drop_instances=True, batch_size=16), harness(
        text.format(prepare=prepare), drop_instances=True, batch_size=16
    )
    for host in (plain, ahead):
        host.feed(events)
    assert plain.rows("t") == ahead.rows("t") == {f"k{n}": {"n": 8} for n in range(8)}
    assert ahead.host.calls == 8 and plain.host.calls > 30


def test_a_small_cache_changes_nothing():
    text = """
t = Table("t", cache=3, n=integer("sum"), last=json)
@projection(name="p", subscribes=["*"])
def apply(event):
    rows = [t.row(key) for key in event.data["keys"]]
    for row in rows:
        row["n"] += 1
        row["last"] = event.data["keys"]
    if len(rows) == 4:
        t.delete(event.data["keys"][0])
    assert len(list(t.scan())) >= 0
"""
    source = random.Random(3)
    events = [
        event("e", {"keys": [f"k{source.randrange(30)}" for _ in range(source.randrange(1, 6))]})
        for _ in range(200)
    ]
    check_determinism(None, events, text=HEAD + text)


def test_global_state_is_found_by_the_check():
    text = """
t = Table("t", n=integer)
seen = 0
@projection(name="p", subscribes=["*"])
def apply(event):
    global seen
    seen += 1
    t.put("k", n=seen)
"""
    with pytest.raises(AssertionError, match="table `t`, row 'k'"):
        check_determinism(None, [event("e")] * 10, text=HEAD + text)


WINDOWS = """
minutes = Table("minutes", n=integer)
visits = Table("visits", n=integer, end=timestamp)
load = Table("load", sum=integer)
late = Table("late", n=integer("sum"))
open_minutes = OpenWindows("open_minutes", n=integer)
open_visits = OpenSessions("open_visits", n=integer)
recent = Recent("recent", integer)

def add(value):
    value["n"] += 1

@projection(name="w", subscribes=["*"], lateness="5s", tick="2s")
def apply(event):
    key = event.subject
    late.row(key)["n"] += open_minutes.add(event, tumbling("10s"), key, add)
    open_visits.add(event, "7s", key, add)
    recent.add(event, "10s", key, event.data["v"])

@on_timer
def fired(timer):
    for it in open_minutes.close(timer):
        minutes.put((it.window.start, it.key), n=it.value["n"])
    for it in open_visits.close(timer):
        visits.put((it.window.start, it.key), n=it.value["n"], end=it.window.end)
    advanced = recent.advance(timer)
    if advanced is not None:
        for slide in advanced.settled():
            load.put((slide.at, advanced.key), sum=sum(slide.values()))
"""


@pytest.mark.parametrize("seed", range(3))
def test_windows_agree_with_an_independent_computation(seed):
    source = random.Random(seed)
    second = 1_000_000
    times, time = [], 0
    for _ in range(150):
        time += source.randrange(0, 5) * second
        # Never so late that a window is closed.
        times.append(max(0, time - source.randrange(0, 4) * second))
    events = [
        event("e", {"v": source.randrange(10)}, time=at, subject=f"u{source.randrange(3)}") for at in times
    ]
    outcome = check_determinism(None, events, text=HEAD + WINDOWS)
    assert outcome.parked == []
    host = harness(WINDOWS)
    host.feed(events)
    host.advance_to(time + 1_000 * second)
    counts, by_user = defaultdict(int), defaultdict(list)
    for it in events:
        start = it.time - it.time % (10 * second)
        counts[(start, it.subject)] += 1
        by_user[it.subject].append((int(it.time), __import__("json").loads(it.data)["v"]))
    from lantern import key_text, Timestamp

    expected = {key_text((Timestamp(start), user)): {"n": n} for (start, user), n in counts.items()}
    assert host.rows("minutes") == dict(sorted(expected.items())), f"seed {seed}"
    visits, load = {}, {}
    for user, values in by_user.items():
        values.sort()
        start, last, n = None, None, 0
        for at, _ in [*values, (10**18, 0)]:
            if start is not None and at - last >= 7 * second:
                visits[key_text((Timestamp(start), user))] = {"n": n, "end": str(Timestamp(last + 7 * second))}
                start, n = None, 0
            start = at if start is None else start
            last, n = at, n + 1
        for at, _ in values:
            total = sum(v for other, v in values if at - 10 * second < other <= at)
            load[key_text((Timestamp(at), user))] = {"sum": total}
    assert host.rows("visits") == dict(sorted(visits.items())), f"seed {seed}"
    assert host.rows("load") == dict(sorted(load.items())), f"seed {seed}"
    assert host.timers == {} and host.rows("late") == {f"u{n}": {"n": 0} for n in range(3)}


def test_sketches_in_rows():
    host = harness(
        """
t = Table("t", users=distinct, delay=percentiles)
@projection(name="p", subscribes=["*"])
def apply(event):
    row = t.row("all")
    row["users"].add(event.data["user"])
    row["delay"].add(event.data["ms"])
""",
        drop_instances=True,
        batch_size=3,
    )
    host.feed(event("e", {"user": f"u{n % 7}", "ms": n}) for n in range(20))
    row = host.row("t", "all")
    assert row["users"]["estimate"] == 7
    assert (row["delay"]["count"], row["delay"]["p50"]) == (20, 9)
