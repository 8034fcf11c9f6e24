"""A projection that breaks the rules, in Python: README.md of the suite lists its events."""

import os
import random
import re
import time

from lantern import Table, integer, projection, text

counts = Table("counts", events=integer("sum"))
read = Table("read", value=text)


def spin():
    while True:
        pass


def recurse(depth):
    return recurse(depth + 1) + 1


def eat():
    kept = []
    while True:
        kept.append(bytearray(1 << 20))


def open_file():
    open("/etc/passwd")


def write_file():
    open("/tmp/rules", "w")


def open_socket():
    import socket
    socket.create_connection(("127.0.0.1", 9), timeout=1)


def start_thread():
    import threading
    threading.Thread(target=spin).start()


def start_process():
    import subprocess
    subprocess.run(["true"])


def match_pattern():
    re.match("(a+)+$", "a" * 60 + "b")


BREACHES = {
    "r.loop": spin,
    "r.trap": os.abort,
    "r.recursion": lambda: recurse(0),
    "r.memory": eat,
    "r.file": open_file,
    "r.write": write_file,
    "r.socket": open_socket,
    "r.thread": start_thread,
    "r.process": start_process,
    "r.pattern": match_pattern,
}
READS = {
    "r.clock": lambda: f"{time.time()} {time.monotonic()}",
    "r.random": lambda: f"{random.random()} {os.urandom(4).hex()}",
    "r.environment": lambda: repr(sorted(os.environ)),
}


@projection(name="rules", version="1.0.0", subscribes=["r.*"], on_failure="park-event")
def apply(event):
    counts.row(event.type)["events"] += 1
    if event.type == "r.error":
        raise ValueError("refused by the projection")
    if event.type in READS:
        read.row(event.type)["value"] = READS[event.type]()
    if event.type in BREACHES:
        BREACHES[event.type]()
