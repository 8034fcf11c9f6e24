"""Sends events in every mode with the CloudEvents SDK, and reads them back.

The address of the server is the one argument.
"""

import json
import sys
import urllib.request
from datetime import datetime, timezone

from cloudevents.core.bindings import http
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

SERVER = sys.argv[1]
SOURCE = "/sdk/python"


def event(identifier, content_type, data):
    """An event whose attributes need every kind of encoding."""
    return CloudEvent(
        {
            "id": identifier,
            "source": SOURCE,
            "type": "sdk.python",
            "subject": 'say "hi" \\ 5% €',
            "time": datetime(2026, 1, 31, 23, 59, 59, 999000, tzinfo=timezone.utc),
            "datacontenttype": content_type,
            "dataschema": "https://example.org/schema.json#order",
            "comexample": "a, b; c=d",
        },
        data,
    )


def events(mode):
    return [
        event(f"{mode}-json", "application/json", {"n": 9007199254740993, "t": "ü\n\"\\"}),
        event(f"{mode}-text", "text/plain", "zwei Wörter"),
        event(f"{mode}-bytes", "application/octet-stream", b"\x00\xff\r\n"),
    ]


def post(headers, body):
    request = urllib.request.Request(f"{SERVER}/v1/events", data=body, headers=headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def same(sent, read):
    """Whether two events are equal, all but how their time is written."""
    assert sent.get_attributes().keys() == read.get_attributes().keys(), read.get_attributes()
    for name, value in sent.get_attributes().items():
        assert read.get_attributes()[name] == value, (name, value, read.get_attributes()[name])
    assert read.get_data() == sent.get_data(), (sent.get_data(), read.get_data())


sent = {}
for one in events("binary"):
    message = http.to_binary_event(one)
    assert post(message.headers, message.body)["appended"] == 1
    sent[one.get_id()] = one
for one in events("structured"):
    message = http.to_structured_event(one)
    assert post(message.headers, message.body)["appended"] == 1
    sent[one.get_id()] = one
# The SDK has no batches of its own: a batch is an array of its events.
batch = events("batch")
form = JSONFormat()
body = b"[" + b",".join(form.write(one) for one in batch) + b"]"
assert post({"content-type": "application/cloudevents-batch+json"}, body)["appended"] == 3
sent.update((one.get_id(), one) for one in batch)

accept = {"accept": "application/x-ndjson"}
request = urllib.request.Request(f"{SERVER}/v1/events?limit=1000&types=sdk.python", headers=accept)
with urllib.request.urlopen(request) as answer:
    lines = answer.read().splitlines()
read = {}
for line in lines:
    headers = {"content-type": "application/cloudevents+json"}
    one = http.from_structured_event(http.HTTPMessage(headers=headers, body=line))
    read[one.get_id()] = one
assert read.keys() == sent.keys(), (read.keys(), sent.keys())
for identifier, one in sent.items():
    same(one, read[identifier])
print(f"{len(sent)} events")
