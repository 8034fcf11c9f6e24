"""The interpreter component: runs the script that the version was uploaded with."""

from __future__ import annotations

import io
import zoneinfo
import zoneinfo._common

from componentize_py_types import Err
from wit_world.imports import source
from wit_world.imports import types as wit

from . import _guest, places, sandbox
from ._host import call
from .program import Program, load_text
from .zones import names

sandbox.preload()


def _zone_files() -> dict[str, bytes]:
    """The files of all zones, for the module `zoneinfo` of the standard library."""
    import importlib.resources

    root = importlib.resources.files("tzdata").joinpath("zoneinfo")
    found = {}
    for name in names():
        try:
            found[name] = root.joinpath(*name.split("/")).read_bytes()
        except OSError:
            pass
    return found


_ZONES = _zone_files()


def _load_tzdata(key: str) -> io.BytesIO:
    if key not in _ZONES:
        raise zoneinfo.ZoneInfoNotFoundError(f"no time zone found with key {key}")
    return io.BytesIO(_ZONES[key])


zoneinfo._common.load_tzdata = _load_tzdata
zoneinfo.reset_tzpath(())
zoneinfo.ZoneInfo("Europe/Berlin")
_program: "Program | None" = None


class Projector:
    """The exports of the contract."""

    def setup(self, parameters: str) -> wit.Manifest:
        """Runs the script, and returns what it declares."""
        global _program
        call.host = _guest.ContractHost  # type: ignore[assignment]
        name, text = source.name(), source.text()
        sandbox.seal()
        if text.startswith("\ufeff"):
            text = text[1:]
        try:
            _program = load_text(name, text)
            manifest = _guest.manifest_of(_program.setup(parameters))
            _guest.settle()
            return manifest
        except BaseException as error:
            raise Err(places.refusal(error, name, {name: text})) from None

    def apply(self, batch: wit.Batch) -> None:
        """Folds a batch."""
        assert _program is not None, "`apply` was called before `setup`"
        _guest.apply(_program, batch)
