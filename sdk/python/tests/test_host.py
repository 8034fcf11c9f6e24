"""Scripts and components on the real host. Needs the environment variable LANTERN_BIN: the
command `lantern`. Without it these tests are skipped by name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import broken
from lantern.build import build, build_interpreter
from lantern.testing import Harness, read_ndjson

LANTERN = os.environ.get("LANTERN_BIN")
ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "bench" / "w1" / "events.ndjson"
SECONDS_MAX = 600

if not LANTERN and os.environ.get("CI"):
    raise RuntimeError("CI tests with the real host, and LANTERN_BIN is not set")

pytestmark = pytest.mark.skipif(not LANTERN, reason="needs the host: set LANTERN_BIN")

W1 = '''
from lantern import Table, integer, minute, projection, text

tenant_minute = Table("tenant_minute", count=integer("sum"), cents=integer("sum", "cent"))
product = Table("product", orders=integer("sum"), cents=integer("sum", "cent"))


@projection(
    name="w1",
    subscribes=["page.viewed", "cart.added", "order.placed"],
    on_failure="park-event",
    members={"product": text, "cents": integer(optional=True, default=0)},
    data=False,
)
def apply(event):
    cents = event.data["cents"]
    row = tenant_minute.row((minute(event.time), event.tenant))
    row["count"] += 1
    row["cents"] += cents
    if event.type == "order.placed":
        row = product.row(event.data["product"])
        row["orders"] += 1
        row["cents"] += cents
'''


@pytest.fixture(scope="session")
def interpreters(tmp_path_factory):
    """The folder with the interpreter: that of the environment, or one that is built."""
    given = os.environ.get("LANTERN_PLUGIN__INTERPRETERS_DIR")
    if given:
        return Path(given)
    folder = tmp_path_factory.mktemp("interpreters")
    build_interpreter(folder / "python.wasm")
    return folder


@pytest.fixture
def lantern(interpreters, tmp_path):
    """Runs the command; returns its exit code and what it prints."""

    def run(*arguments):
        environment = {**os.environ, "LANTERN_PLUGIN__INTERPRETERS_DIR": str(interpreters)}
        result = subprocess.run(
            [LANTERN, *map(str, arguments)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
        )
        return result.returncode, result.stdout + result.stderr

    return run


def write(folder, text, name="script.py"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_script_folds_as_the_harness_does(lantern, tmp_path):
    code, output = lantern("test", SAMPLE, write(tmp_path, W1, "w1.py"), "--all", "--json")
    assert code == 0, output
    harness = Harness.of_text(W1)
    harness.feed(read_ndjson(SAMPLE))
    found = output
    for table in ("tenant_minute", "product"):
        for key, row in harness.rows(table).items():
            assert json.dumps(key) in found, key
            assert f'"cents":{row["cents"]}' in found.replace(": ", ":")


def test_a_component_passes_the_conformance_suite(tmp_path):
    component = tmp_path / "conformance.wasm"
    build(ROOT / "sdk" / "conformance" / "python" / "conformance.py", component)
    check = [sys.executable, ROOT / "sdk" / "conformance" / "check.py", component, "--lantern", LANTERN]
    result = subprocess.run(list(map(str, check)), capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", ["active-users", "retention-cohorts"])
def test_a_plugin_folds_as_the_harness_does(lantern, name):
    folder = ROOT / "plugins" / name
    script = folder / f"{name.replace('-', '_')}.py"
    code, output = lantern("test", folder / "events.ndjson", script, "--json")
    assert code == 0, output
    report = json.loads(output)
    assert report["difference"] is None and report["checked_events"] > 0
    harness = Harness(script)
    harness.feed(read_ndjson(folder / "events.ndjson"))
    for table in harness.manifest.tables:
        if table.public:
            found = {key: json.dumps(row, sort_keys=True) for key, row in report["tables"].get(table.name, {}).items()}
            expected = {key: json.dumps(json.loads(row), sort_keys=True) for key, row in harness.raw_rows(table.name).items()}
            assert found == expected, table.name


@pytest.mark.parametrize(("name", "text", "line", "part"), broken.REFUSED, ids=[it[0] for it in broken.REFUSED])
def test_a_broken_script_is_refused_with_file_and_line(lantern, tmp_path, name, text, line, part):
    code, output = lantern("plugin", "check", write(tmp_path, text))
    assert code == 5, output
    assert (f"script.py:{line}:" if line else "script.py:") in output
    assert part in output


@pytest.mark.parametrize(("name", "body", "part"), broken.PARKED, ids=[it[0] for it in broken.PARKED])
def test_an_event_of_a_broken_script_is_parked_with_file_and_line(lantern, tmp_path, name, body, part):
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "e", "time": "2026-03-01T12:00:00Z", "data": {"text": "x"}}
    events = write(tmp_path, json.dumps(event) + "\n", "events.ndjson")
    code, output = lantern("test", events, write(tmp_path, broken.parked_text(body)))
    assert code == 1, output
    assert part in output and "at script.py:" in output


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("    while True: pass\n", "it used up its fuel"),
        ("    x = []\n    while True: x.append('x' * 100_000)\n", "MemoryError, at script.py:6"),
    ],
    ids=["an endless loop", "too much memory"],
)
def test_a_script_without_end_is_ended_by_the_limits(lantern, tmp_path, body, reason):
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "e", "time": "2026-03-01T12:00:00Z", "data": {}}
    events = write(tmp_path, json.dumps(event) + "\n", "events.ndjson")
    status, output = lantern("test", events, write(tmp_path, broken.parked_text(body)))
    assert status == 1, output
    assert reason in output
