"""The sketches have the bytes of docs/sketches.md."""

import json
import random
import re
from pathlib import Path

import pytest

from lantern._host import call
from lantern.sketches import Distinct, Percentiles, SketchError, bucket_of, middle_of, xxh64

PAGE = (Path(__file__).parents[3] / "docs" / "sketches.md").read_text()
COUNTS = re.findall(r"^\| (\d+) \| (\d+) \| `([0-9a-f]{16})` \|$", PAGE, re.M)
JSON = [line for line in PAGE.splitlines() if line.startswith(('{"estimate"', '{"count":'))]


def test_the_page_has_the_vectors():
    assert len(COUNTS) == 5 and len(JSON) == 5


@pytest.mark.parametrize(("n", "estimate", "digest"), COUNTS[:4])
def test_distinct_counts_have_the_bytes_of_the_page(n, estimate, digest):
    sketch = Distinct(str(value) for value in range(1, int(n) + 1))
    assert sketch.estimate() == int(estimate)
    assert f"{xxh64(sketch.to_bytes()):016x}" == digest
    assert Distinct.from_json(json.loads(sketch.to_json())) == sketch


def test_json_is_that_of_the_page():
    values = [-(2**63), -1000, -1, 0, 1000, 1000000, 2**63 - 1]
    sketches = [
        Distinct(), Distinct([1, 2, 3]), Percentiles(), Percentiles([3, 1, 2]), Percentiles(values),
    ]
    assert [sketch.to_json() for sketch in sketches] == JSON
    for sketch, text in zip(sketches, JSON):
        assert type(sketch).from_json(json.loads(text)) == sketch


@pytest.mark.parametrize("seed", range(5))
def test_a_sketch_that_is_read_and_written_again_and_again_has_the_same_bytes(seed):
    source = random.Random(seed)
    kept, stored = Distinct(), Distinct()
    while kept.estimate() <= 540:
        # A call has from 1 to 60 events. Some values occur again, and some events are undone.
        stored = Distinct.from_row(json.loads(stored.to_json()))
        for _ in range(source.choice((1, 1, 1, 5, 60))):
            value = source.randrange(700)
            call.undo = []
            stored.add(value)
            if source.random() < 0.2:
                call.undo_event(0)
            else:
                call.undo = None
                kept.add(value)
            call.undo = None
        assert stored.estimate() == kept.estimate()
        assert stored.to_json() == kept.to_json()
    merged, again = Distinct([1, 2]), Distinct.from_row(json.loads(Distinct(range(500)).to_json()))
    merged.merge(again)
    assert merged == again == Distinct(range(500))


def test_percentiles_of_squares_are_those_of_the_page():
    sketch = Percentiles(value * value for value in range(1, 1001))
    found = [sketch.percentile(percent) for percent in (50, 75, 90, 95, 99)]
    assert found == [250879, 561151, 806911, 905215, 978943]
    assert len(sketch.to_bytes()) == 998
    assert f"{xxh64(sketch.to_bytes()):016x}" == "b3b0e67a09c1a5af"


@pytest.mark.parametrize("seed", range(5))
def test_merging_equals_adding(seed):
    source = random.Random(seed)
    numbers = [source.randrange(-(10**source.randrange(1, 18)), 10**9) for _ in range(1500)]
    cut = source.randrange(len(numbers))
    for kind in (Distinct, Percentiles):
        left, right = kind(numbers[:cut]), kind(numbers[cut:])
        left.merge(right)
        assert left == kind(numbers), f"seed {seed}, {kind.__name__}"


def test_buckets_hold_their_middles():
    for bucket in range(-3712, 3712):
        assert bucket_of(middle_of(bucket)) == bucket


@pytest.mark.parametrize(
    "data",
    [b"", b"\4", b"\1abcd", b"\1" + b"\0" * 10, b"\2" + b"\0" * 2560, b"\2" + b"\xff" * 2560, b"\2"],
)
def test_wrong_distinct_bytes_are_refused(data):
    with pytest.raises(SketchError):
        Distinct.from_bytes(data)


@pytest.mark.parametrize(
    "data", [b"", b"\1", b"\3\2", b"\3\2\2", b"\3\2\2\x81\x1d\0", b"\3\2\2\x80\0\1", b"\3\2\4\x81\x1d\1"]
)
def test_wrong_percentile_bytes_are_refused(data):
    with pytest.raises(SketchError):
        Percentiles.from_bytes(data)


def test_json_of_other_numbers_is_refused():
    value = json.loads(Distinct(["a"]).to_json())
    with pytest.raises(SketchError):
        Distinct.from_json({**value, "estimate": 2})
    with pytest.raises(SketchError):
        Distinct.from_json({**value, "more": 1})
    value = json.loads(Percentiles([1]).to_json())
    with pytest.raises(SketchError):
        Percentiles.from_json({**value, "p50": 2})


def test_scaled_values_round_half_away_from_zero():
    def added(value, scale):
        sketch = Percentiles()
        sketch.add_scaled(value, scale)
        return sketch.min

    assert [added(it, 10) for it in (0.25, -0.25, 0.24, 1.25)] == [3, -3, 2, 13]
    for value in (float("nan"), float("inf"), 1e300):
        with pytest.raises(ValueError):
            added(value, 1)
