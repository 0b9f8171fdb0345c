"""A small client of Lectern's native protocol, written only from docs/PROTOCOL.md.

It checks that page independently of the C sources, and is what the cluster tests speak with.

    with Client("127.0.0.1", 7701) as c:
        c.query("INSERT INTO t VALUES (?, :name)", (1,), level="session")
        c.query("SELECT * FROM t WHERE id = :id", {":id": 1}).rows
        c.batch([("INSERT INTO t VALUES (?)", (1,)), ("SELECT count(*) FROM t", ())])[1].rows
        other = c.stream()  # a session of its own on the same connection
        other.query("BEGIN")

Every wait has a deadline (`socket_timeout`, seconds). Not thread-safe, except cancel().
Run this file to test its codecs against the examples of the page.
"""
import collections
import os
import socket
import struct
import time

MAGIC = 0x4E54434C
VERSION = 2
HEAD = 13
FRAME_MAX = 64 * 1024 * 1024
PIPELINE_MAX = 64
WINDOW = 262144

HELLO, QUERY, STATUS, CANCEL, CLUSTER, BATCH, DESCRIBE, CREDIT, CLOSE, FORGET, PING = range(1, 12)
WELCOME, COLUMNS, ROWS, DONE, ERROR, STEP, DESCRIPTION, PONG = range(65, 73)
LEVELS = {"any": 0, "bounded": 1, "session": 2, "strong": 3}
FORWARDED, FOREIGN_KEYS_OFF, NUMBERED, RESOLVE, AGAIN, INSIDE = 1, 2, 4, 8, 16, 32  # of a request
IN_TRANSACTION, ELSEWHERE, NO_FOREIGN_KEYS, SETTLED, TIME_UP = 1, 2, 4, 8, 16  # of DONE, ERROR
READONLY, EXPLAIN, EMPTY = 1, 2, 4                           # of DESCRIPTION
ERRORS = {
    1: "NOMEM", 2: "IO", 3: "CORRUPT", 4: "FORMAT", 5: "TOO_BIG", 6: "FULL", 7: "NOT_FOUND",
    8: "LOCKED", 9: "DIVERGED", 10: "NOT_LEADER", 11: "NO_LEADER", 12: "BUSY", 13: "UNKNOWN",
    14: "TIMEOUT", 15: "PROTOCOL", 16: "VERSION", 17: "CLOSED", 18: "FORBIDDEN", 19: "SQL",
    20: "MISUSE", 21: "STOPPED", 22: "TXN_LOST", 23: "CONFIG", 24: "CANCELLED", 25: "EXPIRED",
    26: "ROWS_LOST",
}

Frame = collections.namedtuple("Frame", "type stream request body")
Result = collections.namedtuple(
    "Result", "rows columns changes last_insert_rowid seq in_transaction")
Description = collections.namedtuple("Description", "used flags params columns")
Pong = collections.namedtuple("Pong", "seq leader_id serves")
# A numbered write: WRITER are 16 random bytes of one session.
Number = collections.namedtuple("Number", "writer number acked since")


class LecternError(Exception):
    """An ERROR answer. `name` is that of the table in section 7."""

    def __init__(self, code, sqlite_code, message, offset=-1, flags=0, seq=0, statement=0):
        self.code = code
        self.name = ERRORS.get(code, "PROTOCOL")
        self.sqlite_code = sqlite_code
        self.message = message
        self.offset = offset
        self.flags = flags
        self.in_transaction = bool(flags & IN_TRANSACTION)
        self.seq = seq
        self.statement = statement
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


def frame(kind, request, body=b"", stream=1):
    return struct.pack("<IBII", len(body) + HEAD - 4, kind, stream, request) + body


def hello(client="lectern_client.py", database="", magic=MAGIC, version=VERSION):
    return frame(HELLO, 0, struct.pack("<IH", magic, version) + put_str(client) + put_str(database),
                 stream=0)


def statement(sql, params=(), keep=0):
    """KEEP with an SQL text: the server remembers it; with "": the text remembered so."""
    if isinstance(params, dict):
        named = list(params.items())
    else:
        named = [("", value) for value in params]
    body = struct.pack("<I", keep) + put_str(sql) + struct.pack("<I", len(named))
    return body + b"".join(put_str(name) + put_value(value) for name, value in named)


def request_frame(kind, request, statements, level="session", bound_ms=0, timeout_ms=0, min_seq=0,
                  flags=0, last_insert_rowid=0, number=None, stream=1):
    """QUERY, BATCH or DESCRIBE; STATEMENTS are made by statement()."""
    flags |= NUMBERED if number is not None else 0
    body = struct.pack("<BHIIQq", LEVELS.get(level, level), flags, bound_ms, timeout_ms, min_seq,
                       last_insert_rowid)
    if number is not None:
        body += number.writer + struct.pack("<QQQ", number.number, number.acked, number.since)
    body += struct.pack("<I", len(statements)) + b"".join(statements)
    return frame(kind, request, body, stream)


def query(request, sql, params=(), keep=0, **options):
    return request_frame(QUERY, request, [statement(sql, params, keep)], **options)


def parse_error(body):
    r = Reader(body)
    code, sqlite_code, offset, seq, flags, which = (r.unpack(f) for f in "IiiQBI")
    message = r.str()
    r.end()
    return LecternError(code, sqlite_code, message, offset, flags, seq, which)


def parse_description(body):
    r = Reader(body)
    used, flags = r.unpack("I"), r.unpack("B")
    params = [r.str() for _ in range(r.unpack("I"))]
    columns = [(r.str(), r.str()) for _ in range(r.unpack("I"))]
    r.end()
    return Description(used, flags, params, columns)


# --- the client ---


class Connection:
    """The socket, its frames, and who waits for them. Stream 0 is the connection itself."""

    def __init__(self, host, port, socket_timeout):
        self.socket_timeout = socket_timeout
        self.input = bytearray()
        self.waiting = {}                   # frames read for others: stream to deque
        self.pings = 0
        self.kept = 0                       # newest number of a kept statement
        self.node_id = self.cluster_id = self.server = self.sqlite = None
        self.welcome_seq = 0
        try:
            self.sock = socket.create_connection((host, port), timeout=socket_timeout)
        except OSError as e:
            raise ConnectionLost("connect to %s:%d: %s" % (host, port, e), sent=False) from e
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def send_raw(self, data):
        try:
            self.sock.settimeout(self.socket_timeout)
            self.sock.sendall(data)
        except OSError as e:
            raise ConnectionLost("send: %s" % e) from e

    def read_frame(self, timeout=None):
        """The next whole frame of any stream; ConnectionLost at the end or after `timeout` s."""
        end = time.monotonic() + (self.socket_timeout if timeout is None else timeout)
        while True:
            if len(self.input) >= 4:
                length = struct.unpack_from("<I", self.input)[0]
                if length < HEAD - 4 or length > FRAME_MAX:
                    raise BadFrame("a frame of %d bytes" % length)
                if len(self.input) >= 4 + length:
                    kind, stream, request = struct.unpack_from("<BII", self.input, 4)
                    body = bytes(self.input[HEAD:4 + length])
                    del self.input[:4 + length]
                    return Frame(kind, stream, request, body)
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

    def next_of(self, stream, timeout=None):
        """The next frame of STREAM; those of other streams wait. An ERROR of stream 0 is ours."""
        while True:
            waiting = self.waiting.get(stream)
            if waiting:
                return waiting.popleft()
            f = self.read_frame(timeout)
            if f.stream == stream:
                return f
            if f.stream == 0 and f.type == ERROR:
                raise parse_error(f.body)
            self.waiting.setdefault(f.stream, collections.deque()).append(f)

    def read_welcome(self):
        f = self.read_frame()
        if f.type == ERROR:
            raise parse_error(f.body)
        if f.type != WELCOME or f.stream != 0 or f.request != 0:
            raise BadFrame("frame %d instead of WELCOME" % f.type)
        r = Reader(f.body)
        if r.unpack("H") != VERSION:
            raise BadFrame("another version in WELCOME")
        self.node_id, self.cluster_id, self.welcome_seq = (r.unpack("Q") for _ in range(3))
        self.server, self.sqlite = r.str(), r.str()
        r.end()

    def ping(self, timeout=None):
        self.pings = self.pings % 0xFFFFFFFF + 1
        self.send_raw(frame(PING, self.pings, stream=0))
        f = self.next_of(0, timeout)
        if f.type != PONG or f.request != self.pings:
            raise BadFrame("frame %d instead of PONG" % f.type)
        r = Reader(f.body)
        pong = Pong(r.unpack("Q"), r.unpack("Q"), r.unpack("B"))
        r.end()
        return pong


class Stream:
    """One session. It carries what the server does not keep: `seq`, the newest sequence seen,
    `last_insert_rowid`, and whether PRAGMA foreign_keys is off."""

    def __init__(self, connection, number, seq=0):
        self.connection = connection
        self.number = number
        self.seq = seq
        self.request = 0
        self.waiting = collections.deque()  # requests without an answer, oldest first
        self.in_transaction = False
        self.elsewhere = False              # the last request was passed on to another node
        self.foreign_keys = True
        self.last_insert_rowid = 0
        self.taken = 0                      # bytes of ROWS since the last CREDIT
        self.writer = os.urandom(16)
        self.numbers = 0                    # of numbered writes

    # Requests.

    def _send(self, kind, statements, level="session", bound_ms=0, timeout_ms=0, min_seq=None,
              flags=None, last_insert_rowid=None, number=None):
        if min_seq is None:
            min_seq = self.seq if level == "session" else 0
        if flags is None:
            flags = 0 if self.foreign_keys else FOREIGN_KEYS_OFF
        if last_insert_rowid is None:
            last_insert_rowid = self.last_insert_rowid
        self.request = self.request % 0xFFFFFFFF + 1
        self.connection.send_raw(request_frame(
            kind, self.request, statements, level, bound_ms, timeout_ms, min_seq, flags,
            last_insert_rowid, number, self.number))
        self.waiting.append(self.request)
        return self.request

    def begin(self, sql, params=(), keep=0, **options):
        """Sends a QUERY and returns its number; finish() reads its answer. For pipelining."""
        return self._send(QUERY, [statement(sql, params, keep)], **options)

    def begin_batch(self, statements, **options):
        """STATEMENTS: (sql, params) or (sql, params, keep) each. finish_batch() reads it."""
        return self._send(BATCH, [statement(*one) for one in statements], **options)

    def next_number(self):
        """For `number`: the next write of this session, all before it being answered."""
        self.numbers += 1
        return Number(self.writer, self.numbers, self.numbers - 1, self.seq)

    # Answers.

    def _take(self, expected, timeout):
        """The next frame of the answer to EXPECTED; its ERROR is raised."""
        f = self.connection.next_of(self.number, timeout)
        if f.request != expected:
            raise BadFrame("an answer to %d instead of %d" % (f.request, expected))
        if f.type == ERROR:
            error = parse_error(f.body)
            self._state(error.flags, error.seq)
            raise error
        if f.type == ROWS:
            self.taken += HEAD + len(f.body)
            if self.taken >= WINDOW // 2:
                self.connection.send_raw(credit(self.number, self.taken))
                self.taken = 0
        return f

    def _state(self, flags, seq):
        self.in_transaction = bool(flags & IN_TRANSACTION)
        self.elsewhere = bool(flags & ELSEWHERE)
        self.foreign_keys = not flags & NO_FOREIGN_KEYS
        self.seq = max(self.seq, seq)

    def _done(self, body):
        r = Reader(body)
        seq, changes, rowid, flags = r.unpack("Q"), r.unpack("q"), r.unpack("q"), r.unpack("B")
        r.end()
        self._state(flags, seq)
        self.last_insert_rowid = rowid
        return seq, changes, rowid

    def _oldest(self, request):
        expected = self.waiting.popleft()
        if request is not None and request != expected:
            raise AssertionError("answers come in order: %d before %d" % (expected, request))
        return expected

    def _part(self, f, columns, rows):
        """COLUMNS or ROWS of a result."""
        r = Reader(f.body)
        if f.type == COLUMNS and not columns:
            columns += [(r.str(), r.str()) for _ in range(r.unpack("I"))]
            if not columns:
                raise BadFrame("COLUMNS without a column")
        elif f.type == ROWS and columns:
            for _ in range(r.unpack("I")):
                rows.append(tuple([r.value() for _ in columns]))
        else:
            raise BadFrame("frame %d in the middle of an answer" % f.type)
        r.end()

    def finish(self, request=None, timeout=None):
        """Reads the answer of the oldest request (which must be `request` when given)."""
        expected = self._oldest(request)
        columns, rows = [], []
        while True:
            f = self._take(expected, timeout)
            if f.type == DONE:
                seq, changes, rowid = self._done(f.body)
                return Result(rows, [name for name, _ in columns], changes, rowid, seq,
                              self.in_transaction)
            self._part(f, columns, rows)

    def finish_batch(self, request=None, timeout=None):
        """One Result for each statement."""
        expected = self._oldest(request)
        results, columns, rows = [], [], []
        while True:
            f = self._take(expected, timeout)
            if f.type == STEP:
                r = Reader(f.body)
                changes, rowid = r.unpack("q"), r.unpack("q")
                r.end()
                results.append(([name for name, _ in columns], rows, changes, rowid))
                columns, rows = [], []
            elif f.type == DONE:
                if columns or rows:
                    raise BadFrame("DONE in the middle of a statement's answer")
                seq = self._done(f.body)[0]
                return [Result(got, names, changes, rowid, seq, self.in_transaction)
                        for names, got, changes, rowid in results]
            else:
                self._part(f, columns, rows)

    # Both in one.

    def query(self, sql, params=(), **options):
        return self.finish(self.begin(sql, params, **options))

    def batch(self, statements, **options):
        return self.finish_batch(self.begin_batch(statements, **options))

    def describe(self, sql, **options):
        request = self._oldest(self._send(DESCRIBE, [statement(sql)], **options))
        f = self._take(request, None)
        if f.type != DESCRIPTION:
            raise BadFrame("frame %d instead of DESCRIPTION" % f.type)
        return parse_description(f.body)

    def status(self):
        """One dict for each node."""
        self.request = self.request % 0xFFFFFFFF + 1
        self.connection.send_raw(frame(STATUS, self.request, stream=self.number))
        self.waiting.append(self.request)
        kept = self.last_insert_rowid
        result = self.finish(self.request)
        self.last_insert_rowid = kept
        return [dict(zip(result.columns, row)) for row in result.rows]

    def cancel(self, request=None):
        """Asks to end a request (the newest one); its answer is read as usual."""
        self.connection.send_raw(frame(CANCEL, self.request if request is None else request,
                                       stream=self.number))

    def close_stream(self):
        """Its number may not be used again before the connection ends."""
        self.connection.send_raw(frame(CLOSE, 0, stream=self.number))


def credit(stream, n):
    return frame(CREDIT, 0, struct.pack("<I", n), stream)


def forget(keep):
    return frame(FORGET, 0, struct.pack("<I", keep), stream=0)


class Client(Stream):
    """A connection and its stream 1."""

    def __init__(self, host="127.0.0.1", port=7701, socket_timeout=30.0, seq=0, handshake=True,
                 client="lectern_client.py"):
        super().__init__(Connection(host, port, socket_timeout), 1, seq)
        self.streams = 1
        self.sock = self.connection.sock
        if handshake:
            try:
                self.send_raw(hello(client))
                self.connection.read_welcome()
            except BaseException:
                self.close()
                raise

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.sock.close()

    def __getattr__(self, name):
        """socket_timeout, node_id, cluster_id, server, sqlite."""
        if name == "connection":
            raise AttributeError(name)
        return getattr(self.connection, name)

    def stream(self):
        """Another session on this connection; `seq` is passed on."""
        self.streams += 1
        return Stream(self.connection, self.streams, self.seq)

    def keep(self):
        """A new number for a kept statement."""
        self.connection.kept += 1
        return self.connection.kept

    def forget(self, keep):
        self.send_raw(forget(keep))

    # Bytes and frames; also for hostile tests.

    def send_raw(self, data):
        self.connection.send_raw(data)

    def shutdown_write(self):
        self.sock.shutdown(socket.SHUT_WR)

    def read_frame(self, timeout=None):
        return self.connection.read_frame(timeout)

    def at_end(self, timeout=None):
        """True when the server closed without another byte; False when something else came."""
        try:
            self.sock.settimeout(self.socket_timeout if timeout is None else timeout)
            return not self.connection.input and self.sock.recv(1) == b""
        except ConnectionResetError:
            return True
        except socket.timeout:
            return False


def test_codecs():
    example = bytes.fromhex("19000000 01 00000000 00000000 4c43544e 0200"
                            "020000006d65 00000000")
    assert hello("me") == example, hello("me").hex()
    number = Number(b"w" * 16, 3, 2, 8)
    example = bytes.fromhex(
        "63000000 02 07000000 01000000 02 0400 00000000 e8030000 0900000000000000 0500000000000000"
        "77777777777777777777777777777777 0300000000000000 0200000000000000 0800000000000000"
        "01000000 04000000 02000000 513f 01000000 00000000 00")
    got = query(1, "Q?", (None,), keep=4, timeout_ms=1000, min_seq=9, last_insert_rowid=5,
                number=number, stream=7)
    assert got == example, got.hex()
    assert credit(7, 5) == bytes.fromhex("0d000000 08 07000000 00000000 05000000")
    assert forget(5) == bytes.fromhex("0d000000 0a 00000000 00000000 05000000")
    error = parse_error(bytes.fromhex("19000000 ffffffff 02000000 0300000000000000 05 04000000"
                                      "03000000") + b"why")
    assert (error.name, error.sqlite_code, error.offset, error.seq, error.flags, error.statement,
            error.message) == ("EXPIRED", -1, 2, 3, 5, 4, "why")
    description = parse_description(bytes.fromhex("09000000 01 01000000 02000000 3a61 01000000"
                                                  "01000000 62 00000000"))
    assert description == Description(9, READONLY, [":a"], [("b", "")]), description
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
