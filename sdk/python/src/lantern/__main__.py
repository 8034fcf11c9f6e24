"""``python -m lantern build FILE``: builds a component from a projection."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import __version__
from .build import BuildError, build


def main(arguments: "list[str] | None" = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m lantern", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    compile_ = commands.add_parser("build", help="build a component from a projection")
    compile_.add_argument("file", type=Path, help="the module with the projection")
    compile_.add_argument("-o", "--out", type=Path, help="the file to write; FILE with .wasm")
    options = parser.parse_args(arguments)
    if not options.file.is_file():
        print(f"error: there is no file {options.file}", file=sys.stderr)
        return 1
    out = options.out or options.file.with_suffix(".wasm")
    try:
        build(options.file, out)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{out}: {out.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
