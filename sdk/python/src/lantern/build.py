"""Builds components with componentize-py, which must be installed: ``pip install
lantern-sdk[build]``."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

COMPONENTIZE_PY = "0.25.1"
"""The version that builds components."""

_PACKAGE = Path(__file__).resolve().parent

_COMPILED = '''\
"""The entry of the component."""
import lantern._guest
from lantern import program

before = program.start(program.Program({name!r}))
import {module}

Projector = lantern._guest.compiled(program.start(before), {module}.__file__)
'''

_INTERPRETER = '"""The entry of the component."""\nfrom lantern._script import Projector\n'


class BuildError(Exception):
    """Why no component was built."""


def contract() -> Path:
    """The file of the contract: of the package, or of the repository."""
    for candidate in (
        _PACKAGE / "wit" / "projection.wit",
        _PACKAGE.parents[3] / "wit" / "projection.wit",
    ):
        if candidate.is_file():
            return candidate
    raise BuildError("the file projection.wit is missing in the package")


def _run(world: str, entry: str, folders: list[Path], out: Path) -> None:
    tool = _tool()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "lantern_entry.py").write_text(entry, encoding="utf-8")
        command = [*tool, "-d", str(contract()), "-w", world, "componentize", "--stub-wasi"]
        for folder in (Path(scratch), *folders):
            command += ["-p", str(folder)]
        partial = out.with_name(out.name + ".partial")
        command += ["-o", str(partial), "lantern_entry"]
        # Two builds of the same files differ, for example in the order of sets. The reason is that
        # componentize-py passes neither a hash seed nor a clock to the Python that it initializes
        # (bytecodealliance/componentize-py#247).
        result = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if result.returncode != 0:
            raise BuildError(f"componentize-py failed:\n{result.stdout.strip()}")
        partial.replace(out)


def _tool() -> list[str]:
    try:
        import componentize_py  # noqa: F401
        from importlib.metadata import version

        found = version("componentize-py")
    except ImportError:
        raise BuildError(
            f"componentize-py is missing: pip install componentize-py=={COMPONENTIZE_PY}"
        ) from None
    if found != COMPONENTIZE_PY:
        raise BuildError(
            f"componentize-py {found} is installed, and {COMPONENTIZE_PY} is needed: "
            f"pip install componentize-py=={COMPONENTIZE_PY}"
        )
    return [sys.executable, "-c", "from componentize_py import script; script()"]


def build(module_file: Path, out: Path) -> None:
    """Builds the component of the projection in ``module_file``. Modules in its folder and
    installed packages of pure Python can be imported."""
    module_file = module_file.resolve()
    name = module_file.stem
    if not name.isidentifier():
        raise BuildError(f"{module_file.name} cannot be imported: rename it, with `_` for `-`")
    entry = _COMPILED.format(name=module_file.name, module=name)
    _run("projection", entry, [module_file.parent, _PACKAGE.parent], out)


def build_interpreter(out: Path) -> None:
    """Builds the component that runs scripts."""
    import tzdata

    folders = [_PACKAGE.parent, Path(tzdata.__file__).resolve().parents[1]]
    _run("interpreter", _INTERPRETER, folders, out)
