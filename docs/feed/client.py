"""A client of Lantern's feed, with the standard library of Python only.

python3 client.py 127.0.0.1:7420 revenue/by_product    prints every state as a line of JSON
"""
import base64, json, os, random, socket, struct, sys, time

FINAL = {1002, 1003, 1007, *range(4400, 4500)} - {4429}
PAUSE_S_MAX = 30
SIZES = {126: ">H", 127: ">Q"}
HANDSHAKE = "GET /v1/feed HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" \
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\nSec-WebSocket-Protocol: lantern.v1.json\r\n\r\n"


class Closed(Exception):
    """The connection ended, with this close code."""


class Socket:
    """A WebSocket (RFC 6455) without extensions."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.tcp = socket.create_connection((host, int(port)), timeout=10)
        self.file = self.tcp.makefile("rb")
        self.tcp.sendall(HANDSHAKE.format(address, base64.b64encode(os.urandom(16)).decode()).encode())
        status = self.file.readline()
        while self.file.readline().strip():
            pass
        if b" 101 " not in status:
            raise Closed(1006)

    def read(self, count):
        got = self.file.read(count)
        if len(got) < count:
            raise Closed(1006)
        return got

    def frame(self, kind, payload):
        size, mask = len(payload), os.urandom(4)
        head = struct.pack(">BB", 128 | kind, 128 | size) if size < 126 else struct.pack(">BBH", 128 | kind, 254, size)
        self.tcp.sendall(head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload)))

    def send(self, **message):
        self.frame(1, json.dumps(message).encode())

    def receive(self):
        text = b""
        while True:
            first, size = self.read(2)
            if size in SIZES:
                (size,) = struct.unpack(SIZES[size], self.read(struct.calcsize(SIZES[size])))
            payload = self.read(size)
            if first & 15 == 8:
                raise Closed(int.from_bytes(payload[:2], "big"))
            if first & 15 == 9:
                self.frame(10, payload)
            if first & 15 < 8:
                text += payload
                if first & 128:
                    return json.loads(text)


class Table:
    """The rows of a table. `show` is called with every state: epoch, commit, offsets and rows."""

    def __init__(self, address, name, show):
        self.address, self.name, self.show = address, name, show
        self.rows, self.epoch, self.commit, self.token, self.shown = {}, None, None, None, None

    def follow(self):
        failures = 0
        while True:
            self.useful = False
            try:
                self.connection(Socket(self.address))
            except (OSError, Closed) as closed:
                if closed.args[:1] and closed.args[0] in FINAL:
                    raise
            failures = 0 if self.useful else failures + 1
            time.sleep(random.random() * min(PAUSE_S_MAX, 0.25 * 2 ** min(failures, 10)))

    def connection(self, socket):
        received, self.id, channel, parts = 0, 0, None, {}
        socket.send(t="hello")
        while True:
            message = socket.receive()
            kind = message["t"]
            if kind == "welcome":
                socket.tcp.settimeout(2 * message["heartbeat_ms"] / 1000)
                self.subscribe(socket)
            elif kind == "ping":
                socket.send(t="pong")
            elif kind == "ok" and message["id"] == self.id:
                channel, commit = message["ch"], message.get("commit", self.commit)
                self.shown = commit if self.shown == self.commit else self.shown
                self.commit, parts = commit, {}
            elif kind in ("err", "end") and message["id"] == self.id:
                raise Closed(4500 if message.get("retry") else 4400)
            elif kind == "reset" and message["ch"] == channel:
                parts = {}
            elif kind in ("snap", "delta", "tick"):
                received += 1
                socket.send(t="ack", n=received)
                if message["ch"] == channel and not self.apply(message, parts):
                    socket.send(t="unsub", id=self.id)
                    channel, self.token = None, None
                    self.subscribe(socket)

    def subscribe(self, socket):
        self.id += 1
        socket.send(t="sub", id=self.id, table=self.name, resume=self.token)

    def apply(self, message, parts):
        """Applies a data frame. Returns whether it continues the rows."""
        if message["t"] != "snap" and message["from"] != self.commit:
            return False
        parts.setdefault("up", {}).update(message.get("rows") or message.get("up") or {})
        parts.setdefault("del", []).extend(message.get("del", []))
        if message.get("more"):
            return True
        if message["t"] == "snap":
            self.shown = self.shown if message["epoch"] == self.epoch else None
            self.rows, self.epoch = {}, message["epoch"]
        self.rows.update(parts.pop("up"))
        for key in parts.pop("del"):
            self.rows.pop(key, None)
        self.commit, self.token, self.useful = message.get("to", message.get("commit")), message["tok"], True
        # Rows that are older than those shown before wait for further deltas.
        if self.shown is None or self.commit >= self.shown:
            self.shown = self.commit
            self.show({"epoch": self.epoch, "commit": self.commit, "offsets": message["offsets"], "rows": self.rows})
        return True


if __name__ == "__main__":
    Table(sys.argv[1], sys.argv[2], lambda state: print(json.dumps(state), flush=True)).follow()
