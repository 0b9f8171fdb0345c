"""What a session of the client library promises: its own writes, transactions, statements, rows."""

import re
import time

from tests.lib.cluster import PATIENCE, SANITIZED, Cluster, case, expect, expect_equal
from tests.lib.exactly_once import TABLE, Load
from tests.lib.lectern_client import LecternError
from tests.lib.library import (ANY, CONSTRAINT, DONE, OK, ROW, TIMEOUT, TXN_LOST, UNKNOWN,
                               Library)

COUNTING = ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {}) "
            "SELECT i FROM n")


def memory_kib(process, what="VmRSS"):
    """Of a process, from /proc; VmHWM is the most since reset_peak()."""
    with open(f"/proc/{process.pid}/status", encoding="ascii") as f:
        return int(re.search(what + r":\s+(\d+) kB", f.read()).group(1))


def reset_peak(process):
    with open(f"/proc/{process.pid}/clear_refs", "w", encoding="ascii") as f:
        f.write("5")


# --- reads ----------------------------------------------------------------------------------------


@case()
def test_library_a_position_that_no_node_reaches_holds_up_reads_only():
    """Of another cluster, or forged: writes and transactions go on; reads say what is wrong."""
    with Cluster() as c, Library() as p:
        with c.client() as q:
            q.query("CREATE TABLE t(a)")
        p.open(0, c.addresses())
        seen = p.query(0, "INSERT INTO t VALUES (0)")["position"]
        p.ask("set_position", 0, seen + 1000)
        for i in range(3):
            p.query(0, "INSERT INTO t VALUES (?)", i + 1)
        p.ask("transaction", 0, "INSERT INTO t VALUES (4)")
        p.ask("timeout", 0, 1500)
        a = p.query(0, "SELECT count(*) FROM t", code=TIMEOUT)
        for part in ("of another cluster", "lectern_set_position(db, 0)"):
            expect(part in a["message"], f"not in the sentence: {part}: {a['message']}")
        p.ask("set_position", 0, 0)
        p.ask("timeout", 0, 20000)
        expect_equal(p.rows(0, "SELECT count(*) FROM t"), [[5]], "rows")


@case(short=True)
def test_library_a_position_is_handed_to_another_process():
    with Cluster() as c, Library() as a, Library() as b:
        leader = c.leader()
        slow = c.others(leader)[0]
        a.open(0, leader.address)
        a.query(0, "CREATE TABLE t(a INTEGER PRIMARY KEY)")
        c.wait_equal()
        b.open(0, slow.address)
        for i in range(1, 11):
            slow.pause()
            try:
                position = a.query(0, "INSERT INTO t VALUES (?)", i)["position"]
            finally:
                slow.resume()
            b.ask("set_position", 0, position)
            found = b.query(0, "SELECT max(a) FROM t")
            expect_equal(found["rows"], [[i]], f"read at {found['address']} after the position")
            expect(found["position"] >= position, "the position went back")
        # What the program says counts; the next answer raises it to what it saw.
        b.ask("set_position", 0, 1)
        expect_equal(b.ask("state", 0, code=ANY)["position"], 1, "an older position")
        expect(b.query(0, "SELECT 1")["position"] >= position, "the answer did not raise it")
        c.check_equal()


@case(seconds=120, weight=2)
def test_library_reads_never_go_backwards():
    """Sessions at every node read while rows come and nodes go."""
    with Cluster() as c, Library() as p:
        with c.client() as q:
            for statement in TABLE.split(";"):
                q.query(statement)
        newest = [0] * 4
        for i in range(4):
            p.open(i, (c.nodes[i].address if i < 3 else c.addresses()))
        with Load(c, 4, 0, 0) as load:
            load.more(50)
            for round_ in range(4):
                node = c.nodes[round_ % 3]
                if round_ % 2:
                    node.kill()
                else:
                    node.pause()
                read_forwards(p, newest)
                if round_ % 2:
                    c.restart(node)
                else:
                    node.resume()
                c.wait_serving()
                read_forwards(p, newest)
            load.more(20)
            load.end()
        expect(min(newest) > 20, f"the sessions hardly saw anything: {newest}")
        c.check_equal()


def read_forwards(p, newest):
    for i, before in enumerate(newest):
        found = p.query(i, "SELECT coalesce(max(id), 0) FROM events")
        newest[i] = found["rows"][0][0]
        expect(newest[i] >= before, f"session {i} saw row {before}, then {newest[i]} at "
               f"{found['address']}")


# --- transactions ---------------------------------------------------------------------------------


@case(short=True)
def test_library_a_lost_transaction_says_so_and_wrote_nothing():
    with Cluster() as c, Library() as p:
        p.open(0, c.addresses())
        p.query(0, "CREATE TABLE t(a)")
        p.query(0, "BEGIN")
        p.query(0, "INSERT INTO t VALUES (1)")
        expect_equal(p.rows(0, "SELECT a FROM t"), [[1]], "its own row, inside")
        leader = c.leader()
        leader.kill()
        a = p.query(0, "INSERT INTO t VALUES (2)", code=TXN_LOST)
        expect_equal(a["autocommit"], 1, "the session is outside of a transaction")
        expect(len(a["message"]) > 20, f"no sentence: {a['message']!r}")
        expect_equal(p.rows(0, "SELECT a FROM t"), [], "nothing of it was written")
        p.query(0, "BEGIN")
        p.query(0, "INSERT INTO t VALUES (3)")
        p.query(0, "COMMIT")
        c.restart(leader)
        c.wait_serving()
        expect_equal(p.rows(0, "SELECT a FROM t"), [[3]], "the second try")
        c.check_equal()


ROWS = 400  # of a transaction, each a few milliseconds of work: to be met in its middle


def writer_is_taken(client):
    """Does another session's transaction write now?"""
    try:
        client.query("BEGIN IMMEDIATE", timeout_ms=20)
    except LecternError as e:
        return e.name in ("TIMEOUT", "BUSY")
    client.query("ROLLBACK")
    return False


@case(seconds=90)
def test_library_transaction_runs_again_until_it_is_done():
    with Cluster() as c, Library() as p:
        p.open(0, c.addresses(), timeout=120000)
        p.query(0, "CREATE TABLE t(a, b)")
        again = 0
        for harm in ("kill", "pause", "kill"):
            rows = [f"INSERT INTO t SELECT '{harm}', max(i) FROM ({COUNTING.format(20000)})"] * ROWS
            before = p.rows(0, "SELECT count(*) FROM t")[0][0]
            leader = c.leader()
            p.tell("transaction", 0, *rows)
            with leader.client() as q:
                c.wait(lambda q=q: writer_is_taken(q), "the transaction writes")
            if harm == "kill":
                leader.kill()
            else:
                leader.pause()
            a = p.answer(150)
            if harm == "kill":
                c.restart(leader)
            else:
                leader.resume()
            c.wait_serving()
            after = p.rows(0, "SELECT count(*) FROM t")[0][0]
            expect(a["code"] in (OK, UNKNOWN), f"transaction: {a}")
            allowed = (ROWS,) if a["code"] == OK else (0, ROWS)
            expect(after - before in allowed, f"{a['code']}: {after - before} of {ROWS} rows")
            again += a["bodies"] > 1
            print(f"{harm}: code {a['code']}, {a['bodies']} runs, {a['took_ms']:.0f} ms")
        expect(again > 0, "no transaction had to run twice: the test killed too late")
        c.check_equal()


@case()
def test_library_batch_is_all_or_nothing():
    with Cluster() as c, Library() as p:
        p.open(0, c.others(c.leader())[0].address)
        p.ask("batch", 0, "CREATE TABLE t(a UNIQUE)", "INSERT INTO t VALUES (1), (2)",
              "INSERT INTO t VALUES (3)")
        a = p.ask("batch", 0, "INSERT INTO t VALUES (4)", "INSERT INTO t VALUES (1)",
                  "INSERT INTO t VALUES (5)", code=CONSTRAINT)
        expect_equal((a["failed"], a["extended"]), (1, 2067), "which failed, and why")
        expect_equal(p.rows(0, "SELECT a FROM t ORDER BY a"), [[1], [2], [3]], "rows")
        a = p.ask("batch", 0, "UPDATE t SET a = a + 10", "DELETE FROM t WHERE a > 12")
        expect_equal(a["batch_changes"], [3, 1], "changes of each")
        c.check_equal()


@case(short=True)
def test_library_prepared_statements_survive_failover_and_schema_changes():
    with Cluster() as c, Library() as p:
        p.open(0, c.addresses())
        p.query(0, "CREATE TABLE t(a)")
        p.ask("prepare", 0, 0, "INSERT INTO t VALUES (?)")
        p.ask("prepare", 0, 1, "SELECT * FROM t ORDER BY a")
        for i in range(3):
            p.ask("bind", 0, 1, f"i{i}")
            p.ask("step", 0, code=DONE)
            p.ask("reset", 0)
            p.ask("step", 1, code=ROW)
            p.ask("reset", 1)
            leader = c.leader()
            leader.kill()
            p.ask("bind", 0, 1, f"i{i + 100}")
            p.ask("step", 0, code=DONE)
            p.ask("reset", 0)
            expect_equal(p.ask("step", 1, code=ROW)["row"], [0], "the first row")
            p.ask("reset", 1)
            c.restart(leader)
            c.wait_serving()
        p.query(0, "ALTER TABLE t ADD COLUMN b DEFAULT 'x'")
        expect_equal(p.ask("step", 1, code=ROW)["row"], [0, "x"], "a new column")
        p.ask("reset", 1)
        expect_equal(p.rows(0, "SELECT count(*) FROM t"), [[6]], "rows")
        c.check_equal()


# --- many rows, many sessions ---------------------------------------------------------------------


@case(seconds=240, weight=2)
def test_library_streams_ten_million_rows_in_constant_memory():
    rows = 100000 if SANITIZED else 10000000
    with Cluster() as c, Library(seconds=200) as p:
        p.open(0, c.addresses(), timeout=180000)
        p.ask("count", 0, COUNTING.format(10000), 0, code=DONE)  # warm
        before = memory_kib(p.process)
        reset_peak(p.process)
        nodes = {x: memory_kib(x.process) for x in c.nodes}
        for x in c.nodes:
            reset_peak(x.process)
        a = p.ask("count", 0, COUNTING.format(rows), 0, code=DONE)
        expect_equal((a["rows"], a["sum"]), (rows, rows * (rows + 1) // 2), "rows and their sum")
        grown = memory_kib(p.process, "VmHWM") - before
        server = max(memory_kib(x.process, "VmHWM") - nodes[x] for x in c.nodes)
        print(f"{rows} rows in {a['took_ms'] / 1000:.1f} s; memory grew by {grown} KiB here, "
              f"{server} KiB at a node")
        if not SANITIZED:
            expect(grown < 4096, f"the client grew by {grown} KiB")
            expect(server < 8192, f"a node grew by {server} KiB")


@case(short=True)
def test_library_a_stream_is_cancelled_midway():
    with Cluster() as c, Library() as p:
        p.open(0, c.addresses())
        for _ in range(20):
            a = p.ask("count", 0, COUNTING.format(10 ** 12), 1000)
            expect_equal((a["rows"], a["took_ms"] < 10000 * PATIENCE), (1000, True),
                         f"cancelled after 1000 rows in {a['took_ms']} ms")
        expect_equal(p.rows(0, "SELECT 1"), [[1]], "afterwards")
        c.check_alive()


@case(short=True)
def test_library_a_long_read_holds_up_no_other_session():
    with Cluster() as c, Library() as p:
        p.ask("cluster", 0, f"lectern://{c.addresses()}/")
        for i in range(3):
            p.ask("session", i, 0)
        p.query(1, "CREATE TABLE t(a)")
        p.ask("start", 0, COUNTING.format(10 ** 12), 0)
        worst = 0
        for i in range(50):
            worst = max(worst, p.query(1, "INSERT INTO t VALUES (?)", i)["took_ms"])
            worst = max(worst, p.query(2, "SELECT count(*) FROM t")["took_ms"])
        print(f"beside an endless read the slowest of 100 statements took {worst:.0f} ms")
        expect(worst < 5000 * PATIENCE, f"a statement took {worst} ms")
        p.ask("interrupt", 0, 0)
        a = p.ask("wait", 0, code=9)
        expect(a["rows_before"] > 1000, f"the long read made no progress: {a}")
        expect_equal(a["ended_before"], 0, "the long read ended by itself")
        expect_equal(p.rows(0, "SELECT 1"), [[1]], "the session goes on")
        c.check_equal()


@case(seconds=180, weight=2)
def test_library_ten_thousand_sessions_in_one_thread():
    n = 1000 if SANITIZED else 10000
    with Cluster() as c:
        with c.client() as q:
            q.query("CREATE TABLE crowd(session INTEGER PRIMARY KEY, text)")
        before = {x.id: memory_kib(x.process) for x in c.nodes}
        url = f"lectern://{c.addresses()}/?timeout=120000"
        with Library("crowd", url, n, seconds=170) as p:
            a = p.answer()
            expect_equal((a["inserted"], a["read_back"], a["failed"]), (n, n, 0), f"{a['error']}")
            grown = {x.id: memory_kib(x.process) - before[x.id] for x in c.nodes}
            print(f"{n} sessions, an INSERT and a SELECT each, in {a['ms'] / 1000:.1f} s: "
                  f"{(a['rss_most_kib'] - a['rss_before_kib']) * 1024 // n} bytes a session here, "
                  f"{ {k: v * 1024 // n for k, v in grown.items()} } at the nodes")
            if not SANITIZED:
                expect(a["rss_most_kib"] - a["rss_before_kib"] < n * 16, "16 KiB a session")
                expect(max(grown.values()) < n * 16 + 32768, f"the nodes grew by {grown} KiB")
        expect_equal(c.leader().read("SELECT count(*) FROM crowd"), [(n,)], "rows")
        c.check_equal()


@case()
def test_library_more_sessions_than_a_node_takes_of_a_connection():
    n = 17000 if SANITIZED else 20000  # 16,384, in docs/PROTOCOL.md
    with Cluster(1) as c:
        with c.client() as q:
            q.query("CREATE TABLE crowd(session INTEGER PRIMARY KEY, text)")
        url = f"lectern://{c.addresses()}/?timeout=120000"
        with Library("crowd", url, n, seconds=100) as p:  # all of them at once
            a = p.answer()
            expect_equal((a["inserted"], a["read_back"], a["failed"]), (n, n, 0), f"{a['error']}")
            print(f"{n} sessions, an INSERT and a SELECT each, in {a['ms'] / 1000:.1f} s")
        expect_equal(c.leader().read("SELECT count(*) FROM crowd"), [(n,)], "rows")
