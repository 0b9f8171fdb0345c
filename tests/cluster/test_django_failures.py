"""client/python against scripted nodes, which break off, refuse and are silent where they like."""

import contextlib
import http.client
import json
import socket
import threading
import time
from unittest import mock

from tests.lib.cluster import Cluster, case, expect, expect_equal, free_port
from tests.lib.dbapi import fails, lectern


OK, BUSY, DIE, LATE, IOERR, BIG = "ok", "busy", "die", "late", "ioerr", "big"
LOST, FULL, CROWDED, STOPS = "lost", "full", "crowded", "stops"
STRANGER, MOVED = "stranger", "moved"
REFUSALS = {FULL: "BUSY", CROWDED: "SQLITE_BUSY", STOPS: "STOPPED"}  # 503: nothing was run
CODES = {BUSY: "SQLITE_BUSY", LOST: "TRANSACTION_CLOSED", IOERR: "SQLITE_IOERR",
         BIG: "RESPONSE_TOO_LARGE"}


def first_type(request):
    return request["requests"][0]["type"]


class Scripted:
    """A node that does with each request what its script says, and notes the SQL of all. LATE is it
    after so many seconds."""

    def __init__(self, *script, lives=True, late=60.0):
        self.script, self.heard, self.lives, self.late = list(script), [], lives, late
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.in_transaction = False
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with connection, contextlib.suppress(OSError, ValueError), \
                connection.makefile("rb") as file:
            while self.one(connection, file):
                pass

    def one(self, connection, file):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = file.readline()
            if not line:
                return False
            head += line
        if head.startswith(b"GET /livez "):
            if self.lives:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            else:
                time.sleep(60)
            return False
        length = int(head.lower().split(b"content-length:")[1].split()[0])
        request = json.loads(file.read(length))
        todo = self.script.pop(0) if self.script else OK
        first = (request["requests"] if "requests" in request else request["batch"]["steps"])[0]
        sql = first.get("stmt", first).get("sql", first.get("type"))
        self.heard.append(sql)
        if todo == DIE:
            return False
        if todo == LATE:
            time.sleep(self.late)
        status, body = self.answer(todo, sql, request)
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.sendall(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
                           + body)
        return True

    def answer(self, todo, sql, request):
        if todo in REFUSALS:
            return 503, {"code": REFUSALS[todo], "message": "no room"}
        if todo == MOVED:
            return 301, {"message": "over there"}
        if todo == STRANGER:
            return 400, {"code": "BATON_INVALID", "message": "not of this cluster"}
        failed = CODES.get(todo)
        if "batch" in request:  # of POST /v3/cursor
            error = {"code": failed or "SQLITE_ERROR", "message": "so it is"}
            return 200, b"".join(json.dumps(line).encode() + b"\n" for line in (
                {"baton": f"b{len(self.heard)}", "base_url": None},
                {"type": "step_error", "step": 0, "error": error}))
        if todo in (LOST, IOERR) or sql in ("COMMIT", "ROLLBACK"):
            self.in_transaction = False
        elif sql.startswith(("BEGIN", "SAVEPOINT")) and failed is None:
            self.in_transaction = True
        if first_type(request) == "describe":
            return self.result({"type": "describe", "result": {"is_readonly": True}})
        result = {"cols": [], "rows": [], "affected_row_count": 1, "last_insert_rowid": None}
        first = ({"type": "error", "error": {"code": failed, "message": "so it is"}} if failed else
                 {"type": "ok", "response": {"type": "execute", "result": result}})
        return self.result(None, first)

    def result(self, response, first=None):
        state = {"type": "get_autocommit", "is_autocommit": not self.in_transaction}
        return 200, {"baton": f"b{len(self.heard)}", "base_url": None,
                     "results": [first or {"type": "ok", "response": response},
                                 {"type": "ok", "response": state}]}


class Nobody:
    def __init__(self):
        self.url = f"http://127.0.0.1:{free_port()}"


def connect(*nodes, timeout=5.0):
    return lectern.connect([n.url for n in nodes], isolation_level=None, timeout=timeout)


@case(seconds=60)
def test_dbapi_sends_again_only_what_was_not_run():
    read, write = "SELECT 1", "INSERT INTO t VALUES (1)"
    a, b = Scripted(DIE), Scripted()
    connect(a, b).execute(read)
    expect_equal((a.heard, b.heard), ([read], [read]), "a read goes to the next node")

    a, b = Scripted(DIE), Scripted()
    db = connect(a, b)
    fails(lectern.UnknownOutcome, lambda: db.execute(write), "not known")
    expect_equal((a.heard, b.heard), ([write], []), "a write is sent once")
    db.execute(write)
    expect_equal((a.heard, b.heard), ([write], [write]), "the next one goes elsewhere")

    for refusal in (BUSY, FULL, CROWDED, STOPS, STRANGER):
        a, b = Scripted(OK, refusal), Scripted()
        db = connect(a, b)
        db.execute(read)
        db.execute(write)
        expect_equal(a.heard.count(write) + b.heard.count(write), 2, f"{refusal}: again")

    a, b = Scripted(MOVED), Scripted()
    fails(lectern.OperationalError, lambda: connect(a, b).execute(write), "over there")
    expect_equal((a.heard, b.heard), ([write], []), "not run, and no use elsewhere")

    a, gone = Scripted(), Nobody()
    connect(gone, a).execute(write)
    expect_equal(a.heard, [write], "nobody listens there")
    fails(lectern.OperationalError, lambda: connect(gone, timeout=0.3).execute(write),
          "no node took it within 0.3 s")

    a = Scripted(*[BUSY] * 1000)
    began = time.monotonic()
    e = fails(lectern.OperationalError, lambda: connect(a, timeout=2.0).execute(write))
    expect(e.code == "SQLITE_BUSY" and 2 < len(a.heard) < 30 and time.monotonic() - began < 20,
           f"{e!r} after {len(a.heard)} tries")


@case(seconds=60)
def test_dbapi_transaction_that_is_lost():
    write = "INSERT INTO t VALUES (1)"
    for script in ((OK, OK, DIE), (OK, OK, LOST)):
        a, b = Scripted(*script), Scripted()
        db = connect(a, b)
        db.execute("BEGIN")
        db.execute(write)
        fails(lectern.TransactionLost, lambda d=db: d.execute(write))
        before = len(a.heard) + len(b.heard)
        fails(lectern.TransactionLost, lambda d=db: d.execute(write))
        fails(lectern.TransactionLost, lambda d=db: d.executemany(write, [()]))
        fails(lectern.TransactionLost, lambda d=db: d.execute("ROLLBACK TO s"))
        expect_equal(len(a.heard) + len(b.heard), before, "nothing runs outside of it")
        db.rollback()
        expect_equal(db.in_transaction, False, "rolled back")
        db.execute(write)

    a, b = Scripted(OK, OK, DIE), Scripted()
    db = connect(a, b)
    db.execute("BEGIN")
    db.execute(write)
    fails(lectern.UnknownOutcome, db.commit, "whether the transaction was committed")
    expect_equal((a.heard[-1], b.heard, db.in_transaction), ("COMMIT", [], False), "sent once")

    a, b = Scripted(DIE), Scripted()
    connect(a, b).execute("BEGIN")
    expect_equal((a.heard, b.heard), (["BEGIN"], ["BEGIN"]), "BEGIN may be sent again")

    a, b = Scripted(OK, OK, LOST), Scripted()
    db = connect(a, b)
    db.execute("BEGIN")
    db.execute(write)
    fails(lectern.TransactionLost, db.commit)
    expect_equal(db.in_transaction, False, "after a COMMIT that says that it is lost")
    db.execute(write)


@case(seconds=60)
def test_dbapi_transaction_at_a_node_that_has_no_room():
    """What the node refused was not run, and its transaction stays."""
    write = "INSERT INTO t VALUES (1)"
    for refusal in (FULL, CROWDED):
        a, b = Scripted(OK, OK, refusal, refusal, OK, refusal), Scripted()
        db = connect(a, b)
        db.execute("BEGIN")
        db.execute(write)
        db.execute(write)
        db.commit()
        expect_equal((a.heard, b.heard), (["BEGIN", *[write] * 4, "COMMIT", "COMMIT"], []),
                     f"{refusal}: again, at the same node")

        a, b = Scripted(OK, *[refusal] * 1000), Scripted()
        db = connect(a, b, timeout=0.3)
        db.execute("BEGIN")
        for action in (lambda d=db: d.execute(write), db.commit):
            e = fails(lectern.OperationalError, action, "no room")
            expect_equal((e.code, db.in_transaction), ("SQLITE_BUSY", True), "it is still open")
        a.script = []
        db.execute(write)
        db.commit()
        expect_equal((a.heard[-2:], b.heard), ([write, "COMMIT"], []), "it goes on")

        db = connect(Scripted(OK, BIG, OK, refusal), Scripted())
        db.execute("BEGIN")
        fails(lectern.OperationalError, lambda d=db: d.execute("SELECT 1"), "no room")
        db.execute(write)
        db.commit()

    for end in ("COMMIT", write):  # a node that stops takes its transactions with it
        db = connect(Scripted(OK, OK, STOPS), Scripted())
        db.execute("BEGIN")
        db.execute(write)
        fails(lectern.TransactionLost, lambda d=db, sql=end: d.execute(sql), "no room")


@case(short=True)
def test_dbapi_transaction_while_connections_are_refused():
    with Cluster(1, http=True, http_connections=1) as c:
        port = c.node(1).http_port
        db = lectern.connect(f"http://127.0.0.1:{port}", timeout=20)
        db.execute("CREATE TABLE t(a)")
        db.execute("INSERT INTO t VALUES (1)")
        db._door.close()  # pylint: disable=protected-access
        guest = http.client.HTTPConnection("127.0.0.1", port)

        def takes_the_place():
            try:
                guest.request("GET", "/v2")
                answer = guest.getresponse()
                answer.read()
            except OSError:  # refused, and closed before it was asked
                guest.close()
                return False
            return answer.status == 200
        c.wait(takes_the_place, "the only connection is the guest's")
        began = time.monotonic()
        timer = threading.Timer(1, guest.close)
        timer.start()
        db.execute("INSERT INTO t VALUES (2)")
        expect(time.monotonic() - began > 0.9, "it was refused as long as the guest stayed")
        db.commit()
        db.close()
        expect_equal(c.client().query("SELECT a FROM t").rows, [(1,), (2,)], "one transaction")


@case(seconds=60)
def test_dbapi_what_the_server_does_not_know():
    """SQLITE_IOERR: perhaps it was done. And scripts, of which a part may have been."""
    read, write = "SELECT 1", "INSERT INTO t VALUES (1)"
    a, b = Scripted(IOERR), Scripted()
    db = connect(a, b)
    e = fails(lectern.UnknownOutcome, lambda: db.execute(write), "so it is")
    expect_equal((e.code, a.heard, b.heard), ("SQLITE_IOERR", [write], []), "sent once")
    a, b = Scripted(IOERR), Scripted()
    connect(a, b).execute(read)
    expect_equal((a.heard, b.heard), ([read], [read]), "a read may be sent again")
    a = Scripted(BUSY)
    fails(lectern.OperationalError, lambda: connect(a).executescript(write + ";" + write))
    expect_equal(len(a.heard), 1, "a script is sent once")

    for begin, end, kind in (("BEGIN", "COMMIT", lectern.UnknownOutcome),
                             ("BEGIN", write, lectern.TransactionLost),
                             ("BEGIN", read, lectern.OperationalError)):
        a = Scripted(OK, OK, IOERR)
        db = connect(a)
        db.execute(begin)
        db.execute(write)
        fails(kind, lambda d=db, sql=end: d.execute(sql))
        if end != "COMMIT":
            fails(lectern.TransactionLost, lambda d=db: d.execute(write))
            expect_equal(len(a.heard), 3, "nothing runs outside of it")
            db.rollback()
        db.execute(write)


@case(seconds=60)
def test_dbapi_ends_of_transactions():
    """SAVEPOINT ... RELEASE is one, too; what shall be rolled back and is gone is rolled back."""
    write = "INSERT INTO t VALUES (1)"
    for begin, kind in (("SAVEPOINT s", lectern.UnknownOutcome),
                        ("BEGIN", lectern.TransactionLost)):
        db = connect(Scripted(OK, OK, DIE), Scripted())
        db.execute(begin)
        db.execute(write)
        fails(kind, lambda d=db: d.execute("RELEASE s"))
    for end in (DIE, LOST, IOERR):
        a, b = Scripted(OK, OK, end), Scripted()
        db = connect(a, b)
        db.execute("BEGIN")
        db.execute(write)
        db.rollback()
        expect_equal((db.in_transaction, a.heard[-1], b.heard), (False, "ROLLBACK", []), end)
        db.execute(write)
    for end in (DIE, LOST, STRANGER, FULL):
        a = Scripted(OK, OK, end)
        db = connect(a)
        db.execute("BEGIN")
        db.execute(write)
        db.close()
        fails(lectern.ProgrammingError, lambda d=db: d.execute(write), "closed")
        expect_equal(a.heard[2:], ["close"], end)
    # A statement that runs, is too large to be sent in one piece, and then fails as a cursor.
    a = Scripted(OK, BIG, OK, OK)
    db = connect(a)
    db.execute("BEGIN")
    fails(lectern.OperationalError, lambda: db.execute("SELECT 1"), "so it is")
    expect_equal((db.in_transaction, db._baton), (True, "b4"),  # pylint: disable=protected-access
                 "the transaction goes on")
    db.execute("ROLLBACK")
    # And one whose rows break off before the first.
    for end in (DIE, STRANGER):
        db = connect(Scripted(OK, OK, BIG, OK, end), Scripted())
        db.execute("BEGIN")
        db.execute(write)
        fails(lectern.TransactionLost, lambda d=db: d.execute("SELECT 1"))
        db.rollback()
        db.execute(write)


@case(seconds=60)
def test_dbapi_nodes_that_are_silent():
    """A paused process keeps its connections open; one that only takes its time tells that it
    lives."""
    with mock.patch("lectern.door.SILENCE_SECONDS", 0.5):
        a, b = Scripted(LATE, lives=False), Scripted()
        began = time.monotonic()
        connect(a, b, timeout=30).execute("SELECT 1")
        expect(time.monotonic() - began < 20, "the other node is asked at once")
        expect_equal(b.heard, ["SELECT 1"], "asked")
        a, b = Scripted(OK, LATE, lives=False), Scripted()
        db = connect(a, b, timeout=30)
        db.execute("BEGIN")
        fails(lectern.TransactionLost, lambda: db.execute("SELECT 1"), "/livez")
        with mock.patch("lectern.door.SILENCE_SECONDS", 2.0):  # also to be told that it lives
            a, b = Scripted(LATE, late=3.0), Scripted()
            connect(a, b, timeout=30).execute("SELECT 1")
        expect_equal((a.heard, b.heard), (["SELECT 1"], []), "it is waited for")
        a = Scripted(*[LATE] * 99)
        began = time.monotonic()
        with mock.patch("lectern.door.GRACE_SECONDS", 0.1):
            fails(lectern.OperationalError, lambda: connect(a, timeout=0.5).execute("SELECT 1"))
        expect(time.monotonic() - began < 20, "but not for longer than its time")
