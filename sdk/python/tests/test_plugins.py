"""Runs the tests of the plugins in Python, which are next to the plugins."""

import importlib.util
from pathlib import Path

PLUGINS = Path(__file__).parents[3] / "plugins"

for path in sorted(PLUGINS.glob("*/test_*.py")):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in dir(module):
        if name.startswith("test_"):
            globals()[f"test_{path.parent.name.replace('-', '_')}_{name[5:]}"] = getattr(module, name)


def test_both_plugins_have_tests():
    names = [name for name in globals() if name.startswith("test_")]
    assert any("active_users" in name for name in names)
    assert any("retention_cohorts" in name for name in names)
