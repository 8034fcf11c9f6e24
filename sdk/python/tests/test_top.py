"""The N largest of each group, compared with a sort of all values."""

import random

import pytest

from lantern import Narrow, key_text
from lantern.testing import Harness, check_determinism, event

N = 3
TEXT = """
from lantern import *

best = Table("best", item=text, value=integer)
ranking = TopN("ranking", 3)

@projection(name="p", subscribes=["*"], on_failure="park-event")
def apply(event):
    kind, group, item, value = event.data["change"]
    changed = True
    if kind == "add":
        changed = ranking.add(group, item, value)
    elif kind == "set":
        changed = ranking.set(group, item, value)
        assert ranking.value(group, item) == value
    elif kind == "remove":
        changed = ranking.remove(group, item)
        assert ranking.value(group, item) is None
    else:
        ranking.clear(group)
    if event.data.get("fail"):
        raise Refused("the event says so")
    if not changed:
        return
    for rank in range(3):
        best.delete((group, Narrow(rank)))
    for rank, (item, value) in enumerate(ranking.largest(group)):
        best.put((group, Narrow(rank)), item=item, value=value)
"""


def expected(changes):
    """The rows of `best`, by a sort of all values."""
    values = {}
    for kind, group, item, value in changes:
        items = values.setdefault(group, {})
        if kind == "add":
            items[item] = items.get(item, 0) + value
        elif kind == "set":
            items[item] = value
        elif kind == "remove":
            items.pop(item, None)
        else:
            items.clear()
    rows = {}
    for group, items in values.items():
        ranked = sorted(items.items(), key=lambda it: (-it[1], it[0].encode()))
        for rank, (item, value) in enumerate(ranked[:N]):
            rows[key_text((group, Narrow(rank)))] = {"item": item, "value": value}
    return dict(sorted(rows.items()))


@pytest.mark.parametrize("seed", range(12))
def test_the_n_largest_are_those_of_a_sort_whatever_the_changes_and_ties(seed):
    source = random.Random(seed)
    kinds = ["add"] * 8 + ["set"] * 6 + ["remove"] * 5 + ["clear"]
    # Few values, so that ties are frequent; keys that need escapes, and that sort
    # differently when they are escaped.
    changes = [
        (
            source.choice(kinds),
            source.choice(("a", "a/b", "")),
            source.choice(("a", "a.", "a/", "a%", "b", "b/c", "ü", "")),
            source.randint(-3, 3),
        )
        for _ in range(80)
    ]
    failing = [source.random() < 0.2 for _ in changes]
    events = [event("e", {"change": it, "fail": fails}) for it, fails in zip(changes, failing)]
    outcome = check_determinism(None, events, text=TEXT)
    assert len(outcome.parked) == sum(failing)
    host = Harness.of_text(TEXT)
    host.feed(events)
    good = [it for it, fails in zip(changes, failing) if not fails]
    assert host.rows("best") == expected(good), f"seed {seed}"


def test_values_past_64_bits_park_their_event_and_a_cleared_group_leaves_no_rows():
    host = Harness.of_text(TEXT)
    host.feed(event("e", {"change": ("add", "g", "i", it)}) for it in (2**63 - 1, 1, -1))
    assert [it.offset for it in host.parked] == [1]
    assert "leaves the range of 64 bits" in host.parked[0].reason
    assert host.rows("best")["g/a0"]["value"] == 2**63 - 2
    host.feed(event("e", {"change": ("set", "g", f"item {it}", it)}) for it in range(10))
    assert len(host.raw_rows("ranking")) > 10
    host.feed([event("e", {"change": ("clear", "g", "", 0)})])
    assert host.raw_rows("ranking") == {} == host.raw_rows("best")
