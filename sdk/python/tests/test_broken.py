"""Broken scripts give a message that names the place; none crashes or hangs."""

import pytest

import broken
from lantern import places
from lantern.program import load_text
from lantern.testing import Harness, event

IN_THE_INTERPRETER = "interpreter"
# Natively Python has files and a clock; the tests with LANTERN_BIN cover these.
NATIVE = [case for case in broken.REFUSED if "while loading" not in case[0] or "row" in case[0] or "parameters" in case[0]]
UNSEALED = (
    "no files", "no network", "no clock", "no randomness", "no threads", "cannot start", "cannot wait",
    "KeyError: 'HOME'", "no terminal", "no event loop", "no module named", "ModuleNotFoundError",
)
OUTSIDE = ("a command", "an exit")


def test_there_are_enough_of_them():
    assert len(broken.REFUSED) + len(broken.PARKED) >= 70
    names = [case[0] for case in broken.REFUSED]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("name", "text", "line", "part"), NATIVE, ids=[case[0] for case in NATIVE])
def test_a_broken_script_is_refused_with_file_and_line(name, text, line, part):
    with pytest.raises(BaseException) as raised:
        load_text("script.py", text).setup("")
    message = places.refusal(raised.value, "script.py", {"script.py": text})
    assert message.startswith(f"script.py:{line}:" if line else "script.py:"), message
    if not any(only in part for only in UNSEALED):
        assert part in message


PARKED = [case for case in broken.PARKED if case[0] not in OUTSIDE and case[2] and not any(it in case[2] for it in UNSEALED)]


@pytest.mark.parametrize(("name", "body", "part"), PARKED, ids=[case[0] for case in PARKED])
def test_an_event_of_a_broken_script_is_parked_with_file_and_line(name, body, part):
    host = Harness.of_text(broken.parked_text(body))
    host.feed([event("e", {"text": "x"})])
    (found,) = host.parked
    assert part in found.reason and "at script.py:" in found.reason
