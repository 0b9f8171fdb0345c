"""Transactions over several requests: what they keep together, and what ends them."""

import time

from tests.lib.cluster import (PATIENCE, Cluster, Failure, case, expect, expect_equal, expect_error,
                               wait_for)
from tests.lib.lectern_client import TIME_UP, ConnectionLost, LecternError
from tests.lib.load import TABLE, Writers


def rows(client, **options):
    return client.query("SELECT a FROM t ORDER BY a", **options).rows


@case(short=True)
def test_commit_and_rollback_through_every_node():
    with Cluster() as c:
        with c.client() as q:
            q.query("CREATE TABLE t(a)")
        seq, wanted = q.seq, []
        for node in c.nodes:
            with node.client(seq=seq) as q, c.client() as other:
                expect(q.query("BEGIN").in_transaction, "BEGIN opens one")
                q.query("INSERT INTO t VALUES (?)", (node.id,))
                q.query("SAVEPOINT inner")
                q.query("INSERT INTO t VALUES (100)")
                q.query("ROLLBACK TO inner")
                expect_equal(rows(q), wanted + [(node.id,)], "inside, its own write")
                expect_equal(rows(other, level="strong"), wanted, "outside, nothing yet")
                expect(not q.query("COMMIT").in_transaction, "COMMIT ends it")
                wanted.append((node.id,))
                expect_equal(rows(other, level="strong"), wanted, "outside, after COMMIT")
                q.query("BEGIN IMMEDIATE")
                q.query("DELETE FROM t")
                expect_equal(rows(q), [], "inside, deleted")
                expect(not q.query("ROLLBACK").in_transaction, "ROLLBACK ends it")
                expect_equal(rows(q), wanted, "after ROLLBACK")
                seq = q.seq
        for node in c.nodes:
            with node.client(seq=seq) as q:
                expect_equal(rows(q), wanted, f"at {node}")
        c.check_equal()


@case()
def test_an_error_inside_leaves_the_transaction_open():
    with Cluster() as c, c.client() as q:
        q.query("CREATE TABLE t(a UNIQUE ON CONFLICT ABORT)")
        q.query("BEGIN")
        q.query("INSERT INTO t VALUES (1)")
        e = expect_error("SQL", lambda: q.query("INSERT INTO t VALUES (1)"), 2067)
        expect(e.in_transaction, "the error does not say that the transaction is open")
        q.query("INSERT INTO t VALUES (2)")
        q.query("COMMIT")
        expect_equal(rows(q), [(1,), (2,)], "committed")
        q.query("BEGIN")
        q.query("INSERT INTO t VALUES (3)")
        e = expect_error("SQL", lambda: q.query("INSERT OR ROLLBACK INTO t VALUES (1)"), 2067)
        expect(not e.in_transaction, "OR ROLLBACK ended it, and the error must say so")
        expect_equal(rows(q), [(1,), (2,)], "after OR ROLLBACK")
        expect_error("SQL", lambda: q.query("COMMIT"), 1, "no transaction is active")
        expect_error("SQL", lambda: q.query("ROLLBACK"), 1, "no transaction is active")
        c.check_equal()


@case()
def test_writers_take_turns():
    with Cluster() as c, c.client() as a, c.client() as b:
        a.query("CREATE TABLE t(a)")
        a.query("BEGIN IMMEDIATE")
        a.query("INSERT INTO t VALUES (1)")
        waiting = b.begin("INSERT INTO t VALUES (2)")
        try:
            b.read_frame(timeout=0.3)
            raise Failure("a write was answered while another transaction held the lane")
        except ConnectionLost:
            pass  # no answer yet, as it must be
        a.query("INSERT INTO t VALUES (3)")
        a.query("COMMIT")
        b.finish(waiting)
        expect_equal(rows(b), [(1,), (2,), (3,)], "both")
        c.check_equal()


@case()
def test_an_idle_transaction_is_rolled_back():
    with Cluster(transaction_idle_timeout=2500) as c, c.client() as a, c.client() as b:
        a.query("CREATE TABLE t(a)")
        a.query("BEGIN")
        a.query("INSERT INTO t VALUES (1)")
        b.query("INSERT INTO t VALUES (2)")  # waits until the idle one is gone
        e = expect_error("TXN_LOST", lambda: a.query("INSERT INTO t VALUES (3)"))
        expect(not e.in_transaction and e.flags & TIME_UP, "the transaction is over")
        expect_equal(rows(a), [(2,)], "only the other's row")
        a.query("INSERT INTO t VALUES (4)")
        expect_equal(rows(a), [(2,), (4,)], "the connection goes on")
        c.check_equal()


@case()
def test_a_transaction_that_never_ends_is_rolled_back():
    with Cluster(transaction_timeout=1500) as c, c.client() as a, c.client() as b:
        a.query("CREATE TABLE t(a)")
        began = time.monotonic()
        a.query("BEGIN")
        try:
            while time.monotonic() - began < 15 * PATIENCE:
                a.query("INSERT INTO t VALUES (1)")
            raise Failure("a transaction of 15 s with a limit of 1.5 s")
        except LecternError as e:
            expect_equal(e.name, "TXN_LOST", f"the error at the limit ({e.message})")
            expect(e.flags & TIME_UP, "TIME_UP")
        expect(time.monotonic() - began >= 1.4, "rolled back before its limit")
        b.query("INSERT INTO t VALUES (2)")
        expect_equal(rows(b), [(2,)], "only the other's row")
        c.check_equal()


@case(short=True)
def test_a_connection_lost_in_the_middle_rolls_back():
    with Cluster(transaction_idle_timeout=60000) as c:
        for node in c.nodes:
            with c.client() as b:
                b.query("DROP TABLE IF EXISTS t")
                b.query("CREATE TABLE t(a)")
                a = node.client(seq=b.seq)
                a.query("BEGIN")
                a.query("INSERT INTO t VALUES (1)")
                a.close()
                b.query("INSERT INTO t VALUES (2)", timeout_ms=20000 * PATIENCE)
                expect_equal(rows(b), [(2,)], f"after the connection to {node} was lost")
        c.check_equal()


@case(seconds=90)
def test_a_leader_lost_in_the_middle_rolls_back():
    with Cluster() as c:
        leader = c.leader()
        follower = c.others(leader)[0]
        with follower.client() as a, leader.client() as direct:
            a.query("CREATE TABLE t(a)")
            a.query("BEGIN")
            a.query("INSERT INTO t VALUES (1)")
            leader.kill()
            e = expect_error("TXN_LOST", lambda: a.query("INSERT INTO t VALUES (2)"))
            expect(not e.flags & TIME_UP, "TIME_UP of a lost leader")
            expect(not e.in_transaction, "the transaction is over")
            c.leader()
            a.query("INSERT INTO t VALUES (3)")
            expect_equal(rows(a), [(3,)], "nothing of the lost transaction")
            try:
                direct.query("SELECT 1")
                raise Failure("an answer from a killed node")
            except ConnectionLost:
                pass
        c.restart(leader)
        c.check_equal()


@case()
def test_writers_beside_transactions_and_rollbacks():
    """Batches of many clients: one that fails, or ends the whole transaction, harms no other."""
    with Cluster(election_timeout=3000) as c, c.client() as q:
        q.query(TABLE)
        q.query("CREATE TABLE u(a INTEGER PRIMARY KEY)")
        q.query("CREATE TABLE raising(a)")
        q.query("CREATE TRIGGER r BEFORE INSERT ON raising BEGIN "
                "SELECT RAISE(ROLLBACK, 'not this one'); END")
        with Writers(c.nodes, 6) as w:
            for i in range(60):
                q.query("INSERT INTO u VALUES (?)", (i,))
                expect_error("SQL", lambda i=i: q.query("INSERT OR ROLLBACK INTO u VALUES (?)",
                                                        (i,)), 1555)
                expect_error("SQL", lambda: q.query("INSERT INTO raising VALUES (1)"), 1811,
                             "not this one")
                if i % 10 == 0:
                    q.query("BEGIN")
                    q.query("DELETE FROM u")
                    q.query("ROLLBACK")
            w.stop()
        expect_equal(dict(w.errors), {}, "errors of the other writers")
        expect_equal(q.query("SELECT count(*) FROM u").rows, [(60,)], "rows")
        c.check_equal()
        for node in c.nodes:
            w.check(node)


def silent(client, seconds=0.3):
    """No answer comes: what the request saw is not committed."""
    try:
        f = client.read_frame(timeout=seconds)
    except ConnectionLost:
        return
    raise Failure(f"an answer (frame {f.type}) before what it saw was committed")


@case(short=True)
def test_no_answer_leaves_before_what_it_saw_is_committed():
    # Long timers: the leader stays leader while the others are paused for a moment.
    with Cluster(election_timeout=3000 * PATIENCE, heartbeat=100) as c:
        leader = c.leader()
        with leader.client() as setup:
            setup.query("CREATE TABLE t(a INTEGER PRIMARY KEY)")
            setup.query("INSERT INTO t VALUES (1)")
        c.wait_equal()
        first, twice, returning, reader = (leader.client() for _ in range(4))
        for node in c.others(leader):
            node.pause()
        first.begin("INSERT INTO t VALUES (5)")
        silent(first)
        # Each of these would tell that row 5 is there.
        twice.begin("INSERT INTO t VALUES (5)")
        returning.begin("UPDATE t SET a = a WHERE a = 5 RETURNING a")
        silent(twice)
        silent(returning)
        expect_equal(rows(reader, level="any"), [(1,)], "a reader at the leader")
        expect_equal(leader.read("SELECT a FROM t"), [(1,)], "a stock reader at the leader")
        for node in c.others(leader):
            node.resume()
        first.finish()
        expect_error("SQL", twice.finish, 1555)
        expect_equal(returning.finish().rows, [(5,)], "RETURNING")
        for x in (first, twice, returning, reader):
            x.close()
        c.check_equal()


@case(seconds=90)
def test_an_uncommitted_write_of_a_leader_cut_off_is_never_seen():
    with Cluster(leader_wait=1000) as c:
        leader = c.leader()
        with leader.client() as w:
            w.query("CREATE TABLE t(a)")
            c.wait_equal()
            for node in c.others(leader):
                node.pause()
            w.begin("INSERT INTO t VALUES ('uncommitted')", timeout_ms=60000)
            # Paused nodes take nothing in from a killed leader's socket buffers but what arrived:
            # so they are killed too, and nobody else has the row.
            for node in c.others(leader):
                node.kill()
            e = expect_error("UNKNOWN", w.finish)
            expect(len(e.message) > 20, e.message)
            expect_equal(leader.read("SELECT * FROM t"), [], "a stock reader, afterwards")
            with leader.client() as r:
                expect_equal(r.query("SELECT * FROM t", level="any").rows, [], "a reader")
        leader.kill()
        for node in c.others(leader):
            c.restart(node)
        for node in c.others(leader):
            c.wait(lambda n=node: n.status() is not None, f"{node} answers")
        with c.client() as q:
            q.query("INSERT INTO t VALUES ('other')")
        c.restart(leader)
        c.check_equal()
        for node in c.nodes:
            expect_equal(node.read("SELECT a FROM t"), [("other",)], f"at {node}")


@case()
def test_a_begin_whose_leader_is_lost_begins_at_the_next_one():
    with Cluster() as c:
        leader = c.leader()
        with c.client() as q:
            q.query("CREATE TABLE t(a)")
        c.wait_equal()
        with c.others(leader)[0].client() as q:
            q.query("INSERT INTO t VALUES (0)")  # the connection to the leader is there
            leader.pause()
            begun = q.begin("BEGIN IMMEDIATE")  # it reaches a leader that does not answer
            wait_for(lambda: c.others(leader)[0].status(), "the follower has read it")
            leader.kill()
            q.finish(begun)
            q.query("INSERT INTO t VALUES (1)")
            q.query("COMMIT")
            expect_equal(rows(q), [(0,), (1,)], "written at the next leader")
        c.restart(leader)
        c.wait_serving()
        c.check_equal()
