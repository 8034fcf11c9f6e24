"""Adds the contract to the wheel; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CONTRACT = Path(__file__).resolve().parents[2] / "wit" / "projection.wit"


class BuildWithContract(build_py):
    """Copies the contract into the package."""

    def run(self):
        super().run()
        target = Path(self.build_lib) / "lantern" / "wit"
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(CONTRACT, target / "projection.wit")


setup(cmdclass={"build_py": BuildWithContract})
