"""The conformance projection, folded natively, has the expected tables."""

import json
from pathlib import Path

import pytest

from lantern._json import write_json
from lantern.testing import Harness, read_ndjson

CONFORMANCE = Path(__file__).parents[2] / "conformance"
PROJECTION = CONFORMANCE / "python" / "conformance.py"
FILES = sorted(CONFORMANCE.glob("events/*.ndjson"))
PUBLIC = 14


def folded(events, parameters, size, drop):
    """The lines of the expected file."""
    harness = Harness(PROJECTION, parameters, batch_size=size, drop_instances=drop)
    harness.feed(events)
    assert harness.timer_failures == []
    lines = []
    for table in harness.manifest.tables[:PUBLIC]:
        for key, row in harness.raw_rows(table.name).items():
            lines.append(f"{table.name}\t{write_json(key)}\t{row.decode()}")
    # In a batch, events come before timers, so the lines are sorted as in the
    # expected file.
    for it in harness.emitted:
        data = write_json(it.data)
        lines.append(f"emitted\t{write_json(it.subject)}\t{it.time}\t{data}")
    lines += [f"parked\t{write_json(it.event.id)}" for it in harness.parked]
    return lines


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
@pytest.mark.parametrize(("size", "drop"), [(16_384, False), (7, False), (7, True)])
def test_tables_are_the_expected_ones(path, size, drop):
    parameters = path.with_suffix(".parameters.json")
    given = parameters.read_text() if parameters.exists() else ""
    expected = (CONFORMANCE / "expected" / f"{path.stem}.txt").read_text().split("\n")
    expected = [line for line in expected if line]
    lines = folded(read_ndjson(path), given, size, drop)
    assert json.loads(given or "{}") is not None
    assert lines == expected
