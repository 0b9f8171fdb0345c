"""A small client of Lectern's native protocol, written only from docs/PROTOCOL.md.

It checks that page independently of the C sources, and is what the cluster tests speak with.

    with Client("127.0.0.1", 7701) as c:
        c.query("INSERT INTO t VALUES (?, :name)", (1,), level="session")
        c.query("SELECT * FROM t WHERE id = :id", {":id": 1}).rows

Every wait has a deadline (`socket_timeout`, seconds). Not thread-safe, except cancel().
Run this file to test its codecs against the examples of the page.
"""
import collections
import socket
import struct
import time

MAGIC = 0x4E54434C
VERSION = 1
FRAME_MAX = 64 * 1024 * 1024
PIPELINE_MAX = 64

HELLO, QUERY, STATUS, CANCEL = 1, 2, 3, 4
WELCOME, COLUMNS, ROWS, DONE, ERROR = 65, 66, 67, 68, 69
LEVELS = {"any": 0, "bounded": 1, "session": 2, "strong": 3}
ERRORS = {
    1: "NOMEM", 2: "IO", 3: "CORRUPT", 4: "FORMAT", 5: "TOO_BIG", 6: "FULL", 7: "NOT_FOUND",
    8: "LOCKED", 9: "DIVERGED", 10: "NOT_LEADER", 11: "NO_LEADER", 12: "BUSY", 13: "UNKNOWN",
    14: "TIMEOUT", 15: "PROTOCOL", 16: "VERSION", 17: "CLOSED", 18: "FORBIDDEN", 19: "SQL",
    20: "MISUSE", 21: "STOPPED", 22: "TXN_LOST", 23: "CONFIG", 24: "CANCELLED",
}

Frame = collections.namedtuple("Frame", "type request body")
Result = collections.namedtuple(
    "Result", "rows columns changes last_insert_rowid seq in_transaction")


class LecternError(Exception):
    """An ERROR answer. `name` is that of the table in section 7."""

    def __init__(self, code, sqlite_code, message, offset=-1, in_transaction=False, seq=0):
        self.code = code
        self.name = ERRORS.get(code, "PROTOCOL")
        self.sqlite_code = sqlite_code
        self.message = message
        self.offset = offset
        self.in_transaction = in_transaction
        self.seq = seq
        super().__init__("%s (%d, sqlite %d): %s" % (self.name, code, sqlite_code, message))


class ConnectionLost(Exception):
    """The connection ended or timed out. `sent`: a request may have reached the server."""

    def __init__(self, message, sent=True):
        self.sent = sent
        super().__init__(message)


class BadFrame(Exception):
    """The server broke the protocol."""


# --- encodings (section 1) ---


def put_str(text):
    raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else bytes(text)
    return struct.pack("<I", len(raw)) + raw


def put_value(value):
    if value is None:
        return b"\x00"
    if isinstance(value, (bool, int)):
        return b"\x01" + struct.pack("<q", int(value))
    if isinstance(value, float):
        return b"\x02" + struct.pack("<d", value)
    if isinstance(value, str):
        return b"\x03" + put_str(value)
    return b"\x04" + put_str(bytes(value))


class Reader:
    """Takes a body apart; a body that is too short or too long is a BadFrame."""

    def __init__(self, body):
        self.body, self.at = body, 0

    def bytes(self, n):
        if n > len(self.body) - self.at:
            raise BadFrame("a body ends too early")
        self.at += n
        return self.body[self.at - n:self.at]

    def unpack(self, form):
        return struct.unpack("<" + form, self.bytes(struct.calcsize("<" + form)))[0]

    def str(self):
        return self.bytes(self.unpack("I")).decode("utf-8", "surrogateescape")

    def value(self):
        kind = self.unpack("B")
        if kind == 0:
            return None
        if kind == 1:
            return self.unpack("q")
        if kind == 2:
            return self.unpack("d")
        if kind == 3:
            return self.str()
        if kind == 4:
            return self.bytes(self.unpack("I"))
        raise BadFrame("a value of type %d" % kind)

    def end(self):
        if self.at != len(self.body):
            raise BadFrame("%d bytes too many in a body" % (len(self.body) - self.at))


def frame(kind, request, body=b""):
    return struct.pack("<IBI", len(body) + 5, kind, request) + body


def hello(client="lectern_client.py", database="", magic=MAGIC, version=VERSION):
    return frame(HELLO, 0, struct.pack("<IH", magic, version) + put_str(client) + put_str(database))


def query(request, sql, params=(), level="session", bound_ms=0, timeout_ms=0, min_seq=0, flags=0,
          last_insert_rowid=0):
    if isinstance(params, dict):
        named = list(params.items())
    else:
        named = [("", value) for value in params]
    body = struct.pack("<BBIIQq", LEVELS.get(level, level), flags, bound_ms, timeout_ms, min_seq,
                       last_insert_rowid)
    body += put_str(sql) + struct.pack("<I", len(named))
    body += b"".join(put_str(name) + put_value(value) for name, value in named)
    return frame(QUERY, request, body)


def parse_error(body):
    r = Reader(body)
    code, sqlite_code, offset, seq, flags = (r.unpack(f) for f in ("I", "i", "i", "Q", "B"))
    message = r.str()
    r.end()
    return LecternError(code, sqlite_code, message, offset, bool(flags & 1), seq)


# --- the client ---


class Client:
    """One connection. `seq` is the newest sequence seen; session reads carry it."""

    def __init__(self, host="127.0.0.1", port=7701, socket_timeout=30.0, seq=0, handshake=True,
                 client="lectern_client.py"):
        self.socket_timeout = socket_timeout
        self.seq = seq
        self.request = 0
        self.waiting = collections.deque()  # requests without an answer, oldest first
        self.input = bytearray()
        self.in_transaction = False
        self.node_id = self.cluster_id = self.server = self.sqlite = None
        try:
            self.sock = socket.create_connection((host, port), timeout=socket_timeout)
        except OSError as e:
            raise ConnectionLost("connect to %s:%d: %s" % (host, port, e), sent=False) from e
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if handshake:
            try:
                self.send_raw(hello(client))
                self.read_welcome()
            except BaseException:
                self.close()
                raise

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.sock.close()

    # Bytes and frames; also for hostile tests.

    def send_raw(self, data):
        try:
            self.sock.settimeout(self.socket_timeout)
            self.sock.sendall(data)
        except OSError as e:
            raise ConnectionLost("send: %s" % e) from e

    def shutdown_write(self):
        self.sock.shutdown(socket.SHUT_WR)

    def read_frame(self, timeout=None):
        """The next whole frame; ConnectionLost at the end of the stream or after `timeout` s."""
        end = time.monotonic() + (self.socket_timeout if timeout is None else timeout)
        while True:
            if len(self.input) >= 4:
                length = struct.unpack_from("<I", self.input)[0]
                if length < 5 or length > FRAME_MAX:
                    raise BadFrame("a frame of %d bytes" % length)
                if len(self.input) >= 4 + length:
                    kind, request = struct.unpack_from("<BI", self.input, 4)
                    body = bytes(self.input[9:4 + length])
                    del self.input[:4 + length]
                    return Frame(kind, request, body)
            left = end - time.monotonic()
            if left <= 0:
                raise ConnectionLost("no answer in time")
            try:
                self.sock.settimeout(left)
                data = self.sock.recv(65536)
            except OSError as e:
                raise ConnectionLost("receive: %s" % e) from e
            if not data:
                raise ConnectionLost("the server closed the connection")
            self.input += data

    def at_end(self, timeout=None):
        """True when the server closed without another byte; False when something else came."""
        try:
            self.sock.settimeout(self.socket_timeout if timeout is None else timeout)
            return not self.input and self.sock.recv(1) == b""
        except ConnectionResetError:
            return True
        except socket.timeout:
            return False

    def read_welcome(self):
        f = self.read_frame()
        if f.type == ERROR:
            raise parse_error(f.body)
        if f.type != WELCOME or f.request != 0:
            raise BadFrame("frame %d instead of WELCOME" % f.type)
        r = Reader(f.body)
        if r.unpack("H") != VERSION:
            raise BadFrame("another version in WELCOME")
        self.node_id, self.cluster_id = r.unpack("Q"), r.unpack("Q")
        self.server, self.sqlite = r.str(), r.str()
        r.end()

    # Requests and answers.

    def begin(self, sql, params=(), level="session", bound_ms=0, timeout_ms=0, min_seq=None,
              flags=0, last_insert_rowid=0):
        """Sends a QUERY and returns its number; finish() reads its answer. For pipelining."""
        if level == "session" and min_seq is None:
            min_seq = self.seq
        self.request = self.request % 0xFFFFFFFF + 1
        self.send_raw(query(self.request, sql, params, level, bound_ms, timeout_ms, min_seq or 0,
                            flags, last_insert_rowid))
        self.waiting.append(self.request)
        return self.request

    def finish(self, request=None, timeout=None):
        """Reads the answer of the oldest request (which must be `request` when given)."""
        expected = self.waiting.popleft()
        if request is not None and request != expected:
            raise AssertionError("answers come in order: %d before %d" % (expected, request))
        columns, rows = [], []
        while True:
            f = self.read_frame(timeout)
            if f.type == ERROR and f.request in (0, expected):
                error = parse_error(f.body)
                self.in_transaction = error.in_transaction
                self.seq = max(self.seq, error.seq)
                raise error
            if f.request != expected:
                raise BadFrame("an answer to %d instead of %d" % (f.request, expected))
            r = Reader(f.body)
            if f.type == COLUMNS and not columns:
                columns = [(r.str(), r.str()) for _ in range(r.unpack("I"))]
                if not columns:
                    raise BadFrame("COLUMNS without a column")
            elif f.type == ROWS and columns:
                for _ in range(r.unpack("I")):
                    rows.append(tuple([r.value() for _ in columns]))
            elif f.type == DONE:
                seq, changes, rowid = r.unpack("Q"), r.unpack("q"), r.unpack("q")
                self.in_transaction = bool(r.unpack("B") & 1)
                r.end()
                self.seq = max(self.seq, seq)
                return Result(rows, [name for name, _ in columns], changes, rowid, seq,
                              self.in_transaction)
            else:
                raise BadFrame("frame %d in the middle of an answer" % f.type)
            r.end()

    def query(self, sql, params=(), level="session", bound_ms=0, timeout_ms=0, min_seq=None):
        return self.finish(self.begin(sql, params, level, bound_ms, timeout_ms, min_seq))

    def status(self):
        """One dict for each node."""
        self.request = self.request % 0xFFFFFFFF + 1
        self.send_raw(frame(STATUS, self.request))
        self.waiting.append(self.request)
        result = self.finish(self.request)
        return [dict(zip(result.columns, row)) for row in result.rows]

    def cancel(self, request=None):
        """Asks to end a request (the newest one); its answer is read as usual."""
        self.send_raw(frame(CANCEL, self.request if request is None else request))


def test_codecs():
    example = bytes.fromhex("15000000 01 00000000 4c43544e 0100 020000006d65 00000000")
    assert hello("me") == example, hello("me").hex()
    values = [None, 0, -1, 2**63 - 1, -2**63, 0.0, 1e308, "", "h\u00e9\x00", b"", b"\xff\x00"]
    r = Reader(b"".join(put_value(v) for v in values))
    assert [r.value() for _ in values] == values
    r.end()
    for n in range(len(put_value("abc"))):
        try:
            Reader(put_value("abc")[:n]).value()
            raise AssertionError("a short value was taken")
        except BadFrame:
            pass


if __name__ == "__main__":
    test_codecs()
    print("ok")
