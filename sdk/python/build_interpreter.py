"""Builds the interpreter component, which runs Python scripts.

    python3 sdk/python/build_interpreter.py --out target/interpreters/python.wasm
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "src"))

from lantern.build import build_interpreter  # noqa: E402


def main() -> None:
    """Reads the arguments and builds."""
    parser = argparse.ArgumentParser(description="Builds the interpreter of Python scripts.")
    parser.add_argument("--out", required=True, type=Path, help="the file to write")
    build_interpreter(parser.parse_args().out)


if __name__ == "__main__":
    main()
