#!/usr/bin/env python3
"""Folds every event file with plugins and compares the results with the expected ones.

    python3 check.py PLUGIN.wasm… [--lantern PATH] [--only NAME]

Needs `lantern`: `--lantern`, the variable LANTERN_BIN, or on the path. Fails if a result
differs, or if the plugin is not deterministic.
"""

import argparse
import difflib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
BATCHES = (1, 7, 16_384)
DIFFERENCES_MAX = 10
WORKERS = 2
TABLES = """sums values scans fired tenants minutes hops sessions sliding settled late days
    hours sketches""".split()
ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def text(value):
    """JSON text, written as in rows."""
    escaped = (ESCAPES.get(letter, f"\\u{ord(letter):04x}" if letter < " " else letter) for letter in value)
    return f'"{"".join(escaped)}"'


def in_rows(time):
    """A timestamp that `lantern test` prints, as in rows: with three or six digits."""
    seconds, point, fraction = time.rstrip("Z").partition(".")
    return f"{seconds}{point}{fraction.ljust(3 if len(fraction) <= 3 else 6, '0') if point else ''}Z"


class Answer:
    """Reads the JSON that `lantern test --json` prints, without changing the bytes of
    rows: a JSON parser would lose the difference between `1` and `1.0`."""

    def __init__(self, source):
        self.source = source
        self.at = 0
        self.decoder = json.JSONDecoder()

    def space(self):
        while self.source[self.at] in " \t\r\n":
            self.at += 1

    def value(self):
        """The parsed value at this place, and its text."""
        self.space()
        start = self.at
        value, self.at = self.decoder.raw_decode(self.source, start)
        return value, self.source[start : self.at]

    def members(self):
        """The names of the members of the object at this place. The caller reads each
        member's value before it continues."""
        self.space()
        assert self.source[self.at] == "{"
        self.at += 1
        while True:
            self.space()
            if self.source[self.at] in "},":
                self.at += 1
                if self.source[self.at - 1] == "}":
                    return
                continue
            name, _ = self.value()
            self.space()
            self.at += 1  # the colon
            yield name

    def elements(self):
        """Stops at each element of the array at this place."""
        self.space()
        assert self.source[self.at] == "["
        self.at += 1
        while True:
            self.space()
            if self.source[self.at] in "],":
                self.at += 1
                if self.source[self.at - 1] == "]":
                    return
                continue
            yield


def lines_of(report):
    """The lines of the expected file for the output of `lantern test --json`."""
    answer = Answer(report)
    rows, emitted, parked = {}, [], []
    difference = None
    for name in answer.members():
        if name == "tables":
            for table in answer.members():
                rows[table] = [(key, answer.value()[1]) for key in answer.members()]
        elif name == "emitted":
            for _ in answer.elements():
                own = {member: answer.value() for member in answer.members()}
                subject, time = own["subject"][0], own["time"][0]
                emitted.append(f"emitted\t{text(subject)}\t{in_rows(time)}\t{own['data'][1]}")
        else:
            value, _ = answer.value()
            if name == "parked":
                parked = [f"parked\t{text(event['id'])}" for event in sorted(value, key=lambda event: event["offset"])]
            elif name == "difference":
                difference = value
    if difference:
        raise SystemExit(f"not deterministic: {difference}")
    lines = []
    for table in TABLES:
        for key, row in sorted(rows.get(table, []), key=lambda row: row[0].encode()):
            lines.append(f"{table}\t{text(key)}\t{row}")
    return lines + emitted + parked


def fold(lantern, plugin, events, batch, checked):
    command = [lantern, "test", str(events), str(plugin), "--json", "--allow-parked", "--batch", str(batch)]
    parameters = events.with_suffix(".parameters.json")
    if parameters.exists():
        command += ["--parameters", str(parameters)]
    # The complete determinism check does not depend on `batch`, so it runs only once.
    if batch != BATCHES[-1] or not checked:
        command += ["--check-events", "0"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return lines_of(done.stdout)


def compare(lantern, plugin, events, checked_events_max):
    """Whether all folds of a file give the expected result."""
    checked = checked_events_max is None or len(events.read_bytes().splitlines()) <= checked_events_max
    expected = (HERE / "expected" / f"{events.stem}.txt").read_text(encoding="utf-8").split("\n")[:-1]
    for batch in BATCHES:
        found = fold(lantern, plugin, events, batch, checked)
        if found != expected:
            print(f"{plugin}: {events.stem} in batches of {batch}: the result differs")
            changes = (line for line in difflib.unified_diff(expected, found, "expected", "found", lineterm="", n=0))
            for line in list(changes)[: 2 + 2 * DIFFERENCES_MAX]:
                print("  " + (line if len(line) < 400 else line[:400] + "…"))
            return False
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("plugins", nargs="+", type=Path, metavar="PLUGIN")
    parser.add_argument("--lantern", default=os.environ.get("LANTERN_BIN", "lantern"))
    parser.add_argument("--only", metavar="NAME", help="only this event file")
    parser.add_argument("--checked-events-max", type=int, metavar="EVENTS",
                        help="check determinism only with files of at most this many events")
    args = parser.parse_args()
    files = [events for events in sorted((HERE / "events").glob("*.ndjson")) if args.only in (None, events.stem)]
    failed = 0
    for plugin in args.plugins:
        # The first fold compiles the plugin; the later ones find the compiled code in the cache.
        same = [compare(args.lantern, plugin, events, args.checked_events_max) for events in files[:1]]
        with ThreadPoolExecutor(WORKERS) as pool:
            same += pool.map(lambda events: compare(args.lantern, plugin, events, args.checked_events_max), files[1:])
        failed += not all(same)
        print(f"{plugin}: {sum(same)} of {len(files)} files as expected, in batches of 1, 7 and 16,384")
    sys.exit(1 if failed or not files else 0)


if __name__ == "__main__":
    main()
