"""Tests that the files of the tutorial have the effects that the tutorial describes."""

import re
from pathlib import Path

from lantern.program import load_text
from lantern.testing import Harness, check_determinism, event, read_ndjson

PAGE = (Path(__file__).parents[3] / "docs" / "guide" / "python.md").read_text()
SCRIPT, TEST = re.findall(r"```python\n(.*?)```", PAGE, re.S)
EVENTS = re.search(r"```json\n(.*?)```", PAGE, re.S)[1]


def test_the_script_of_the_tutorial_passes_its_test(tmp_path, monkeypatch):
    (tmp_path / "revenue.py").write_text(SCRIPT)
    (tmp_path / "events.ndjson").write_text(EVENTS)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(TEST, "test_revenue.py", "exec"), names)
    ran = [name for name in names if name.startswith("test_")]
    for name in ran:
        names[name]()
    assert len(ran) == 3


def test_the_reasons_of_the_tutorial_are_those_of_the_sdk(tmp_path):
    host = Harness.of_text(SCRIPT, name="revenue.py")
    good = [event("order.placed", {"product": "p", "cents": 1})] * 7
    host.feed([*good, event("order.placed", {"product": "p"})])
    assert host.parked[0].reason in PAGE
    assert host.row("by_minute", "1970-01-01T00:00:00Z")["orders"] == 7
    assert load_text("revenue.py", SCRIPT).setup("").description == "Orders and revenue per minute and product."
    check_determinism(None, read_ndjson(EVENTS), text=SCRIPT)
