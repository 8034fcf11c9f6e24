#!/usr/bin/env python3
"""Folds events with projections that break the rules, and checks the effect of each violation.

    python3 rules.py PLUGIN… [--lantern PATH] [--cc COMMAND]

Each breach must be a parked event with a reason, and must not touch the events around it.
With `--cc`, a compiler of C for WebAssembly with WASI, modules that open a file, read a
clock or randomness are built as well, and must be refused.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# Breaches, and what the reason must say.
BREACHES = {
    "r.error": "refused by the projection",
    "r.loop": "fuel",
    "r.trap": "unreachable|trap",
    "r.recursion": "stack|recursion",
    "r.memory": "memory",
}
# Functions that a module must not import, as C.
FOREIGN = {
    "a file": "#include <stdio.h>\n#define BREAK sum += fopen(\"/etc/passwd\", \"r\") != NULL",
    "a clock": "#include <time.h>\n#define BREAK sum += time(NULL)",
    "randomness": "#include <unistd.h>\n#define BREAK getentropy(&sum, sizeof sum)",
    "the environment": "#include <stdlib.h>\n#define BREAK sum += getenv(\"HOME\") != NULL",
}


def events(kinds):
    for index, kind in enumerate(kinds):
        yield json.dumps({"specversion": "1.0", "id": f"e{index}", "source": "rules", "type": kind,
                          "time": f"2026-03-01T12:00:{index:02}Z", "data": {}}) + "\n"


def lantern_test(lantern, plugin, path):
    command = [lantern, "test", str(path), str(plugin), "--json", "--allow-parked"]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=600)


def check_breaches(lantern, plugin, folder):
    path = Path(folder) / "events.ndjson"
    kinds = ["r.count"]
    for breach in BREACHES:
        kinds += [breach, "r.count", breach, "r.count"]
    path.write_text("".join(events(kinds)))
    done = lantern_test(lantern, plugin, path)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    counts = report["tables"]["counts"]
    assert counts == {"r.count": {"events": kinds.count("r.count")}}, counts
    assert report["difference"] is None, report["difference"]
    reasons = {}
    for parked in report["parked"]:
        reasons.setdefault(kinds[int(parked["id"][1:])], []).append(parked["reason"])
    for breach, pattern in BREACHES.items():
        found = reasons.get(breach, [])
        assert len(found) == 2 and all(re.search(pattern, reason) for reason in found), (breach, found)
        print(f"{plugin}: {breach} is parked: {found[0].splitlines()[0][:160]}")


def check_foreign(lantern, compiler, folder):
    sdk = Path(__file__).parent.parent / "c/src"
    source, module, nothing = (Path(folder) / name for name in ("foreign.c", "foreign.wasm", "none.ndjson"))
    nothing.write_text("".join(events(["r.count"])))
    for what, code in FOREIGN.items():
        source.write_text(f"""{code}
#include "lantern.h"
static void apply(const lantern_event *event) {{ long long sum = 0; BREAK; if (sum == 7) lantern_fail("seven"); (void)event; }}
static const char *const subscribes[] = {{ "*", NULL }};
static lantern_table *const tables[] = {{ NULL }};
const lantern_projection lantern_the_projection = {{
    .name = "foreign", .version = "1.0.0", .description = "", .subscribes = subscribes, .tables = tables, .apply = apply,
}};
""")
        sources = [str(path) for path in sorted(sdk.glob("*.c"))]
        options = ["-O1", "-w", "-mexec-model=reactor", "-I", str(sdk), "-o", str(module)]
        subprocess.run([*compiler.split(), *options, str(source), *sources], check=True)
        done = lantern_test(lantern, module, nothing)
        said = done.stdout + done.stderr
        assert done.returncode != 0 and "LAN-0105" in said and "wasi_snapshot_preview1" in said, (what, said)
        print(f"a module that reads {what} is refused")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("plugins", nargs="+", type=Path, metavar="PLUGIN")
    parser.add_argument("--lantern", default=os.environ.get("LANTERN_BIN", "lantern"))
    parser.add_argument("--cc", metavar="COMMAND")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for plugin in args.plugins:
            check_breaches(args.lantern, plugin, folder)
        if args.cc:
            check_foreign(args.lantern, args.cc, folder)


if __name__ == "__main__":
    main()
