"""BEGIN READONLY: one state for several statements, on whichever node one is."""

import threading
import time

from tests.lib.cluster import Cluster, case, expect, expect_equal, expect_error, wait_for
from tests.lib.lectern_client import TIME_UP
from tests.lib.metrics import scrape, value


def count(client, **options):
    return client.query("SELECT count(*) FROM t", **options).rows[0][0]


@case(short=True)
def test_a_read_transaction_sees_one_state_on_every_node():
    with Cluster() as c, c.client() as w:
        w.query("CREATE TABLE t(a)")
        w.query("INSERT INTO t VALUES (1)")
        for node in c.nodes:
            with node.client(seq=w.seq) as q:
                before = count(q)
                expect(q.query("begin transaction readonly;").in_transaction, "it is open")
                w.query("INSERT INTO t VALUES (2)")
                with node.client(seq=w.seq) as other:
                    expect_equal(count(other), before + 1, f"outside of it, at {node}")
                expect_equal(count(q), before, f"inside, at {node}")
                expect_equal(q.query("PRAGMA foreign_keys").rows, [(1,)], "a question")
                expect(q.describe("SELECT * FROM t").columns, "a description")
                for begin in ("BEGIN READONLY", "BEGIN DEFERRED TRANSACTION READONLY"):
                    expect_equal(q.describe(begin).columns, [], "a description of " + begin)
                e = expect_error("FORBIDDEN", lambda: q.query("INSERT INTO t VALUES (3)"), 8)
                expect(e.in_transaction, "a refused write leaves it open")
                e = expect_error("SQL", lambda: q.query("SELECT * FROM nowhere"))
                expect(e.in_transaction, "an error leaves it open")
                for other_kind in "BEGIN", "SAVEPOINT a", "BEGIN READONLY":
                    expect_error("FORBIDDEN", lambda sql=other_kind: q.query(sql))
                expect_error("FORBIDDEN", lambda: q.batch([("SELECT 1", ())]))
                expect_equal(count(q), before, f"inside, again, at {node}")
                expect(not q.query("COMMIT").in_transaction, "it is over")
                expect_equal(count(q), before + 1, f"after it, at {node}")
                q.query("BEGIN READONLY")
                expect(not q.query("ROLLBACK").in_transaction, "it is over")
                q.query("INSERT INTO t VALUES (4)")
                w.query("DELETE FROM t WHERE a = 4")
        c.check_equal()


@case()
def test_read_transactions_are_bounded_in_time_and_number():
    flags = {"transaction_idle_timeout": 1000, "transaction_timeout": 2500}
    with Cluster(1, **flags) as c, c.client() as q:
        q.query("CREATE TABLE t(a)")
        q.query("BEGIN READONLY")
        time.sleep(1.5)
        e = expect_error("TXN_LOST", lambda: count(q))
        expect("transaction-idle-timeout" in e.message and e.flags & TIME_UP, e.message)
        expect(not e.in_transaction, "it is over")
        expect_equal(count(q), 0, "and the next statement is one by itself")
        lost = "transaction-idle-timeout"
        while "transaction-idle-timeout" in lost:  # this machine stood still for a second
            begun = time.monotonic()
            q.query("BEGIN READONLY")
            lost = wait_for(lambda: lost_of(q), "the end of a long one")
        expect("transaction-timeout" in lost, lost)
        expect(time.monotonic() - begun > 2.4, "before its time")
        q.query("BEGIN READONLY")
        time.sleep(1.5)
        expect(not q.query("ROLLBACK").in_transaction, "ROLLBACK is what it would want anyway")

    # The third waits until one of the two is over.
    with Cluster(1, read_transactions=2) as c:
        with c.client() as a, c.client() as b, c.client() as third:
            a.query("BEGIN READONLY")
            b.query("BEGIN READONLY")
            opened = threading.Event()
            waiter = threading.Thread(target=lambda: (third.query("BEGIN READONLY"), opened.set()))
            waiter.start()
            expect(not opened.wait(0.3), "there are only two places")
            a.query("COMMIT")
            expect(opened.wait(20), "the third has its place")
            waiter.join()
            b.query("ROLLBACK")
            third.query("COMMIT")


def lost_of(client):
    """Uses the transaction; the sentence when it is lost."""
    time.sleep(0.2)
    try:
        count(client)
    except Exception as e:  # pylint: disable=broad-except
        expect_equal(getattr(e, "name", ""), "TXN_LOST", str(e))
        return e.message
    return None


@case()
def test_a_client_that_is_gone_takes_its_read_transaction_along():
    with Cluster(1, read_transactions=1) as c:
        with c.client() as q:
            q.query("CREATE TABLE t AS WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT "
                    "200000) SELECT i AS a FROM n")
        for _ in range(20):
            q = c.client()
            q.query("BEGIN READONLY")
            q.close()
        with c.client() as q:  # in the midst of rows that nobody takes
            q.query("BEGIN READONLY")
            q.begin("SELECT a, hex(zeroblob(100)) FROM t")
            q.close_stream()
        with c.client() as q:
            q.query("BEGIN READONLY")
            expect_equal(count(q), 200000, "the one place is free")
            q.query("COMMIT")


@case()
def test_a_stream_that_ends_while_its_commit_runs_ends_its_read_transaction_once():
    with Cluster(1, read_transactions=2) as c, c.client() as q:
        q.query("CREATE TABLE t(a)")
        for i in range(400):
            s = q.stream()
            s.query("BEGIN READONLY")
            s.begin("COMMIT")
            until = time.monotonic() + (i % 40) * 10e-6
            while time.monotonic() < until:  # so that it comes before, during and after
                pass
            s.close_stream()
        a, b = q.stream(), q.stream()
        for s in a, b:
            s.query("BEGIN READONLY")
            expect_equal(count(s), 0, "both places are free")
            s.query("COMMIT")


@case()
def test_a_read_transaction_begins_also_while_others_never_stop_reading():
    slow = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) SELECT max(i) FROM n"
    with Cluster(1, http=True, readers=1) as c, c.client() as q, c.client() as load:
        for s in [load.stream() for _ in range(4)]:
            for _ in range(200):  # all of them: some ten seconds
                s.begin(slow)
        wait_for(lambda: value(scrape(c.nodes[0]), "lectern_readers_waiting") >= 2, "a line")
        q.query("BEGIN READONLY", timeout_ms=60000)
        expect(value(scrape(c.nodes[0]), "lectern_readers_waiting") >= 2, "they still read")
        q.query("COMMIT")


@case()
def test_a_read_transaction_holds_the_wal_back_only_so_long():
    flags = {"wal_limit": "16MiB", "reader_limit": 1500, "reader_warn": 500,
             "transaction_idle_timeout": 60000}
    with Cluster(1, **flags) as c, c.client() as q, c.client() as w:
        w.query("CREATE TABLE t(a)")
        q.query("BEGIN READONLY")
        expect_equal(count(q), 0, "its state")

        def written_and_lost():
            w.query("INSERT INTO t VALUES (randomblob(4000000))")
            try:
                count(q)
            except Exception as e:  # pylint: disable=broad-except
                return e
            return None

        e = wait_for(written_and_lost, "the end of what holds the WAL back")
        expect_equal(e.name in ("TXN_LOST", "TIMEOUT"), True, str(e))
        expect("reader-limit" in e.message, e.message)
