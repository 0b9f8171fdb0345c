"""client/python's DB-API: on a node, and against scripted nodes that break off where they like."""

import contextlib
import datetime
import decimal
import enum
import math
import os
import pathlib
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from unittest import mock

from tests.lib.cluster import ROOT, Cluster, case, expect, expect_equal
from tests.lib.dbapi import fails, lectern


class Word(str, enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Real(float):
    def __float__(self):
        return 7.0


def url(node):
    return f"http://127.0.0.1:{node.http_port}"


@case(seconds=60)
def test_dbapi_is_one():
    """What PEP 249 wants of the module, and what is wrong before a node is asked."""
    expect_equal((lectern.apilevel, lectern.threadsafety, lectern.paramstyle), ("2.0", 1, "qmark"),
                 "globals")
    tree = {"Warning": Exception, "Error": Exception, "InterfaceError": lectern.Error,
            "DatabaseError": lectern.Error, "DataError": lectern.DatabaseError,
            "OperationalError": lectern.DatabaseError, "IntegrityError": lectern.DatabaseError,
            "InternalError": lectern.DatabaseError, "ProgrammingError": lectern.DatabaseError,
            "NotSupportedError": lectern.DatabaseError}
    for name, base in tree.items():
        expect_equal(getattr(lectern, name).__bases__, (base,), name)
        expect(getattr(lectern.Connection, name) is getattr(lectern, name), name)
    ticks = time.mktime((2001, 2, 3, 4, 5, 6, 0, 0, -1))
    expect_equal((lectern.DateFromTicks(ticks), lectern.TimeFromTicks(ticks),
                  lectern.TimestampFromTicks(ticks)),
                 (lectern.Date(2001, 2, 3), lectern.Time(4, 5, 6),
                  lectern.Timestamp(2001, 2, 3, 4, 5, 6)), "from ticks")
    for where in ("", "ftp://x", "http://h:99999", "http://h:port", [], "db.sqlite3", "h:8080",
                  b"db.sqlite3", pathlib.Path("/srv/db.sqlite3"), None, 5, {"a"}, "http://",
                  "http://[::1", "http://h?read=any", "http://h#f", "http://a:b@h", [None]):
        fails(lectern.InterfaceError, lambda w=where: lectern.connect(w), "http://HOST:PORT")
    for name, value in (("timeout", "x"), ("timeout", None), ("timeout", 0), ("timeout", 86401),
                        ("connect_timeout", -1), ("connect_timeout", float("inf")),
                        ("read", "bounded:x"), ("read", ""), ("read", "bounded:86400001"),
                        ("headers", {"a b": "c"}), ("headers", {"a": "ä"}), ("headers", ["a"]),
                        ("isolation_level", "SLOW"), ("isolation_level", 1), ("detect_types", 4),
                        ("detect_types", None), ("factory", 1)):
        fails(lectern.InterfaceError,
              lambda n=name, v=value: lectern.connect("http://h", **{n: v}), f"{name} is ")
    try:
        lectern.connect("http://h", tmeout=5)
        raise AssertionError("tmeout was taken")
    except TypeError as e:  # as of every function
        expect("tmeout" in str(e), str(e))
    with lectern.connect(("http://h/", "https://g:1/p"), read="bounded:5", timeout=86400) as db:
        fails(lectern.InterfaceError, lambda: setattr(db, "isolation_level", "SLOW"))
    version = int(re.search(r"LECTERN_VERSION_NUMBER (\d+)", open(  # of the library
        os.path.join(ROOT, "client", "lectern.h"), encoding="ascii").read()).group(1))
    expect_equal(tuple(int(part) for part in lectern.__version__.split(".")),
                 (version // 1000000, version // 1000 % 1000, version % 1000), "version")


@case(seconds=60)
def test_python_package():
    """pip makes a package of client/python, without a network."""
    for python in (sys.executable, "/usr/bin/python3"):
        if subprocess.run([python, "-c", "import setuptools, wheel, pip"], check=False,
                          stderr=subprocess.DEVNULL).returncode == 0:
            break
    else:
        print("skipped: pip, setuptools and wheel are not here")
        return
    with tempfile.TemporaryDirectory() as d:
        shutil.copytree(os.path.join(ROOT, "client", "python"), os.path.join(d, "source"))
        target = os.path.join(d, "target")
        done = subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-build-isolation",
             "--target", target, os.path.join(d, "source")], cwd=d, check=False, text=True,
            capture_output=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
        expect_equal(done.returncode, 0, done.stdout + done.stderr)
        names = sorted(os.listdir(target))
        expect_equal(names, ["lectern", f"lectern-{lectern.__version__}.dist-info"], "installed")

        def files(where):
            return sorted(os.path.relpath(os.path.join(place, name), where)
                          for place, _, found in os.walk(where) for name in found
                          if name.endswith(".py"))
        expect_equal(files(os.path.join(target, "lectern")),
                     files(os.path.join(ROOT, "client", "python", "lectern")), "modules")


def check_rows(db):
    """As rows of sqlite3 itself."""
    own = sqlite3.connect(":memory:")
    sql = "SELECT 1 AS a, 'x' AS B, 2 AS a, 3 AS \"Ä\""
    rows = []
    for connection, kind in ((db, lectern.Row), (own, sqlite3.Row)):
        cursor = connection.cursor()
        cursor.row_factory = kind
        one, same = cursor.execute(sql).fetchone(), cursor.execute(sql).fetchone()
        other = cursor.execute("SELECT 1 AS a").fetchone()
        expect(one == same and hash(one) == hash(same) and one != other and one != tuple(one),
               f"equality of {one}")
        for key, raised in (("c", IndexError), ("ä", IndexError), (4, IndexError),
                            (None, (TypeError, IndexError))):
            try:
                raise AssertionError(f"{kind}: {key!r} is {one[key]!r}")
            except raised:
                pass
        rows.append((one.keys(), tuple(one), len(one), one["A"], one["b"], one["Ä"], one[-1],
                     one[1:3], dict(one)))
    expect_equal(rows[0], rows[1], "a row")
    own.close()


@case(seconds=60)
def test_dbapi_values_and_errors():
    with Cluster(1, http=True) as c:
        with lectern.connect(url(c.node(1)), isolation_level=None, detect_types=3) as db:
            values = [None, 0, -2 ** 63, 2 ** 63 - 1, 1.5, -1e-300, float("inf"), float("-inf"), "",
                      "ä☃𝄞\0\n\"", b"", bytes(range(256))]
            marks = ", ".join("?" for _ in values)
            expect_equal(db.execute(f"SELECT {marks}", values).fetchone(), tuple(values), "values")
            zeros = db.execute("SELECT -0.0, 0.0 * -1, ?, 0.0", [-0.0]).fetchone()
            expect_equal([math.copysign(1, zero) for zero in zeros], [-1, -1, -1, 1], "signs")
            adapted = [True, decimal.Decimal("1.50"), datetime.date(2001, 2, 3),
                       datetime.datetime(2001, 2, 3, 4, 5, 6, 7), uuid.UUID(int=5),
                       memoryview(b"ab"), float("nan")]
            expect_equal(db.execute("SELECT ?, ?, ?, ?, ?, ?, ?", adapted).fetchone(),
                         (1, "1.50", "2001-02-03", "2001-02-03 04:05:06.000007", "0" * 31 + "5",
                          b"ab", None), "adapted")
            expect_equal(db.execute("SELECT ?, ?, ?", [Word.RED, Number.ONE, Real(2.5)]).fetchone(),
                         ("red", 1, 2.5), "what subclasses hold, not how they print")
            expect_equal(db.execute("SELECT :a, :b", {"b": 2, "c": 3, "a": 1}).fetchone(), (1, 2),
                         "names")
            expect_equal(db.execute("SELECT ':a', \"@a\", :b -- $a\n, /* :a */ [:a] FROM (SELECT 5 "
                                    "AS '@a', 6 AS ':a')", {"a": 1, "b": 2}).fetchone(),
                         (":a", 5, 2, 6), "what only looks like a name")
            fails(lectern.ProgrammingError, lambda: db.execute("SELECT ?, ?", {1, 2}))
            fails(lectern.ProgrammingError, lambda: db.execute("SELECT 1\0, 2"))
            for empty in ("", " ;\n", "-- no more", "/* nor here"):
                expect_equal(db.execute(empty).fetchall(), [], repr(empty))
            for raised, value in ((OverflowError, 2 ** 63), (UnicodeEncodeError, "\ud800")):
                try:
                    db.execute("SELECT ?", (value,))
                    raise AssertionError(f"{value!r} was taken")
                except raised:
                    pass
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
            check_rows(db)
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
        native = lectern.connect(f"http://127.0.0.1:{c.node(1).port}")
        fails(lectern.OperationalError, lambda: native.execute("SELECT 1"),
              "this is the port of Lectern's native protocol; HTTP is spoken at the one of")
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
        db.execute("CREATE TABLE child(a REFERENCES t(a) DEFERRABLE INITIALLY DEFERRED)")
        db.execute("PRAGMA foreign_keys = ON")

        def break_constraint():
            with db:
                db.execute("BEGIN")
                db.execute("INSERT INTO child VALUES ('nobody')")
        fails(lectern.IntegrityError, break_constraint, "FOREIGN KEY")
        expect_equal(db.in_transaction, False, "a COMMIT that failed in `with` is rolled back")
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
    with Cluster(3, http=True, election_timeout=3000) as c:
        urls = [url(n) for n in c.nodes]
        db = lectern.connect(urls, isolation_level=None)
        db.execute("CREATE TABLE t(a)")
        db.execute("INSERT INTO t VALUES (0)")

        def raise_it(begin, first, done, failed):
            own = lectern.connect(urls[first:] + urls[:first], isolation_level=None, timeout=60)
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
        # A machine that stands still: its kernel takes connections and requests.
        follower = c.others(c.leader())[0]
        db = lectern.connect([url(follower), url(c.leader())], isolation_level=None)
        wanted = db.execute("SELECT a FROM t").fetchone()
        follower.pause()
        with mock.patch("lectern.door.SILENCE_SECONDS", 0.3):
            began = time.monotonic()
            expect_equal(db.execute("SELECT a FROM t").fetchone(), wanted, "the leader's answer")
            expect(time.monotonic() - began < 10, "at once")
        follower.resume()
        db.close()


NUMBERS = ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
           "SELECT i FROM n")


def in_child(action):
    """The status of a child process that does ACTION."""
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(BaseException):
            action()
            status = 0
        os._exit(status)
    return os.waitpid(pid, 0)[1]


def forked(db, rows):
    """The child makes its own connections, and leaves the parent's and its transaction alone."""
    fails(lectern.OperationalError, rows.fetchall)
    fails(lectern.TransactionLost, lambda: db.execute("INSERT INTO t VALUES (2)"), "forked")
    db.rollback()
    expect_equal(db.execute("SELECT count(*) FROM t").fetchone(), (9,), "not in the transaction")
    db.close()


@case(seconds=60)
def test_dbapi_requests_that_are_large():
    """Over http-body-bytes: many rows are sent in parts; one that is too large is refused, and the
    transaction goes on."""
    with Cluster(1, http=True, http_body_bytes="3MiB") as c:
        db = lectern.connect(url(c.node(1)), isolation_level=None)
        db.execute("CREATE TABLE t(a)")
        db.execute("BEGIN")
        db.executemany("INSERT INTO t VALUES (?)", ((bytes(900000),) for _ in range(8)))
        for size in (4 << 20, 40 << 20):
            fails(lectern.DataError,
                  lambda s=size: db.execute("INSERT INTO t VALUES (?)", ("x" * s,)))
        db.commit()
        expect_equal(db.execute("SELECT count(*), sum(length(a)) FROM t").fetchone(), (8, 7200000),
                     "rows")
        db.close()


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
            long = db.execute("SELECT zeroblob(3000000), 1 UNION ALL SELECT 'x', 2").fetchall()
            expect_equal(([len(row[0]) for row in long], long[1]), ([3000000, 1], ("x", 2)), "long")
            two = [db.execute(NUMBERS), db.execute(NUMBERS + " ORDER BY i DESC")]
            expect_equal([[next(r)[0] for r in two], [sum(1 for _ in r) for r in two]],
                         [[1, 20000], [19999, 19999]], "two at once")
        db.commit()
        # The time of a statement is the server's, not the one that a program has for its rows.
        patient = lectern.connect(url(c.node(1)), timeout=2.0)
        seen = 0
        long = NUMBERS.replace("SELECT i FROM", "SELECT printf('%.1000c', 'x') FROM")
        for _ in patient.execute(long):
            seen += 1
            if seen % 5000 == 0:
                time.sleep(0.7)
        expect_equal(seen, 20000, "rows of a slow program")
        patient.close()
        broken = NUMBERS.replace("SELECT i FROM", "SELECT CASE WHEN i = 15000 THEN "
                                 "abs(-9223372036854775807 - 1) ELSE i END FROM")
        fails(lectern.OperationalError, lambda: db.execute(broken).fetchall(), "integer overflow")
        fails(lectern.DataError, lambda: db.execute(
            "INSERT INTO t SELECT printf('%09000d', value) FROM json_each('[1,2,3,4,5,6,7,8]') "
            "RETURNING a"))
        expect_equal(db.execute("SELECT count(*) FROM t").fetchone(), (9,), "not repeated")
        rows = db.execute(NUMBERS)
        db.execute("BEGIN")
        db.execute("INSERT INTO t VALUES (1)")
        expect_equal(in_child(lambda: forked(db, rows)), 0, "status of the child")
        expect_equal(sum(1 for _ in rows), 20000, "rows of the parent")
        db.commit()  # that the child has not ended
        expect_equal(db.execute("SELECT count(*) FROM t").fetchone(), (10,), "after a fork")
        db.close()
