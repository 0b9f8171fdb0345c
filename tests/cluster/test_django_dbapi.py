"""client/python's DB-API: on a node, and against scripted nodes that break off where they like."""

import contextlib
import datetime
import decimal
import json
import os
import socket
import sys
import threading
import time
import uuid

from tests.lib.cluster import ROOT, Cluster, case, expect, expect_equal, free_port

sys.path.insert(0, os.path.join(ROOT, "client", "python"))
import lectern  # noqa: E402  pylint: disable=wrong-import-position


def fails(kind, action, says=""):
    """The exception of exactly the class KIND that ACTION must raise."""
    try:
        result = action()
    except lectern.Error as e:
        expect(type(e) is kind and says in str(e), f"wanted {kind.__name__} {says!r}, got {e!r}")
        return e
    raise AssertionError(f"wanted {kind.__name__}, got {result!r}")


def url(node):
    return f"http://127.0.0.1:{node.http_port}"


@case(seconds=60)
def test_dbapi_values_and_errors():
    with Cluster(1, http=True) as c:
        with lectern.connect(url(c.node(1)), isolation_level=None, detect_types=3) as db:
            values = [None, 0, -2 ** 63, 2 ** 63 - 1, 1.5, -1e-300, float("inf"), float("-inf"), "",
                      "ä☃𝄞\0\n\"", b"", bytes(range(256))]
            marks = ", ".join("?" for _ in values)
            expect_equal(db.execute(f"SELECT {marks}", values).fetchone(), tuple(values), "values")
            adapted = [True, decimal.Decimal("1.50"), datetime.date(2001, 2, 3),
                       datetime.datetime(2001, 2, 3, 4, 5, 6, 7), uuid.UUID(int=5),
                       memoryview(b"ab"), float("nan")]
            expect_equal(db.execute("SELECT ?, ?, ?, ?, ?, ?, ?", adapted).fetchone(),
                         (1, "1.50", "2001-02-03", "2001-02-03 04:05:06.000007", "0" * 31 + "5",
                          b"ab", None), "adapted")
            expect_equal(db.execute("SELECT :a, :b", {"b": 2, "c": 3, "a": 1}).fetchone(), (1, 2),
                         "names")
            db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, b bool, d date, s timestamp, "
                       "u varchar(9) UNIQUE)")
            cursor = db.execute("INSERT INTO t(b, d, s, u) VALUES (?, ?, ?, 'x')", adapted[:1] +
                                adapted[2:4])
            expect_equal((cursor.lastrowid, cursor.rowcount), (1, 1), "of an INSERT")
            cursor = db.execute("SELECT b, d, s, id AS 'when [date]' FROM t WHERE b IS NULL "
                                "UNION ALL SELECT b, d, s, NULL FROM t")
            expect_equal([d[0] for d in cursor.description], ["b", "d", "s", "when"], "names")
            expect_equal(cursor.fetchall(), [(True, *adapted[2:4], None)], "converted")
            expect_equal(cursor.rowcount, -1, "rowcount of a SELECT")
            expect_equal(db.execute("UPDATE t SET b = 0 WHERE id > 5").rowcount, 0, "no row")
            fails(lectern.IntegrityError, lambda: db.execute("INSERT INTO t(u) VALUES ('x')"),
                  "UNIQUE constraint failed: t.u")
            fails(lectern.OperationalError, lambda: db.execute("SELECT * FROM nowhere"),
                  "no such table: nowhere")
            fails(lectern.ProgrammingError, lambda: db.execute("SELECT ?", [1, 2]))
            fails(lectern.ProgrammingError, lambda: db.execute("SELECT ?"))
            fails(lectern.ProgrammingError, lambda: db.execute("SELECT :a", {"b": 1}))
            fails(lectern.ProgrammingError, lambda: db.execute("SELECT ?", [object()]))
            fails(lectern.ProgrammingError, lambda: db.executemany("SELECT ?", [(1,)]))
        closed = lectern.connect(url(c.node(1)))
        closed.close()
        fails(lectern.ProgrammingError, lambda: closed.execute("SELECT 1"))


@case(seconds=60)
def test_dbapi_transactions():
    with Cluster(1, http=True) as c:
        db = lectern.connect(url(c.node(1)))
        other = lectern.connect(url(c.node(1)), isolation_level=None)
        db.execute("CREATE TABLE t(a UNIQUE)")
        expect_equal(db.in_transaction, False, "after DDL")
        db.execute("INSERT INTO t VALUES (1)")
        expect_equal((db.in_transaction, other.execute("SELECT * FROM t").fetchall()), (True, []),
                     "begun unasked, not seen elsewhere")
        db.rollback()
        with db:
            db.execute("INSERT INTO t VALUES (2)")
        with contextlib.suppress(lectern.IntegrityError), db:
            db.execute("INSERT INTO t VALUES (3)")
            db.execute("INSERT INTO t VALUES (2)")
        expect_equal(other.execute("SELECT * FROM t").fetchall(), [(2,)], "committed")
        db.execute("INSERT INTO t VALUES (4)")
        db.isolation_level = None
        expect_equal(db.in_transaction, False, "isolation_level = None commits")
        fails(lectern.IntegrityError,
              lambda: db.executemany("INSERT INTO t VALUES (?)", [(5,), (6,), (4,)]))
        expect_equal(db.execute("SELECT count(*) FROM t").fetchone(), (2,), "all or none")
        many = db.executemany("INSERT INTO t VALUES (?)", ((i,) for i in range(100, 1350)))
        expect_equal(many.rowcount, 1250, "rows of executemany")
        db.execute("BEGIN")
        db.execute("SAVEPOINT s")
        db.executemany("DELETE FROM t WHERE a = ?", [(2,), (4,)])
        db.execute("ROLLBACK TO s")
        expect_equal(db.in_transaction, True, "after ROLLBACK TO")
        db.execute("PRAGMA foreign_keys = OFF")
        expect_equal(db.execute("PRAGMA foreign_keys").fetchone(), (1,), "not in a transaction")
        db.commit()
        db.execute("PRAGMA foreign_keys = OFF")
        expect_equal(db.execute("PRAGMA foreign_keys").fetchone(), (0,), "outside of one")
        expect_equal(other.execute("PRAGMA foreign_keys").fetchone(), (1,), "of another")
        db.executescript("CREATE TABLE u(a); INSERT INTO u VALUES (1); INSERT INTO u VALUES (2);")
        expect_equal(db.execute("SELECT count(*) FROM u").fetchone(), (2,), "of a script")
        db.execute("BEGIN")
        db.execute("DELETE FROM u")
        db.close()
        expect_equal(other.execute("SELECT count(*) FROM u").fetchone(), (2,), "close rolls back")
        other.close()


@case(seconds=60)
def test_dbapi_threads():
    """Threads, each with a connection to another node first, read and raise one number."""
    with Cluster(3, http=True) as c:
        urls = [url(n) for n in c.nodes]
        db = lectern.connect(urls, isolation_level=None)
        db.execute("CREATE TABLE t(a)")
        db.execute("INSERT INTO t VALUES (0)")

        def raise_it(begin, first, done, failed):
            own = lectern.connect(urls[first:] + urls[:first], isolation_level=None)
            for _ in range(15):
                try:
                    own.execute(begin)
                    value, = own.execute("SELECT a FROM t").fetchone()
                    own.execute("UPDATE t SET a = ?", (value + 1,))
                    own.commit()
                    done.append(value)
                except lectern.Error as e:
                    failed.append(e)
                    own.rollback()
            own.close()
        for begin in ("BEGIN IMMEDIATE", "BEGIN"):
            done, failed = [], []
            db.execute("UPDATE t SET a = 0")
            threads = [threading.Thread(target=raise_it, args=(begin, i % 3, done, failed))
                       for i in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            expect_equal(sorted(done), list(range(len(done))), f"{begin}: each value once")
            expect_equal(len(done) + len(failed), 90, f"{begin}: all were tried")
            expect(all(e.code == "SQLITE_BUSY" for e in failed), f"{begin}: {failed}")
            if begin == "BEGIN IMMEDIATE":
                expect_equal(failed, [], "failed though they waited for the writer")
        db.close()


NUMBERS = ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
           "SELECT i FROM n")


@case(seconds=60)
def test_dbapi_streams_what_is_large():
    """Answers over http-answer-bytes: rows come while they are fetched, beside other statements."""
    with Cluster(1, http=True, http_answer_bytes="64KiB") as c:
        db = lectern.connect(url(c.node(1)), isolation_level=None)
        db.execute("CREATE TABLE t(a)")
        for inside in (False, True):
            if inside:
                db.execute("BEGIN")
                db.execute("INSERT INTO t VALUES (1)")
            rows = db.execute(NUMBERS)
            expect_equal((rows.description[0][0], rows.fetchmany(2)), ("i", [(1,), (2,)]), "begin")
            expect_equal(db.execute("SELECT 7").fetchall(), [(7,)], "a statement beside it")
            expect_equal([i for i, in rows], list(range(3, 20001)), "the rest")
            left = db.execute(NUMBERS)
            left.fetchone()
            left.close()
            expect_equal(db.execute("SELECT count(*) FROM t").fetchone(), (int(inside),), "after")
            two = [db.execute(NUMBERS), db.execute(NUMBERS + " ORDER BY i DESC")]
            expect_equal([[next(r)[0] for r in two], [sum(1 for _ in r) for r in two]],
                         [[1, 20000], [19999, 19999]], "two at once")
        db.commit()
        broken = NUMBERS.replace("SELECT i FROM", "SELECT CASE WHEN i = 15000 THEN "
                                 "abs(-9223372036854775807 - 1) ELSE i END FROM")
        fails(lectern.OperationalError, lambda: db.execute(broken).fetchall(), "integer overflow")
        fails(lectern.DataError, lambda: db.execute(
            "INSERT INTO t SELECT printf('%09000d', value) FROM json_each('[1,2,3,4,5,6,7,8]') "
            "RETURNING a"))
        expect_equal(db.execute("SELECT count(*) FROM t").fetchone(), (9,), "not repeated")
        pid = os.fork()  # the child makes its own connection, and leaves the parent's alone
        if pid == 0:
            status = 1
            with contextlib.suppress(BaseException):
                status = 0 if db.execute("SELECT 8").fetchone() == (8,) else 2
            os._exit(status)
        expect_equal(os.waitpid(pid, 0)[1], 0, "status of the child")
        expect_equal(db.execute("SELECT 9").fetchone(), (9,), "after a fork")
        db.close()


# --- scripted nodes -------------------------------------------------------------------------------

OK, NOT_READ, BUSY, DIE, LATE = "ok", "not read", "busy", "die", "late"
LOST, FULL, STRANGER = "lost", "full", "stranger"


class Scripted:
    """A node that does with each request what its script says, and notes the SQL of all."""

    def __init__(self, *script):
        self.script, self.heard = list(script), []
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
        length = int(head.lower().split(b"content-length:")[1].split()[0])
        request = json.loads(file.read(length))
        todo = self.script.pop(0) if self.script else OK
        sql = request["requests"][0].get("stmt", {}).get("sql", "")
        self.heard.append(sql)
        if todo == DIE:
            return False
        if todo == LATE:
            time.sleep(60)
        status, body = self.answer(todo, sql, request)
        body = json.dumps(body).encode()
        connection.sendall(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
                           + body)
        return True

    def answer(self, todo, sql, request):
        if todo == FULL:
            return 503, {"code": "BUSY", "message": "no room"}
        if todo == STRANGER:
            return 400, {"code": "BATON_INVALID", "message": "not of this cluster"}
        failed = {BUSY: "SQLITE_BUSY", LOST: "TRANSACTION_CLOSED"}.get(todo)
        if todo == LOST or sql in ("COMMIT", "ROLLBACK"):
            self.in_transaction = False
        elif sql.startswith("BEGIN") and failed is None:
            self.in_transaction = True
        result = {"cols": [], "rows": [], "affected_row_count": 1, "last_insert_rowid": None}
        first = ({"type": "error", "error": {"code": failed, "message": "so it is"}} if failed else
                 {"type": "ok", "response": {"type": "execute", "result": result}})
        state = {"type": "get_autocommit", "is_autocommit": not self.in_transaction}
        return 200, {"baton": f"b{len(self.heard)}" if request else None, "base_url": None,
                     "results": [first, {"type": "ok", "response": state}]}


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

    for refusal in (BUSY, FULL, STRANGER):
        a, b = Scripted(OK, refusal), Scripted()
        db = connect(a, b)
        db.execute(read)
        db.execute(write)
        expect_equal(a.heard.count(write) + b.heard.count(write), 2, f"{refusal}: again")

    a, gone = Scripted(), Nobody()
    connect(gone, a).execute(write)
    expect_equal(a.heard, [write], "nobody listens there")
    fails(lectern.OperationalError, lambda: connect(gone, timeout=0.3).execute(write),
          "no node answered within 0.3 s")

    a = Scripted(*[BUSY] * 1000)
    began = time.monotonic()
    e = fails(lectern.OperationalError, lambda: connect(a, timeout=0.4).execute(write))
    expect(e.code == "SQLITE_BUSY" and 2 < len(a.heard) < 30 and time.monotonic() - began < 5,
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
