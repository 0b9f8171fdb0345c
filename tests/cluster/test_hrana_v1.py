"""The forms without streams: /v1/, POST / as it was before Hrana, and the database as text."""

import json
import os
import sqlite3
import subprocess
import tempfile
import time

from tests.lib import chinook
from tests.lib.cluster import Cluster, case, expect, expect_equal, shell
from tests.lib.hrana import Door, arg, atomic, batch, ok, rows_of, stmt


def each_node(c):
    leader = c.leader()
    return [leader, c.others(leader)[0]]


@case(short=True)
def test_v1():
    with Cluster(http=True) as c:
        with Door(c.leader()) as door:
            door.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b UNIQUE)")
        for i, node in enumerate(each_node(c)):
            with Door(node) as door:
                got = door.post("/v1/execute", {"stmt": stmt("INSERT INTO t VALUES (?, ?)", i, b"x",
                                                             want_rows=False)}
                                if i == 0 else {"stmt": {
                                    "sql": "INSERT INTO t VALUES (:a, @b)", "named_args": [
                                        {"name": "a", "value": arg(i)},
                                        {"name": "@b", "value": arg("y")}]}})["result"]
                expect_equal(got["affected_row_count"], 1, "an INSERT")
                got = door.post("/v1/execute", {"stmt": stmt("SELECT count(*) FROM t")})["result"]
                expect_equal(rows_of(got), [(i + 1,)], "it is seen")
                got = door.post("/v1/batch", {"batch": batch(
                    "SELECT 1", "SELECT x", (ok(1), "SELECT 2"), (ok(0), "SELECT 3"))})["result"]
                expect_equal([r and rows_of(r) for r in got["step_results"]],
                             [[(1,)], None, None, [(3,)]], "results")
                expect_equal([e and e["code"] for e in got["step_errors"]],
                             [None, "SQL_INPUT_ERROR", None, None], "errors")
                got = door.post("/v1/batch", {"batch": atomic(
                    stmt("UPDATE t SET b = NULL WHERE a = ?", i))})["result"]
                expect_equal(got["step_errors"], [None] * 4, "an atomic batch")
                # A transaction that is left open is gone.
                door.post("/v1/batch", {"batch": batch("BEGIN", "DELETE FROM t")})
                got = door.post("/v1/execute", {"stmt": stmt("SELECT count(*) FROM t")})["result"]
                expect_equal(rows_of(got), [(i + 1,)], "nothing of it was done")
                for path, body, status, code in (
                        ("/v1/execute", {"stmt": stmt("SELECT x")}, 400, "SQL_INPUT_ERROR"),
                        ("/v1/execute", {"stmt": stmt("INSERT INTO t VALUES (?, 1)", i)}, 400,
                         "SQLITE_CONSTRAINT"),
                        ("/v1/execute", {"stmt": {"sql_id": 1}}, 400, "HRANA_PROTO_ERROR"),
                        ("/v1/execute", {}, 400, "HRANA_PROTO_ERROR"),
                        ("/v1/batch", "{", 400, "HRANA_PROTO_ERROR"),
                        ("/v1/batch", {"batch": {"steps": 1}}, 400, "HRANA_PROTO_ERROR")):
                    error = door.post(path, body, status)
                    expect_equal((error["code"], error["message"]), (code, error["error"]),
                                 f"of {body}")


@case(short=True)
def test_answers_that_are_too_large():
    """400 is what will never do; who is told of 500 does not send it again unseen."""
    large = "zeroblob(90000)"
    with Cluster(1, http=True, http_answer_bytes=100000) as c, Door(c.nodes[0]) as door:
        door.execute("CREATE TABLE t (a)")
        insert = f"INSERT INTO t VALUES (1) RETURNING {large}"
        for path, body, done in (
                ("/v1/execute", {"stmt": stmt(f"SELECT {large}")}, False),
                ("/v1/execute", {"stmt": stmt(insert)}, True),
                ("/v1/batch", {"batch": batch("DELETE FROM t", f"SELECT {large}")}, True),
                ("/v1/batch", {"batch": batch("BEGIN", "INSERT INTO t VALUES (2)",
                                              f"SELECT {large}")}, False),  # rolled back
                ("/", {"statements": [f"SELECT {large}"]}, False),
                ("/", {"statements": [insert, f"SELECT {large}"]}, True)):
            error = door.post(path, body, 500 if done else 400)
            expect_equal((error["code"], error["message"].startswith("it was done, but ")),
                         ("RESPONSE_TOO_LARGE", done), f"of {body}: {error}")
        expect_equal(door.rows("SELECT count(*) FROM t"), [(1,)], "what was done")


@case(short=True)
def test_the_oldest_form():
    with Cluster(http=True) as c:
        with Door(c.leader()) as door:
            door.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
        for i, node in enumerate(each_node(c)):
            with Door(node) as door:
                got = door.post("/", {"statements": [
                    {"q": "INSERT INTO t VALUES (?, ?)", "params": [i, {"base64": "AAE"}]},
                    {"q": "SELECT a, b, :x AS x FROM t WHERE a = :a",
                     "params": {":x": 1.5, ":a": i}}]})
                expect_equal(got[1]["results"], {"columns": ["a", "b", "x"],
                                                 "rows": [[i, {"base64": "AAE"}, 1.5]],
                                                 "rows_written": 0}, "a SELECT")
                expect_equal(got[0]["results"]["rows_written"], 1, "an INSERT")
                got = door.post("/", {"statements": [f"DELETE FROM t WHERE a = {i}", "SELECT y"]})
                expect_equal([list(r or {}) for r in got], [["results"], ["error", "code"]], "keys")
                got = door.post("/", {"statements": [f"SELECT count(*) FROM t WHERE a = {i}"]})
                expect_equal(got[0]["results"]["rows"], [[1]], "all or nothing")
                expect_equal(door.post("/", {"statements": []}), [], "nothing")
                door.post("/", {"statements": 1}, 400)


# --- the database as text -------------------------------------------------------------------------


ODD = '''
CREATE TABLE "odd name'" ("a ""b""" INTEGER PRIMARY KEY AUTOINCREMENT, c AS (d || 'x') STORED, d);
CREATE TABLE "select" (x);
CREATE TABLE empty (a, b);
CREATE TABLE wr (k TEXT PRIMARY KEY, v) WITHOUT ROWID;
CREATE VIRTUAL TABLE words USING fts5(w);
INSERT INTO words VALUES ('some words'), ('other words');
INSERT INTO "odd name'" (d) VALUES ('it''s'), (NULL), (x'00ff'), (1.0), (0.1), (1e300), (-0.0),
    (9e999), (-9e999), (9223372036854775807), (-9223372036854775808), (1e15), (123456789.125),
    (cast(x'610062' AS TEXT)), ('line' || char(10) || 'end'), (char(13, 10) || '\\n \\r'),
    ('caf' || char(233) || char(128512)), (''), (3.14159265358979312), (5e-324);
DELETE FROM "odd name'" WHERE d IS NULL;
INSERT INTO "odd name'" (d) WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 440)
    SELECT (1 + abs(random()) / 1e19) * pow(10, -280 - i % 44) FROM n;
INSERT INTO "select" VALUES ('a'), (zeroblob(3000));
INSERT INTO wr VALUES ('k', 'v');
CREATE INDEX i ON "select" (x) WHERE x IS NOT NULL;
CREATE VIEW v AS SELECT count(*) AS n FROM "select";
CREATE TRIGGER tr AFTER INSERT ON "select" BEGIN UPDATE wr SET v = v || 'fired'; END;
ANALYZE;
'''


def content(db):
    """All there is, in an order that does not depend on how it came."""
    out = {"schema": db.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema "
                                "ORDER BY type, name").fetchall()}
    for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
        quoted = '"' + name.replace('"', '""') + '"'
        columns = [r[1] for r in db.execute(f"PRAGMA table_info({quoted})")]
        values = ", ".join(f'typeof("{x}"), quote("{x}"), hex("{x}")' for x in
                           [x.replace('"', '""') for x in columns])
        out[name] = sorted(map(repr, db.execute(f"SELECT {values} FROM {quoted}").fetchall()))
    return out


def load(text):
    """What the sqlite3 shell makes of it."""
    with tempfile.TemporaryDirectory(prefix="lectern-dump-") as d:
        path = os.path.join(d, "new.db")
        done = subprocess.run(["sqlite3", "-bail", path], input=text, capture_output=True,
                              check=False)
        expect_equal((done.returncode, done.stderr), (0, b""), "sqlite3 reading the dump")
        with sqlite3.connect(path) as db:
            expect_equal(db.execute("PRAGMA integrity_check").fetchall(), [("ok",)], "integrity")
            return content(db)


@case(short=True)
def test_dump_of_odd_things():
    with Cluster(http=True) as c:
        leader = c.leader()
        status, _, complaints = shell(c, ODD)
        expect_equal((status, complaints), (0, ""), "loading")
        c.wait_equal()
        for node in each_node(c):
            with Door(node) as door:
                r = door.ask("GET", "/dump")
                text = r.read()
                expect_equal(r.status, 200, "the status")
                expect_equal(r.getheader("content-type"), "text/plain; charset=utf-8", "the type")
                expect(text.startswith(b"PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n"), "begin")
                expect(text.endswith(b"COMMIT;\n"), "its end")
                r = door.ask("HEAD", "/dump")
                expect_equal((r.status, r.read()), (200, b""), "HEAD")
            with sqlite3.connect(f"file:{node.database}?mode=ro", uri=True) as db:
                wanted = content(db)
            for name, rows in load(text).items():
                expect_equal(rows, wanted.pop(name), f"{name} as {node} tells it")
            expect_equal(wanted, {}, "what is not in the dump")
        own = subprocess.run(["sqlite3", f"file:{leader.database}?mode=ro", ".dump"],
                             capture_output=True, check=True).stdout.split(b"\n")
        ours = text.split(b"\n")
        other = [(a, b) for a, b in zip(own, ours)
                 if a != b and b"INSERT INTO \"odd name" not in a]
        expect_equal((len(own), other), (len(ours), []), "lines that sqlite3's .dump has otherwise")


def dump_by_name(node):
    """No page gets the database by letting its own name point to the node (DNS rebinding)."""
    with Door(node) as door:
        for host, status in (("evil.example:8081", 403), ("localhost.evil.example", 403),
                             ("db1.example:8081", 200), ("db.example", 200),
                             ("localhost:1", 200), ("[::1]:1", 200)):
            r = door.ask("GET", "/dump", headers={"Host": host})
            text = r.read()
            expect_equal((r.status, b"CREATE TABLE" in text), (status, status == 200), host)
            if status == 403:
                expect_equal(json.loads(text)["code"], "FORBIDDEN", host)
                expect(b"http-url" in text, f"what to do: {text}")
        for path in ("/metrics", "/nodes", "/health", "/v2"):
            r = door.ask("GET", path, headers={"Host": "node.example:8081"})
            expect(r.read() is not None and r.status == 200, f"{path} by any name: {r.status}")


@case(short=True)
def test_dump_of_chinook():
    with Cluster(n=1, http=True, http_url="http://db1.example:8081",
                 http_cors="https://db.example") as c:
        node = c.leader()
        status, _, complaints = shell(c, chinook.sql())
        expect_equal((status, complaints), (0, ""), "loading")
        with Door(node) as door:
            text = door.ask("GET", "/dump").read()
        with sqlite3.connect(f"file:{node.database}?mode=ro", uri=True) as db:
            expect_equal(load(text), content(db), "the content")
        own = subprocess.run(["sqlite3", f"file:{node.database}?mode=ro", ".dump"],
                             capture_output=True, check=True).stdout
        expect(text == own, "it is what sqlite3's .dump writes, byte for byte")
        dump_by_name(node)


@case(seconds=60)
def test_dump_to_a_slow_reader_is_of_one_moment():
    """Also when that takes longer than a transaction of a client may."""
    with Cluster(n=1, http=True, transaction_timeout=300, transaction_idle_timeout=300) as c:
        node = c.leader()
        with Door(node) as door:
            door.execute("CREATE TABLE t (a, b)")
            door.execute("CREATE TABLE u (a)")
            for i in range(10):
                door.execute(f"CREATE TABLE t{i} AS SELECT zeroblob(1000000)")
            door.execute("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE "
                         "i < 20000) INSERT INTO t SELECT i, hex(zeroblob(500)) FROM c")
            with Door(node) as reader:
                r = reader.ask("GET", "/dump")
                text = r.read(1000)
                door.execute("INSERT INTO u VALUES ('too late')")
                door.execute("UPDATE t SET a = 0")
                while part := r.read(1 << 20):
                    text += part
                    time.sleep(0.05)
            expect(text.endswith(b"COMMIT;\n"), "its end")
            expect(b"too late" not in text and b"VALUES(0," not in text, "nothing that came later")
            expect_equal(text.count(b"INSERT INTO t "), 20000, "rows")
            gone = Door(node)
            gone.ask("GET", "/dump").read(10)
            gone.conn.close()
            expect_equal(door.rows("SELECT count(*) FROM u"), [(1,)], "the node serves")
