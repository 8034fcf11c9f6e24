"""Times, keys, zones and JSON."""

import datetime
import random
import zoneinfo
from pathlib import Path

import pytest

from lantern import InTenant, KeyRefused, Narrow, TimeZone, Timestamp, Window, key_part, key_text
from lantern._json import number_text, read_json, write_json
from lantern.keys import end_of_prefix
from lantern.times import micros_of
from lantern.windows import from_sortable, hopping, sortable, tumbling
from lantern.zones import names


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (951_782_400_000_000, "2000-02-29T00:00:00Z"),
        (1_709_164_800_001_000, "2024-02-29T00:00:00.001Z"),
        (4_107_542_399_999_999, "2100-02-28T23:59:59.999999Z"),
        (253_402_300_799_000_000, "9999-12-31T23:59:59Z"),
        (-62_167_219_200_000_000, "0000-01-01T00:00:00Z"),
    ],
)
def test_known_times_are_written_and_read(micros, text):
    assert str(Timestamp(micros)) == text
    assert Timestamp.parse(text) == micros


def test_the_limits_of_times_are_those_of_the_rust_sdk():
    assert str(Timestamp.MAX) == "+294247-01-10T04:00:54.775807Z"
    assert str(Timestamp.MIN) == "-290308-12-21T19:59:05.224192Z"


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2013-01-01T01:00:00+01:00", "2013-01-01T00:00:00Z"),
        ("2012-12-31t19:00:00.5-05:00", "2013-01-01T00:00:00.500Z"),
        ("2013-01-01 00:00:00.1234567Z", "2013-01-01T00:00:00.123456Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
    ],
)
def test_offsets_and_long_fractions_are_read(text, same):
    assert str(Timestamp.parse(text)) == same


@pytest.mark.parametrize(
    "text",
    "|2013-01-01|2013-02-29T00:00:00Z|2013-13-01T00:00:00Z|2013-01-00T00:00:00Z|"
    "2013-01-01T24:00:00Z|2013-01-01T00:00:00|2013-01-01T00:00:00.Z|2013-01-01T00:00:00Zulu|"
    "2013-01-01T00:00:00+1:00|2013-1-01T00:00:00Z|٢٠١٣-01-01T00:00:00Z".split("|"),
)
def test_other_text_is_no_time(text):
    with pytest.raises(ValueError, match="is not an RFC 3339 timestamp"):
        Timestamp.parse(text)


def test_times_agree_with_datetime():
    seed = 7
    source = random.Random(seed)
    for _ in range(2_000):
        micros = source.randrange(-62_135_596_800_000_000, 253_402_300_799_000_000)
        at = Timestamp(micros)
        assert Timestamp.of(at.datetime()) == at, f"seed {seed}"
        assert str(at)[:19] == at.datetime().isoformat()[:19], f"seed {seed}"


def test_durations_are_read():
    assert micros_of("90s") == 90_000_000
    assert micros_of(datetime.timedelta(days=1)) == micros_of("1d") == micros_of("24h")
    for wrong in ("1 hour", "", "-1s", "1.5h"):
        with pytest.raises(ValueError, match="is not a duration"):
            micros_of(wrong)


def test_arithmetic_of_times():
    at = Timestamp.parse("2026-03-01T12:00:00Z")
    assert str(at + "90s") == "2026-03-01T12:01:30Z"
    assert type(at + 1) is Timestamp and type(at - "1s") is Timestamp
    assert type((at + "1s") - at) is int and (at + "1s") - at == 1_000_000
    assert Timestamp.MAX + "1d" == Timestamp.MAX


def test_keys_are_those_of_the_rust_sdk():
    at = Timestamp.parse("2026-03-01T12:07:00Z")
    assert key_text((at, "t7")) == "2026-03-01T12:07:00Z/t7"
    assert key_text(("a/b", "100 %")) == "a%2Fb/100 %25"
    assert key_text(7) == "00000000000000000007"
    assert key_text(Window(at, at)) == key_text(at)
    assert key_text(InTenant("t", ("a", "b"))) == "t\0a/b"
    assert key_text(datetime.date(2026, 3, 29)) == "2026-03-29"
    assert [key_part(it) for it in "a%2Fb/100 %25".split("/")] == ["a/b", "100 %"]


@pytest.mark.parametrize("key", [1.0, True, None, -1, 2**64, ("a", ("b", "c")), ("a", InTenant("t", "b"))])
def test_other_values_are_no_keys(key):
    with pytest.raises(KeyRefused):
        key_text(key)


def test_narrow_integers_sort_as_integers():
    numbers = sorted({0, *(sign * 10**power + more for sign in (1, -1) for power in range(19) for more in (-1, 0, 1))})
    numbers = [it for it in numbers if -(2**63) <= it < 2**63]
    texts = [Narrow(it).text for it in numbers]
    assert texts == sorted(texts)
    assert [Narrow.parse(text) for text in texts] == numbers
    assert Narrow.parse("a01") is None and Narrow.parse("b7") is None


def test_the_end_of_a_prefix_is_after_all_that_begin_with_it():
    for prefix in ("a/", "a", "ü", "\ud7ff", "a\U0010ffff"):
        end = end_of_prefix(prefix)
        assert prefix < end and f"{prefix}\U0010ffffx" < end
    assert end_of_prefix("\U0010ffff") == "" == end_of_prefix("")


def test_windows_are_those_that_hold_the_moment():
    second = 1_000_000
    for size, hop in ((1, 1), (7, 2), (2, 7), (10, 10), (9, 4)):
        windows = hopping(f"{size}s", f"{hop}s")
        for time in range(-30, 30):
            found = [it.start // second for it in windows.of(Timestamp(time * second))]
            expected = [it for it in range(-60, 60) if it % hop == 0 and it <= time < it + size]
            assert found == expected, (size, hop, time)
    assert [str(it.start) for it in tumbling("1m").of(-1)] == ["1969-12-31T23:59:00Z"]


def test_sortable_times_order_as_time_does():
    times = [-(2**63), -1, 0, 1, 2**63 - 1]
    texts = [sortable(time) for time in times]
    assert texts == sorted(texts)
    assert [from_sortable(text) for text in texts] == times


def test_the_table_of_zones_is_that_of_the_rust_sdk():
    own = Path(__file__).parents[1] / "src" / "lantern" / "zones.bin"
    assert own.read_bytes() == (Path(__file__).parents[2] / "rust" / "zones.bin").read_bytes()


def test_zones_agree_with_zoneinfo():
    seed = 11
    source = random.Random(seed)
    known = [name for name in names() if name in zoneinfo.available_timezones()]
    assert len(known) > 300
    wrong = []
    for name in known:
        zone, other = TimeZone(name), zoneinfo.ZoneInfo(name)
        for _ in range(20):
            # Before and after these times, releases of the time zone database
            # differ.
            at = Timestamp(source.randrange(830_000_000, 1_735_000_000) * 1_000_000)
            if zone.offset_seconds(at) != at.datetime().astimezone(other).utcoffset().total_seconds():
                wrong.append((name, str(at)))
    assert len({name for name, _ in wrong}) <= 3, f"seed {seed}: {wrong}"


def test_days_of_zones_have_23_or_25_hours():
    berlin = TimeZone("Europe/Berlin")
    hours = [
        (window.end - window.start) // 3_600_000_000
        for window in (berlin.day(Timestamp.parse(f"{day}T12:00:00Z")) for day in ("2026-03-29", "2026-10-25", "2026-01-01"))
    ]
    assert hours == [23, 25, 24]
    with pytest.raises(ValueError, match="is not a time zone"):
        TimeZone("Europe/Atlantis")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1.0, "1.0"), (0.0, "0.0"), (-0.0, "-0.0"), (1e15, "1000000000000000.0"), (1e16, "1e+16"),
        (1e-5, "0.00001"), (1.5e-5, "0.000015"), (-1.25e-5, "-0.0000125"), (1e-6, "1e-6"),
        (1.2345678901234568e17, "1.2345678901234568e+17"), (5e-324, "5e-324"), (0.1, "0.1"),
        (123456.789, "123456.789"), (1e100, "1e+100"),
    ],
)
def test_numbers_are_written_as_in_rust(number, text):
    assert number_text(number) == text


def test_json_of_rows():
    value = {"b": [1, -0.0, 1e2, None, True], "a": 'ä"\\/\n\x07\x7f'}
    assert write_json(value, sort=True) == '{"a":"ä\\"\\\\/\\n\\u0007\x7f","b":[1,-0.0,100.0,null,true]}'
    assert write_json(2**64) == "1.8446744073709552e+19"
    assert str(read_json('[-0]')[0]) == "-0.0"
    with pytest.raises(ValueError, match="NaN is not JSON"):
        read_json("NaN")
