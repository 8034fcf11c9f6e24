"""Folds `events.ndjson` with each of the ten projections and compares with the computed tables.

    python3 check.py LANTERN [TASK …]

LANTERN is the program; TASK is the beginning of a folder's name. Every table, key and field must be
as in `expected.json`, and the number of parked events and the emitted events as in `outcome.json`.
For a sketch, the estimate or the percentiles are compared: count, minimum and maximum must be
exact, and a percentile must be within 0.8 % of the exact one. If a value differs, the exit code is
1.
"""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
KINDS = (".py", ".js", ".ts", ".yaml")
PERCENTILES = {"p50", "p75", "p90", "p95", "p99"}
SHOWN = 10


def fold(lantern, folder):
    """What `lantern test` prints for the projection of a folder."""
    sources = [path for path in sorted(folder.iterdir()) if path.suffix in KINDS]
    if len(sources) != 1:
        raise SystemExit(f"{folder.name}: one projection is needed, there are {len(sources)}")
    command = [lantern, "test", str(HERE / "events.ndjson"), str(sources[0])]
    command += ["--json", "--all", "--allow-parked"]
    parameters = folder / "parameters.json"
    if parameters.exists():
        command += ["--parameters", str(parameters)]
    run = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if run.returncode:
        return None, f"`lantern test` ended with {run.returncode}: {run.stderr.strip() or run.stdout[:2000]}"
    return json.loads(run.stdout), None


def equal(name, found, expected):
    """Whether a value is the expected one; within a sketch, only what can be compared."""
    if isinstance(found, dict) and "sketch" in found and isinstance(expected, dict):
        if found.keys() - {"sketch"} != expected.keys():
            return False
        return all(equal(member, found[member], expected[member]) for member in expected)
    if name in PERCENTILES and isinstance(found, int) and isinstance(expected, int):
        return abs(found - expected) <= 0.008 * abs(expected)
    return type(found) is type(expected) and found == expected


def differences(result, tables, outcome):
    """A line for each difference."""
    for table in sorted(result["tables"].keys() | tables.keys()):
        found, expected = result["tables"].get(table, {}), tables.get(table, {})
        for key in sorted(found.keys() | expected.keys()):
            where = f"{table}[{key!r}]"
            if key not in expected:
                yield f"{where} is there, but is not expected: {shown(found[key])}"
            elif key not in found:
                yield f"{where} is missing: {shown(expected[key])}"
            else:
                row, other = found[key], expected[key]
                for field in sorted(row.keys() | other.keys()):
                    if not equal(field, row.get(field), other.get(field)):
                        yield f"{where}.{field} is {shown(row.get(field))}, expected {shown(other.get(field))}"
    if len(result["parked"]) != outcome["parked"]:
        yield f"{len(result['parked'])} events are parked, expected {outcome['parked']}"
        for parked in result["parked"]:
            yield f"  parked {parked['id']}: {parked['reason'].splitlines()[0]}"
    if result.get("halted"):
        yield f"halted: {result['halted']}"
    members = ("type", "subject", "data")
    found = sorted(shown({name: event.get(name) for name in members}) for event in result["emitted"])
    expected = sorted(shown({name: event[name] for name in members}) for event in outcome["emitted"])
    for event in found:
        if event in expected:
            expected.remove(event)
        else:
            yield f"emitted, but not expected: {event}"
    for event in expected:
        yield f"not emitted: {event}"


def shown(value):
    """A value as JSON with sorted members."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def main():
    """Checks the tasks; returns the exit code."""
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    lantern, chosen = sys.argv[1], tuple(sys.argv[2:])
    folders = [it for it in sorted(HERE.glob("[0-9][0-9]-*")) if not chosen or it.name.startswith(chosen)]
    failed = 0
    for folder in folders:
        tables = json.loads((folder / "expected.json").read_text("utf-8"))
        outcome = json.loads((folder / "outcome.json").read_text("utf-8"))
        result, error = fold(lantern, folder)
        found = [error] if error else list(differences(result, tables, outcome))
        rows = sum(map(len, tables.values()))
        events = len(outcome["emitted"])
        print(
            f"{folder.name}: differs in {len(found)} places"
            if found
            else f"{folder.name}: the same, {rows} rows, {outcome['parked']} parked, {events} emitted"
        )
        for line in found[:SHOWN]:
            print(f"  {line}")
        failed += bool(found)
    print(f"{len(folders) - failed} of {len(folders)} tasks are as expected")
    return 1 if failed or not folders else 0


if __name__ == "__main__":
    sys.exit(main())
