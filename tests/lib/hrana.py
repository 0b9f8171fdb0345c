"""A client of Hrana over HTTP and WebSockets, small and literal: what is sent is what a test says,
and what comes is what the node sent. Standard library only."""

import base64
import http.client
import json
import os
import socket
import struct

from tests.lib.cluster import HANG, expect, expect_equal

WAIT = 30 * HANG


# --- values ---------------------------------------------------------------------------------------


def arg(value):
    if value is None:
        return {"type": "null"}
    if isinstance(value, int):
        return {"type": "integer", "value": str(value)}
    if isinstance(value, float):
        return {"type": "float", "value": value}
    if isinstance(value, bytes):
        return {"type": "blob", "base64": base64.b64encode(value).decode()}
    return {"type": "text", "value": value}


def plain(value):
    """What a value in an answer means."""
    kind = value["type"]
    if kind == "null":
        return None
    if kind == "integer":
        return int(value["value"])
    if kind == "blob":
        text = value["base64"]
        return base64.b64decode(text + "=" * (-len(text) % 4))
    return value["value"]


def rows_of(result):
    return [tuple(plain(v) for v in row) for row in result["rows"]]


def stmt(sql, *args, **more):
    return {"sql": sql, "args": [arg(a) for a in args], **more}


def batch(*steps):
    """Steps: SQL, a statement, or (condition, one of them)."""
    out = []
    for step in steps:
        condition = None
        if isinstance(step, tuple):
            condition, step = step
        one = {"stmt": stmt(step) if isinstance(step, str) else step}
        if condition is not None:
            one["condition"] = condition
        out.append(one)
    return {"steps": out}


def ok(step):
    return {"type": "ok", "step": step}


def failed(step):
    return {"type": "not", "cond": ok(step)}


def atomic(*statements, begin="BEGIN"):
    """As drivers send it."""
    steps = [begin]
    for s in (*statements, "COMMIT"):
        steps.append((ok(len(steps) - 1), s))
    steps.append((failed(len(steps) - 1), "ROLLBACK"))
    return batch(*steps)


# --- HTTP -----------------------------------------------------------------------------------------


class Door:
    """One keep-alive connection to a node's HTTP port."""

    def __init__(self, node, timeout=WAIT):
        self.node = node
        self.conn = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.conn.close()

    def ask(self, verb, path, body=None, headers=None):
        """The response, not read yet."""
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        self.conn.request(verb, path, body, headers or {})
        return self.conn.getresponse()

    def post(self, path, body, status=200, headers=None):
        r = self.ask("POST", path, body, headers)
        text = r.read()
        expect_equal(r.status, status, f"the status of POST {path}, which said {text[:500]}")
        return json.loads(text)

    def pipeline(self, *requests, baton=None, status=200):
        return self.post("/v3/pipeline", {"baton": baton, "requests": requests}, status)

    def execute(self, sql, *args):
        """A statement by itself: its result."""
        answer = self.pipeline({"type": "execute", "stmt": stmt(sql, *args)}, {"type": "close"})
        first = answer["results"][0]
        expect_equal(first["type"], "ok", f"{sql}: {first}")
        return first["response"]["result"]

    def rows(self, sql, *args):
        return rows_of(self.execute(sql, *args))


class Cursor:
    """POST /v3/cursor, line by line. NARROW: the client's buffer is small, so that little is on the
    way when it reads slowly."""

    path = "/v3/cursor"

    def __init__(self, node, wanted, baton=None, narrow=False):
        self.sock = socket.socket()
        if narrow:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        self.sock.settimeout(WAIT)
        self.sock.connect(("127.0.0.1", node.http_port))
        self.conn = http.client.HTTPConnection("127.0.0.1", node.http_port)
        self.conn.sock = self.sock
        self.conn.request("POST", self.path, self.encode(wanted, baton))
        self.response = self.conn.getresponse()
        self.status = self.response.status
        self.head = None
        if self.status == 200:
            self.head = self.read_head()
        else:
            self.error = json.loads(self.response.read())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.response.close()
        self.conn.close()

    def encode(self, wanted, baton):
        return json.dumps({"baton": baton, "batch": wanted})

    def read_head(self):
        return json.loads(self.response.readline())

    def __iter__(self):
        for line in iter(self.response.readline, b""):
            yield json.loads(line)

    def all(self):
        return list(self)


# --- WebSockets -----------------------------------------------------------------------------------


class Closed(Exception):
    """The node closed it."""

    def __init__(self, code, reason):
        super().__init__(f"closed: {code} {reason}")
        self.code, self.reason = code, reason


class WebSocket:
    """Frames of RFC 6455, and Hrana's messages in them."""

    opcode = 1  # of messages: text

    def __init__(self, node, *protocols, path="/", narrow=False, hello=True):
        self.sock = socket.socket()
        if narrow:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        self.sock.settimeout(WAIT)
        self.sock.connect(("127.0.0.1", node.http_port))
        self.got = b""
        self.last = 0
        self.answers = {}
        head = (f"GET {path} HTTP/1.1\r\nHost: lectern\r\nConnection: Upgrade\r\n"
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n")
        if protocols:
            head += f"Sec-WebSocket-Protocol: {', '.join(protocols)}\r\n"
        self.sock.sendall(head.encode() + b"\r\n")
        while b"\r\n\r\n" not in self.got:
            self.more()
        self.head, self.got = self.got.split(b"\r\n\r\n", 1)
        self.status = int(self.head.split(b" ")[1])
        self.protocol = ""
        for line in self.head.decode().split("\r\n")[1:]:
            name, value = line.split(":", 1)
            if name.lower() == "sec-websocket-protocol":
                self.protocol = value.strip()
        if hello and self.status == 101:
            self.send({"type": "hello", "jwt": None})
            expect_equal(self.hear(), {"type": "hello_ok"}, "the answer to hello")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    # Frames.

    def more(self):
        part = self.sock.recv(65536)
        if not part:
            raise Closed(1006, "the connection ended")
        self.got += part

    def take(self, n):
        while len(self.got) < n:
            self.more()
        out, self.got = self.got[:n], self.got[n:]
        return out

    @staticmethod
    def frame(opcode, payload):
        mask = os.urandom(4)
        n = len(payload)
        if n < 126:
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | n)
        elif n < 65536:
            head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, n)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, n)
        key = (mask * (n // 4 + 1))[:n]
        masked = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(n, "big")
        return head + mask + masked

    def encode(self, message):
        return json.dumps(message).encode()

    def decode(self, data, opcode):
        expect_equal(opcode, 1, "the kind of a message")
        return json.loads(data)

    def send_raw(self, text, opcode=1):
        self.sock.sendall(self.frame(opcode, text.encode() if isinstance(text, str) else text))

    def send(self, message):
        self.send_raw(self.encode(message), self.opcode)

    def send_all(self, messages):
        """In one piece."""
        self.sock.sendall(b"".join(self.frame(self.opcode, self.encode(m)) for m in messages))

    def hear(self):
        """The next message."""
        whole, opcode = b"", 0
        while True:
            first, n = struct.unpack("!BB", self.take(2))
            if n == 126:
                n = struct.unpack("!H", self.take(2))[0]
            elif n == 127:
                n = struct.unpack("!Q", self.take(8))[0]
            payload = self.take(n)
            if first & 15 == 8:
                code = struct.unpack("!H", payload[:2])[0] if payload else 1005
                raise Closed(code, payload[2:].decode())
            if first & 15 == 9:
                self.send_raw(payload, 10)
                continue
            whole += payload
            opcode = opcode or first & 15
            if first & 0x80:
                return self.decode(whole, opcode)

    def hear_close(self):
        """All that comes until the node closes it, and how it does."""
        out = []
        while True:
            try:
                out.append(self.hear())
            except Closed as e:
                return out, e

    # Requests.

    def request(self, kind, **more):
        """Sends one; returns its number."""
        self.last += 1
        self.send({"type": "request", "request_id": self.last, "request": {"type": kind, **more}})
        return self.last

    def answer(self, number):
        """What the node says to request NUMBER, whatever comes before."""
        while number not in self.answers:
            message = self.hear()
            expect(message["request_id"] not in self.answers, f"one answer each: {message}")
            self.answers[message["request_id"]] = message
        return self.answers.pop(number)

    def call(self, kind, **more):
        """The response; an error is a failure of the test."""
        message = self.answer(self.request(kind, **more))
        expect_equal(message["type"], "response_ok", f"the answer to {kind} {more}: {message}")
        expect_equal(message["response"]["type"], kind, "the type of a response")
        return message["response"]

    def fails(self, kind, **more):
        """The error."""
        message = self.answer(self.request(kind, **more))
        expect_equal(message["type"], "response_error", f"the answer to {kind}: {message}")
        return message["error"]

    def execute(self, stream, sql, *args):
        return self.call("execute", stream_id=stream, stmt=stmt(sql, *args))["result"]

    def rows(self, stream, sql, *args):
        return rows_of(self.execute(stream, sql, *args))
