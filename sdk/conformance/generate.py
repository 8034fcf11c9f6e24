#!/usr/bin/env python3
"""Writes the event files of the conformance suite, always the same bytes.

`README.md` says what each file contains.
"""

import json
import random
from datetime import datetime, timedelta, timezone
from pathlib import Path

EVENTS = Path(__file__).parent / "events"
START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=timezone.utc)

TEXTS = [
    "a", "b", "plain", "Zoë", "naïve café", "日本語のキー", "emoji 👩‍👩‍👧 family", "\u0438\u0306 combining",
    "\u202eright to left", "a/b", "100 %", "%2F", "quote \" back \\ slash /", "tab\there", "line\nbreak",
    "\b\f\r", "\u0001\u001f", "\u007f", "\u2028\u2029", "\uffff", "\U00010000", "\U0010ffff", " ", "ß", "ſ",
]

KEYS = ["a", "b", "c", "Zoë", "日本", "👍", "a/b", "x y", "key with \"quotes\"", "\u007f"]


class File:
    """An event file in the making."""

    def __init__(self, name, seed, parameters=None):
        self.name = name
        self.random = random.Random(f"{name} {seed}")
        self.time = START
        self.lines = []
        self.parameters = parameters

    def add(self, kind, data=None, *, raw=None, step=None, at=None, subject=None, tenant=None):
        """Adds an event; `raw` is the JSON text of its data."""
        if step is None:
            step = self.random.choice([0, 1, 10, 250, 1_000, 2_500])
        self.time += timedelta(milliseconds=step)
        at = at or self.time
        event = {"specversion": "1.0", "id": f"{self.name}-{len(self.lines)}", "source": "conformance", "type": kind}
        if subject is not None:
            event["subject"] = subject
        if tenant is not None:
            event["tenant"] = tenant
        event["time"] = moment(at)
        head = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
        if raw is None:
            raw = json.dumps(data or {}, ensure_ascii=self.random.random() < 0.5, separators=(",", ":"))
        self.lines.append(f'{head[:-1]},"data":{raw}}}')

    def write(self):
        text = "".join(line + "\n" for line in self.lines)
        (EVENTS / f"{self.name}.ndjson").write_text(text, encoding="utf-8", newline="\n")
        parameters = EVENTS / f"{self.name}.parameters.json"
        if self.parameters is None:
            parameters.unlink(missing_ok=True)
        else:
            parameters.write_text(json.dumps(self.parameters) + "\n", newline="\n")


def moment(at):
    text = at.strftime("%Y-%m-%dT%H:%M:%S")
    return text + (f".{at.microsecond:06}".rstrip("0") if at.microsecond else "") + "Z"


def empty():
    file = File("empty", 1)
    for index in range(20):
        file.add("other.type", {"key": f"{index}"})
    file.write()


NUMBERS = [
    "0", "-0", "0.0", "-0.0", "1", "1.0", "1.50", "0.1", "1e2", "1E2", "1e+2", "123456789.125", "1e15", "1e16",
    "9999999999999998", "12345678901234567", "123456789012345680000", "1e17", "1e21", "1e22", "0.0001", "0.00001",
    "0.000015", "1e-5", "9.9e-6", "1e-6", "1e-7", "1.25e-10", "5e-324", "2.2250738585072014e-308",
    "1.7976931348623157e308", "-1.7976931348623157e308", "9007199254740993", "0.30000000000000004",
    "2.5e20", "4503599627370497.5", "-1e-9", "3.141592653589793", "1e23", "8.41e21", "9223372036854775807",
    "-9223372036854775808", "9223372036854775808", "18446744073709551615", "18446744073709551616",
    "-9223372036854775809", "100000000000000000000000000000000000000",
    "0.1000000000000000055511151231257827021181583404541015625", "2.00000000000000011102230246251565404",
]

INTEGERS = ["0", "-1", "7", "2147483648", "9007199254740993", "9223372036854775807", "-9223372036854775808"]
NOT_INTEGERS = ["9223372036854775808", "-9223372036854775809", "1.0", "1e2", '"7"', "true", "[]"]

TIMES = [
    "1970-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z", "2026-03-01T13:07:42.5+01:00", "2026-03-01T12:00:00.123Z",
    "2026-03-01T12:00:00.000250Z", "2024-02-29T23:59:59Z", "0001-01-01T00:00:00Z", "9999-12-30T21:59:59.999999Z",
    "2000-02-29T00:00:00-11:30",
]
NOT_TIMES = ["2026-02-30T00:00:00Z", "2026-03-01", "yesterday", "2026-03-01T25:00:00Z", ""]

JSONS = [
    "{}", "[]", "[[[[]]]]", '{"b":1,"a":2}', '{"z":{"b":[1,2,{"y":0,"x":-0}]},"é":1,"e":2,"\\u00ea":3}',
    '{"a":1,"a":2}', '{"\U00010000":1,"\uffff":2,"a":3}', "true", "false", '"text \\u00e9 \\ud83d\\ude00 \\/"',
    '[1,1.0,1e2,-0,18446744073709551615,18446744073709551616,9223372036854775808,1.50]',
    '{ "white" : [ 1 , 2 ] , "space" : { } }', '{"":0,"\\u0000":1,"\\"":2}', "[null,{\"n\":null}]",
    '"' + "x" * 5_000 + '"', "[" * 60 + "]" * 60,
]


def rows():
    file = File("rows", 2, {"factor": 3})
    for text in TEXTS:
        file.add("c.add", {"key": text, "n": 1})
        file.add("c.value", {"s": text})
    for length in (1, 255, 1_000, 1_023, 1_024, 1_025, 2_000):
        for _ in range(2):
            file.add("c.add", {"key": "k" * length, "n": length})
        file.add("c.add", {"key": "é" * (length // 2), "n": length})
    for key in ("", "\0", "a\0b"):
        for kind in ("c.add", "c.delete", "c.once", "c.visit", "c.sketch", "c.fail", "c.remind"):
            file.add(kind, {"key": key, "seconds": 1})
    for number in NUMBERS:
        file.add("c.value", raw=f'{{"x":{number}}}')
        file.add("c.value", raw=f'{{"j":{number}}}')
    for integer in INTEGERS:
        file.add("c.value", raw=f'{{"n":{integer}}}')
        file.add("c.add", raw=f'{{"key":"limits","n":{integer}}}')
        file.add("c.add", raw=f'{{"key":"limits of {integer}","n":{integer}}}')
    for other in NOT_INTEGERS:
        file.add("c.value", raw=f'{{"n":{other}}}')
        file.add("c.add", raw=f'{{"key":"a","n":{other}}}')
        # `c.delete` does not use `n`.
        file.add("c.delete", raw=f'{{"key":"no such row","n":{other}}}')
    for time in TIMES + NOT_TIMES + ["9999-12-30T22:00:00Z"]:
        file.add("c.value", {"t": time})
    for value in JSONS:
        file.add("c.value", raw=f'{{"j":{value}}}')
    for data in ('{"b":true}', '{"b":false}', '{"b":1}', '{"b":"true"}', '{"s":1}', '{"x":"1"}', '{"t":1}', '{"s":null}',
                 '{"n":null,"x":null,"b":null,"t":null,"j":null}', "{}", '{"other":1}', '{"s":"a","s":"b"}',
                 '{"j":1,"j":2}', "[]", "1", '"text"', "null"):
        file.add("c.value", raw=data)
        file.add("c.add", raw=data)
    file.add("c.value", raw='{"n":1,"x":2,"s":"three","b":true,"t":"2026-03-01T00:00:00Z","j":{"six":[6]}}')
    for index in range(400):
        kind = file.random.choice(["c.add", "c.add", "c.add", "c.delete", "c.once", "c.unknown"])
        data = {"key": file.random.choice(KEYS)}
        if file.random.random() < 0.7:
            data["n"] = file.random.randint(-1_000, 1_000)
        # A few events are older than the watermark.
        late = timedelta(seconds=file.random.choice([0, 0, 0, 5, 60]))
        file.add(kind, data, at=file.time - late)
    file.write()


def scan(file):
    start, end = file.random.choice([("", ""), ("a", "b"), ("", "m"), ("k5", ""), ("k1", "k9"), ("z", "a"), ("é", "")])
    data = {"start": start, "end": end, "limit": file.random.choice([0, 1, 2, 3, 7, 1_000])}
    if file.random.random() < 0.6:
        data["reverse"] = file.random.random() < 0.7
    file.add("c.scan", data)


def scans():
    file = File("scans", 3)
    for index in range(500):
        key = file.random.choice(KEYS + [f"k{n}" for n in range(12)])
        choice = file.random.random()
        if choice < 0.5:
            file.add("c.add", {"key": key, "n": file.random.randint(-50, 50)})
        elif choice < 0.65:
            file.add("c.delete", {"key": key})
        else:
            scan(file)
    for limit in (-1, 1_001):
        file.add("c.scan", {"start": "", "end": "", "limit": limit})
    file.add("c.scan", {"start": "", "limit": 1})
    file.write()


def remind(file):
    key = file.random.choice(["one", "two", "drei", "四", "a/b", "five", "six"])
    if file.random.random() < 0.15:
        file.add("c.remind", {"key": key})
    else:
        file.add("c.remind", {"key": key, "seconds": file.random.choice([-100, -10, -5, 0, 1, 4, 5, 6, 10, 15, 20, 60])})


def timers():
    file = File("timers", 4)
    # At the edges of ticks: the watermark moves at times that end in :00 and :05.
    for second in (0, 1, 4, 5, 6, 9, 10, 11, 14, 15, 20, 25):
        file.add("c.remind", {"key": f"edge {second}", "seconds": second}, step=0)
    for step in (4_999, 1, 4_999, 1, 4_999, 1, 4_999, 1, 25_000):
        file.add("c.add", {"key": "clock"}, step=step)
    file.add("c.remind", {"key": "\u0001"})
    for index in range(400):
        if file.random.random() < 0.6:
            remind(file)
        else:
            file.add("c.add", {"key": "clock"}, step=file.random.choice([0, 1_000, 5_000, 30_000]))
    # Set twice to the same time: the first event is the cause.
    for key in ("same", "moved"):
        file.add("c.remind", {"key": key, "seconds": 3}, step=0)
        file.add("c.remind", {"key": key, "seconds": 3 if key == "same" else 4}, step=0)
    file.add("c.add", {"key": "clock"}, step=3_600_000)
    file.add("c.remind", {"key": "never", "seconds": 1})
    file.write()


def fail(file):
    file.add("c.fail", {"key": file.random.choice(KEYS[:4]), "fail": file.random.random() < 0.6})


def emit(file, subject=None):
    data = {"key": file.random.choice(TEXTS), "n": file.random.choice([-1, 0, 1, 2, 3])}
    file.add("c.emit", data, subject=subject)


def failures():
    file = File("failures", 5)
    for index in range(400):
        choice = file.random.random()
        if choice < 0.4:
            fail(file)
        elif choice < 0.6:
            file.add("c.add", {"key": file.random.choice(["gone", "a", "b"]), "n": 1})
        elif choice < 0.7:
            scan(file)
        elif choice < 0.8:
            emit(file, file.random.choice([None, "s", "subject ü"]))
        else:
            file.add("c.once", {"key": file.random.choice(KEYS)})
    file.add("c.emit", {"key": "many", "n": 100})
    file.add("c.emit", {"key": "too many", "n": 101})
    file.add("c.emit", {"key": "", "n": 1})
    file.add("c.emit", {"key": "no number"})
    for count in range(40):
        # Failures alone, and a good event at the end.
        file.add("c.fail", {"key": "in a row", "fail": count < 39})
    file.write()


def tenant(file):
    file.add(
        "c.tenant",
        subject=file.random.choice([None, "u1", "u2", "a/b", "Zoë"]),
        tenant=file.random.choice([None, "t1", "t2", "mandant-ü"]),
    )


def tenants():
    file = File("tenants", 6)
    for index in range(300):
        tenant(file)
    file.add("c.add", {"key": "clock"}, step=12_000)
    file.write()


def visit(file, spread):
    data = {"key": file.random.choice(["u1", "u2", "Zoë", "a/b", "u%5"])}
    if file.random.random() < 0.8:
        data["n"] = file.random.randint(-5, 20)
    back = timedelta(milliseconds=file.random.choice([0, 0, 0, 0, 0, 1, 2_000, 9_000, 20_000, 45_000, 90_000]))
    file.add("c.visit", data, step=file.random.choice(spread), at=file.time - back)


def windows():
    file = File("windows", 7)
    for index in range(800):
        visit(file, [0, 0, 1, 500, 1_000, 5_000, 12_000] if index % 100 else [120_000])
    # At the edges of windows and ticks.
    file.time = START + timedelta(hours=6)
    for step in (0, 9_999, 1, 0, 10_000, 10_000, 29_999, 1, 60_000, 1, 30_000, 30_000, 29_999, 5_000, 60_000):
        file.add("c.visit", {"key": "edge", "n": 1}, step=step)
        file.add("c.visit", {"key": "edge", "n": 10}, step=0, at=file.time - timedelta(seconds=15))
    file.add("c.add", {"key": "clock"}, step=600_000)
    file.add("c.visit", {"key": "open", "n": 5})
    file.write()


def sketch(file, keys):
    data = {"key": file.random.choice(keys)}
    if file.random.random() < 0.8:
        data["s"] = f"user {file.random.randint(1, 1_500)}"
    if file.random.random() < 0.8:
        data["n"] = int(file.random.lognormvariate(5, 2)) - 20
    if file.random.random() < 0.4:
        data["x"] = file.random.choice([1, -1]) * file.random.lognormvariate(0, 3)
    file.add("c.sketch", data, step=10)


def sketches():
    file = File("sketches", 8)
    file.add("c.sketch", {"key": "empty"})
    for text in TEXTS:
        file.add("c.sketch", {"key": "texts", "s": text})
    for integer in INTEGERS:
        file.add("c.sketch", raw=f'{{"key":"limits","n":{integer}}}')
    for number in ("0.0005", "-0.0005", "0.0015", "0.0025", "1e-9", "1234.5678", "-0.0", "9223372036854775", "9223372036854776",
                   "1e300", "-9223372036854775.808", "4.35", "1.0045"):
        file.add("c.sketch", raw=f'{{"key":"scaled","x":{number}}}')
    for index in range(512):
        file.add("c.sketch", {"key": "exact", "s": f"{index}"}, step=1)
    for index in range(513):
        file.add("c.sketch", {"key": "dense", "s": f"{index}"}, step=1)
    for index in range(3_000):
        sketch(file, ["many", "many", "many", "few"] if index % 50 else ["rare"])
    file.write()


def zone(number, name, moments):
    file = File(f"zones-{number}", 9, {"zone": name})
    for text in moments:
        around = datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
        for minutes in range(-36 * 60, 36 * 60, 45):
            file.add("c.day", {"t": moment(around + timedelta(minutes=minutes, milliseconds=minutes % 7))})
    for index in range(150):
        file.add("c.day", {"t": moment(datetime(1970, 1, 3, tzinfo=timezone.utc)
                                       + timedelta(seconds=file.random.randint(0, 2_200_000_000)))})
    file.add("c.day", {})
    file.write()


def zones():
    zone("berlin", "Europe/Berlin", ["2026-03-29T01:00", "2026-10-25T01:00", "1980-04-06T01:00", "2080-03-31T01:00"])
    zone("lord-howe", "Australia/Lord_Howe", ["2026-04-04T15:00", "2026-10-03T15:30"])
    zone("sao-paulo", "America/Sao_Paulo", ["2018-11-04T03:00", "2019-02-17T02:00"])
    zone("apia", "Pacific/Apia", ["2011-12-30T10:00", "2012-03-31T14:00"])
    zone("havana", "America/Havana", ["2024-03-10T05:00", "2024-11-03T05:00"])
    zone("kathmandu", "Asia/Kathmandu", ["1985-12-31T18:30"])


def mixed():
    file = File("mixed", 10, {"factor": -2, "zone": "America/New_York"})
    for index in range(6_000):
        choice = file.random.random()
        if choice < 0.3:
            data = {"key": file.random.choice(KEYS), "n": file.random.randint(-1_000, 1_000)}
            file.add("c.add", data, step=file.random.choice([0, 10, 200]))
        elif choice < 0.35:
            file.add("c.delete", {"key": file.random.choice(KEYS)}, step=0)
        elif choice < 0.40:
            file.add("c.value", {"x": file.random.uniform(-1, 1), "s": file.random.choice(TEXTS)}, step=10)
        elif choice < 0.42:
            scan(file)
        elif choice < 0.47:
            remind(file)
        elif choice < 0.50:
            fail(file)
        elif choice < 0.53:
            emit(file)
        elif choice < 0.60:
            tenant(file)
        elif choice < 0.85:
            visit(file, [0, 0, 1, 100, 500])
        elif choice < 0.90:
            file.add("c.day", {}, step=0)
        elif choice < 0.97:
            sketch(file, ["a", "b"])
        else:
            file.add("c.once", {"key": f"once {file.random.randint(0, 300)}"})
    file.write()


def main():
    EVENTS.mkdir(exist_ok=True)
    for write in (empty, rows, scans, timers, failures, tenants, windows, sketches, zones, mixed):
        write()


if __name__ == "__main__":
    main()
