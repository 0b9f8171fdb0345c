"""Hrana's cursors over HTTP: rows that really stream, and the stream that goes on behind them."""

import json
import resource

from tests.lib.cluster import SANITIZED, Cluster, case, expect, expect_equal
from tests.lib.hrana import Cursor, Door, atomic, batch, failed, ok, plain, stmt

# AddressSanitizer keeps what was freed for a while.
QUARANTINE = (300 << 20) if SANITIZED else 0
MANY = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {}) "


def types(entries):
    return [e["type"] for e in entries]


def resident_bytes(node):
    with open(f"/proc/{node.process.pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * resource.getpagesize()


def each_node(c):
    leader = c.leader()
    return [leader, c.others(leader)[0]]


@case(short=True)
def test_entries_of_all_kinds():
    with Cluster(http=True) as c:
        with Door(c.leader()) as door:
            door.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b UNIQUE)")
        for i, node in enumerate(each_node(c)):
            with Cursor(node, batch(
                    stmt("INSERT INTO t VALUES (?, ?)", i * 10 + 1, f"x{i}"),
                    stmt("SELECT a, b FROM t WHERE a > ?", i * 10),
                    stmt("INSERT INTO t VALUES (?, ?)", i * 10 + 2, f"x{i}"),
                    (ok(2), "SELECT 'not run'"),
                    (failed(2), stmt("SELECT 7 AS seven", want_rows=False)))) as cursor:
                expect_equal(set(cursor.head), {"baton", "base_url"}, "the first line")
                expect(cursor.head["baton"], "a baton")
                entries = cursor.all()
            expect_equal(types(entries), ["step_begin", "step_end",
                                          "step_begin", "row", "step_end",
                                          "step_error",
                                          "step_begin", "step_end"], f"{node}'s entries")
            expect_equal([e.get("step") for e in entries if "step" in e], [0, 1, 2, 4], "the steps")
            expect_equal(entries[0]["cols"], [], "columns of an INSERT")
            expect_equal(entries[1], {"type": "step_end", "affected_row_count": 1,
                                      "last_insert_rowid": str(i * 10 + 1)}, "the INSERT's end")
            expect_equal([col["name"] for col in entries[2]["cols"]], ["a", "b"], "columns")
            expect_equal([plain(v) for v in entries[3]["row"]], [i * 10 + 1, f"x{i}"], "the row")
            expect_equal(entries[5]["error"]["code"], "SQLITE_CONSTRAINT", "the failed step's code")


@case(short=True)
def test_atomic_batches():
    """They commit or fail as they do without a cursor, whichever way they are run."""
    with Cluster(http=True) as c:
        with Door(c.leader()) as door:
            door.execute("CREATE TABLE t (a INTEGER PRIMARY KEY)")
        for i, node in enumerate(each_node(c)):
            with Cursor(node, atomic(stmt("INSERT INTO t VALUES (?) RETURNING a", i),
                                     "SELECT count(*) FROM t")) as cursor:
                expect_equal(types(cursor.all()), ["step_begin", "step_end",
                                                   "step_begin", "row", "step_end",
                                                   "step_begin", "row", "step_end",
                                                   "step_begin", "step_end"], "a batch's entries")
            with Cursor(node, atomic(stmt("INSERT INTO t VALUES (?)", 100 + i),
                                     stmt("INSERT INTO t VALUES (?)", i))) as cursor:
                entries = cursor.all()
                expect_equal(types(entries), ["step_begin", "step_end", "step_begin", "step_end",
                                              "step_error", "step_begin", "step_end"],
                             "a failed batch's entries")
                expect_equal(entries[4]["step"], 2, "the step that failed")
                baton = cursor.head["baton"]
            with Door(node) as door:
                got = door.pipeline({"type": "get_autocommit"},
                                    {"type": "execute", "stmt": stmt("SELECT count(*) FROM t")},
                                    baton=baton)["results"]
                expect_equal(got[0]["response"]["is_autocommit"], True, "rolled back")
                expect_equal(plain(got[1]["response"]["result"]["rows"][0][0]), i + 1, "rows")
            # It reads, or seems to: here, in a snapshot.
            with Cursor(node, atomic("SELECT a FROM t", begin="BEGIN DEFERRED")) as cursor:
                expect_equal(types(cursor.all()).count("row"), i + 1, "rows read")
            with Cursor(node, atomic("PRAGMA user_version = 7", begin="BEGIN")) as cursor:
                entries = cursor.all()
                expect("step_error" not in types(entries), f"a PRAGMA that writes: {entries}")
            with Cursor(node, atomic("DELETE FROM t", begin="BEGIN READONLY")) as cursor:
                expect("step_error" in types(cursor.all()), "a write in BEGIN READONLY is refused")


@case(short=True)
def test_the_stream_goes_on():
    """The first line's baton names the stream as the batch left it."""
    with Cluster(http=True) as c:
        with Door(c.leader()) as door:
            door.execute("CREATE TABLE t (a INTEGER PRIMARY KEY)")
        for i, node in enumerate(each_node(c)):
            with Cursor(node, batch("BEGIN IMMEDIATE",
                                    stmt("INSERT INTO t VALUES (?)", i))) as cursor:
                expect_equal(len(cursor.all()), 4, "entries")
                baton = cursor.head["baton"]
            with Door(node) as door:
                expect_equal(door.rows("SELECT count(*) FROM t WHERE a = ?", i), [(0,)], "before")
                with Cursor(node, batch("SELECT a FROM t"), baton=baton) as cursor:
                    expect_equal(types(cursor.all()).count("row"), i + 1, "rows within")
                    second = cursor.head["baton"]
                expect(second != baton, "each answer has its own baton")
                error = door.pipeline({"type": "get_autocommit"}, baton=baton, status=400)
                expect_equal(error["code"], "BATON_REUSED", "of the first baton")
                done = door.pipeline({"type": "execute", "stmt": stmt("COMMIT")}, baton=second)
                expect_equal(done["results"][0]["type"], "ok", "COMMIT")
                expect_equal(door.rows("SELECT count(*) FROM t WHERE a = ?", i), [(1,)], "after")


@case(short=True)
def test_base_url_is_told_of_what_lives_in_its_node():
    """There is a driver that follows it for good: a SELECT does not take it past a balancer."""
    here = "http://db1.example:8081"
    with Cluster(1, http=True, http_url=here) as c:
        with Door(c.nodes[0]) as door:
            door.execute("CREATE TABLE t (a)")
        for wanted, base_url in ((("SELECT a FROM t", "VALUES (1)"), None),
                                 (("SELECT a FROM t", "INSERT INTO t VALUES (1)"), here),
                                 (("BEGIN", "SELECT a FROM t"), here),
                                 (("SELECT a FROM t; BEGIN",), here)):
            with Cursor(c.nodes[0], batch(*wanted)) as cursor:
                cursor.all()
                expect_equal(cursor.head["base_url"], base_url, f"of {wanted}")
                baton = cursor.head["baton"]
        with Cursor(c.nodes[0], batch("BEGIN"), baton=baton) as cursor:
            cursor.all()
            baton = cursor.head["baton"]
        with Cursor(c.nodes[0], batch("SELECT a FROM t"), baton=baton) as cursor:
            expect_equal(cursor.head["base_url"], here, "of a SELECT in a transaction")
        with Cursor(c.nodes[0], atomic("SELECT a FROM t", begin="BEGIN")) as cursor:
            expect_equal(cursor.head["base_url"], None, "of a snapshot that ends with its batch")


@case(short=True)
def test_a_stream_without_a_transaction_outlives_its_node():
    """Nothing that cannot leave a transaction expires: not by a restart, not at another node."""
    with Cluster(http=True) as c:
        leader, follower = each_node(c)
        with Door(leader) as door:
            door.execute("CREATE TABLE t (a)")
        with Cursor(follower, batch("INSERT INTO t VALUES (1)")) as cursor:
            cursor.all()
            baton = cursor.head["baton"]
        with Cursor(follower, batch("BEGIN", "INSERT INTO t VALUES (2)")) as cursor:
            cursor.all()
            in_transaction = cursor.head["baton"]
        count = {"type": "execute", "stmt": stmt("SELECT count(*) FROM t")}
        for node in (leader, c.others(follower)[0], follower):
            with Door(node) as door:
                got = door.pipeline(count, baton=baton)["results"][0]["response"]["result"]
                expect_equal(plain(got["rows"][0][0]), 1, f"what {node} sees of the cursor's write")
        follower.kill()
        c.restart(follower)
        c.wait_serving()
        with Door(follower) as door:
            got = door.pipeline(count, baton=baton)
            expect_equal(got["results"][0]["type"], "ok", "after a restart")
            error = door.pipeline(count, baton=in_transaction, status=400)
            expect_equal(error["code"], "STREAM_EXPIRED", "of a lost transaction")


@case(seconds=120)
def test_a_million_rows_in_constant_memory():
    rows = 1000000
    with Cluster(http=True) as c:
        for node in each_node(c):
            with Cursor(node, batch("SELECT 1"), narrow=True) as cursor:
                cursor.all()
            before = resident_bytes(node)
            top, seen, total, last = before, 0, 0, b""
            sql = MANY.format(rows) + "SELECT i, 'some text of the row ' || i FROM c"
            with Cursor(node, batch(sql)) as cursor:
                for line in iter(cursor.response.readline, b""):
                    total += len(line)
                    if b'"row"' in line:
                        seen += 1
                        if seen % 50000 == 0:
                            top = max(top, resident_bytes(node))
                            expect_equal(plain(json.loads(line)["row"][0]), seen, "the row")
                    last = line
                expect_equal(json.loads(last)["type"], "step_end", "the end")
            expect_equal(seen, rows, "rows")
            grown = top - before
            print(f"{node}: {rows} rows, {total >> 20} MiB, memory grew by {grown >> 10} KiB")
            expect(grown < (8 << 20) + QUARANTINE, f"memory grew by {grown >> 10} KiB")


@case(seconds=60)
def test_a_client_that_does_not_read():
    """It costs a window of rows; and when it goes, what runs for it ends."""
    with Cluster(http=True) as c:
        for node in each_node(c):
            before = resident_bytes(node)
            sql = MANY.format(1 << 40) + "SELECT i, hex(zeroblob(100)) FROM c"
            idle = [Cursor(node, batch(sql), narrow=True) for _ in range(4)]
            with Door(node) as door:
                expect_equal(door.rows("SELECT 1"), [(1,)], "others are served meanwhile")
            for cursor in idle:
                lines = iter(cursor)
                for _ in range(1000):
                    next(lines)
            grown = resident_bytes(node) - before
            expect(grown < (32 << 20) + QUARANTINE, f"memory grew by {grown >> 10} KiB")
            for cursor in idle:
                cursor.close()
            for _ in range(50):  # more than there are readers: none is left behind
                with Cursor(node, batch(sql), narrow=True) as cursor:
                    next(iter(cursor))
            with Door(node) as door:
                expect_equal(door.rows("SELECT 2"), [(2,)], "the node serves")


@case(short=True)
def test_many_steps():
    """More entries than may wait at once."""
    with Cluster(n=1, http=True) as c:
        node = c.leader()
        columns = ", ".join(f"{i} AS a_column_with_a_long_name_{i}" for i in range(100))
        steps = [f"SELECT {columns}"] * 600 + ["SELECT 1 FROM nowhere"] * 400
        with Cursor(node, batch(*steps), narrow=True) as cursor:
            entries = cursor.all()
        expect_equal(types(entries), ["step_begin", "row", "step_end"] * 600 + ["step_error"] * 400,
                     "entries")


@case(short=True)
def test_what_is_wrong():
    with Cluster(n=1, http=True) as c:
        node = c.leader()
        for body, code in ((b"{", "HRANA_PROTO_ERROR"), (b"[]", "HRANA_PROTO_ERROR"),
                           (b'{"batch":{"steps":[{"stmt":{}}]}}', "HRANA_PROTO_ERROR"),
                           (b'{"baton":"x","batch":{"steps":[]}}', "BATON_INVALID")):
            with Door(node) as door:
                error = door.post("/v3/cursor", body, status=400)
                expect_equal(error["code"], code, f"of {body}")
        with Cursor(node, batch()) as cursor:
            expect_equal(cursor.all(), [], "entries of no steps")
        with Cursor(node, batch("SELECT 1; SELECT 2", "", stmt("SELECT ?", 1, 2))) as cursor:
            codes = [e["error"]["code"] for e in cursor]
            expect_equal(codes, ["SQL_MANY_STATEMENTS", "SQL_NO_STATEMENT", "ARGS_INVALID"],
                         "codes")
        with Door(node) as door:
            r = door.ask("GET", "/v3/cursor")
            r.read()
            expect_equal(r.status, 405, "GET")


@case(seconds=60)
def test_the_leader_dies_under_a_cursor():
    """A client of the leader sees a broken answer, never one that looks whole; a follower's goes
    on, or says that it failed."""
    with Cluster(http=True) as c:
        leader, follower = each_node(c)
        sql = MANY.format(300000) + "SELECT i, 'text ' || i FROM c"
        write = "INSERT INTO t " + sql + " RETURNING i"
        with Door(leader) as door:
            door.execute("CREATE TABLE t (a, b)")
        here = Cursor(leader, batch(sql), narrow=True)
        there = Cursor(follower, batch(sql), narrow=True)
        passed_on = Cursor(follower, batch(write, "SELECT 1"), narrow=True)
        first = [next(iter(x)) for x in (here, there)]
        expect_equal(types(first), ["step_begin", "step_begin"], "the first entries")
        leader.kill()
        try:
            whole = types(here.all())
        except (OSError, json.JSONDecodeError, ValueError):
            whole = []
        except Exception as e:  # pylint: disable=broad-except
            expect("Incomplete" in type(e).__name__, f"{e!r}")
            whole = []
        expect("step_end" not in whole, "what the dead leader sent looks whole")
        expect_equal(types(there.all()), ["row"] * 300000 + ["step_end"], "a follower's own rows")
        got = types(passed_on.all())
        print(f"a write that was passed on: {len(got)} entries, the last {got[-3:]}")
        expect(got.count("step_end") + got.count("step_error") + got.count("error") >= 1,
               "an end of each step")
        for x in (here, there, passed_on):
            x.close()
        c.restart(leader)
        c.wait_serving()
        with Door(follower) as door:
            rows = door.rows("SELECT count(*) FROM t")[0][0]
            expect(rows in (0, 300000), f"the write is whole or not: {rows}")
        c.check_equal()
