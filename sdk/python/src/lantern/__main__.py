"""``python -m lantern build FILE``: builds a component from a projection."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import __version__
from .build import BuildError, build


def find(folder: Path) -> Path:
    """The only module in a folder that has a projection."""
    found = [
        path
        for path in sorted(folder.glob("*.py"))
        if not path.name.startswith("test_")
        and "@projection" in path.read_text(encoding="utf-8")
    ]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.name for path in found)
        raise BuildError(f"several modules have a projection: name one of {names}")
    raise BuildError(f"no module in {folder.resolve()} has a projection (@projection)")


def main(arguments: "list[str] | None" = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m lantern", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    compile_ = commands.add_parser("build", help="build a component from a projection")
    compile_.add_argument(
        "file", type=Path, nargs="?", help="the module; by default the only one in this folder"
    )
    compile_.add_argument(
        "-o", "--out", type=Path, help="the file to write; by default build/NAME.wasm"
    )
    options = parser.parse_args(arguments)
    try:
        file = find(Path()) if options.file is None else options.file
        if not file.is_file():
            raise BuildError(f"there is no file {file}")
        out = options.out or Path("build", file.stem.replace("_", "-")).with_suffix(".wasm")
        build(file, out)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{out}: {out.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
