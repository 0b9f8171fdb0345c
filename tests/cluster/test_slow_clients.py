"""Clients that ask for much and take little, and what a session carries from node to node."""

import time

from tests.lib.cluster import (PATIENCE, Cluster, case, expect, expect_equal, expect_error,
                               wait_for)
from tests.lib.lectern_client import HEAD, ConnectionLost, LecternError, hello

FRAME_MAX = 64 * 1024 * 1024
FORWARDED = 1


def resident_mib(node):
    with open(f"/proc/{node.process.pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * 4096 // (1024 * 1024)


@case(short=True)
def test_an_error_carries_its_sequence():
    with Cluster() as c:
        follower = c.others(c.leader())[0]
        with c.leader().client() as w, follower.client() as q:
            w.query("CREATE TABLE t(id INTEGER PRIMARY KEY)")
            w.query("INSERT INTO t VALUES (1)")
            e = expect_error("SQL", lambda: q.query("INSERT INTO t VALUES (1)"), 1555)
            expect(e.seq >= w.seq, f"the error saw row 1 ({w.seq}) but tells sequence {e.seq}")
            expect_equal(q.query("SELECT id FROM t").rows, [(1,)], "the row that was in the way")


@case(short=True)
def test_last_insert_rowid_survives_another_leader():
    with Cluster() as c:
        leader = c.leader()
        clients = [n.client() for n in c.others(leader)]
        clients[0].query("CREATE TABLE p(id INTEGER PRIMARY KEY)")
        clients[0].query("CREATE TABLE k(pid)")
        for i, q in enumerate(clients):
            q.query("INSERT INTO p VALUES (?)", (70 + i,))
        leader.kill()
        c.wait_serving()
        for i, q in enumerate(clients):
            found = q.query("INSERT INTO k VALUES (last_insert_rowid()) RETURNING pid").rows
            expect_equal(found, [(70 + i,)], "last_insert_rowid() at the new leader")
            q.close()


@case(short=True)
def test_last_insert_rowid_is_what_the_request_says():
    with Cluster() as c:
        for node in c.nodes:
            with node.client() as q:
                q.begin("SELECT last_insert_rowid()", last_insert_rowid=5)
                expect_equal(q.finish().rows, [(5,)], "a client's word")
                q.begin("SELECT last_insert_rowid()", last_insert_rowid=7)
                expect_equal(q.finish().rows, [(7,)], "its next word: nothing is kept")


@case(seconds=90)
def test_an_answer_that_fills_its_space_to_the_last_bytes():
    """Two ROWS frames as long as the limits let them be: DONE has room, or it is TOO_BIG."""
    with Cluster(1) as c, c.client(socket_timeout=60 * PATIENCE) as q:
        columns = 4 + HEAD + 4 + 2 * (4 + 1 + 4)
        one = 33_000_000
        first = FRAME_MAX - 1 - columns - HEAD - 4 - 2 * 5 - one
        second = FRAME_MAX - HEAD - 4 - 2 * 5 - one
        for less in (0, 1, 20, 40, 1000):
            q.query("BEGIN")
            try:
                q.query(f"SELECT zeroblob({one}) a, zeroblob({first}) b UNION ALL"
                        f" SELECT zeroblob({one}), zeroblob({second - less})")
            except LecternError as e:
                expect_equal(e.name, "TOO_BIG", "error")
            q.query("ROLLBACK")
        expect_equal(q.query("SELECT 1").rows, [(1,)], "afterwards")


@case(short=True)
def test_answers_that_nobody_reads_do_not_pile_up():
    with Cluster(1) as c, c.client() as q, c.client() as other:
        node = c.nodes[0]
        before = resident_mib(node)
        for _ in range(30):
            q.begin("SELECT zeroblob(20000000)")
        # The server has to come to its limit first: the memory stands still then.
        most = 0
        end = time.monotonic() + 4
        while time.monotonic() < end:
            most = max(most, resident_mib(node) - before)
            expect_equal(other.query("SELECT 1").rows, [(1,)], "beside a client that does not read")
            time.sleep(0.05)
        expect(most < 300, f"{most} MiB for 600 MB of answers that nobody reads")
        for _ in range(30):
            expect_equal(len(q.finish().rows[0][0]), 20000000, "answer when it is read at last")


@case(short=True)
def test_requests_that_wait_are_counted_in_bytes():
    """One stream asks for more than its room: it is told BUSY, and nobody else is."""
    with Cluster(1, transaction_idle_timeout=60000) as c, c.client() as holder, c.client() as q:
        node = c.nodes[0]
        holder.query("CREATE TABLE t(a)")
        holder.query("BEGIN IMMEDIATE")
        before = resident_mib(node)
        asked = [q.begin("INSERT INTO t VALUES (length(?))", (bytes(20_000_000),))
                 for _ in range(20)]
        other = q.stream()
        waits = other.begin("INSERT INTO t VALUES (?)", (bytes(1000),))
        expect_equal(other.connection.ping().serves, 1, "PING behind them")
        more = resident_mib(node) - before
        expect(more < 300 or PATIENCE > 1, f"{more} MiB for requests that wait")
        holder.query("ROLLBACK")
        done = 0
        for request in asked:
            try:
                q.finish(request)
                done += 1
            except LecternError as e:
                expect_equal(e.name, "BUSY", "error of what is too much")
        expect_equal(done, 6, "of 20 were done: 128 MiB may be under way")
        other.finish(waits)
        expect_equal(holder.query("SELECT count(*) FROM t").rows, [(done + 1,)], "rows")


@case(short=True)
def test_requests_that_wait_are_counted():
    with Cluster(1, transaction_idle_timeout=60000) as c, c.client() as holder, c.client() as q:
        holder.query("CREATE TABLE t(a)")
        holder.query("BEGIN IMMEDIATE")
        asked = [q.begin("INSERT INTO t VALUES (?)", (i,)) for i in range(5000)]
        q.cancel(asked[1])  # gets through, whatever waits
        expect_equal(q.connection.ping().serves, 1, "PING behind them")
        holder.query("ROLLBACK")
        ends = []
        for request in asked:
            try:
                q.finish(request)
                ends.append("done")
            except LecternError as e:
                ends.append(e.name)
        expect_equal(ends[:3], ["done", "CANCELLED", "done"], "the first")
        expect_equal(ends.count("done"), 256, "done: one runs, 256 wait, one was cancelled")
        expect_equal(ends.count("BUSY"), 5000 - 257, "refused, in their turn")


@case(short=True)
def test_a_large_request_passes_behind_others():
    with Cluster(1) as c, c.client() as q:
        q.query("CREATE TABLE t(a)")
        asked = [q.begin("INSERT INTO t VALUES (length(?))", (bytes(3_000_000),))
                 for _ in range(12)]
        for request in asked:
            expect_equal(q.finish(request).changes, 1, "changes")
        expect_equal(q.query("SELECT count(*), min(a) FROM t").rows, [(12, 3_000_000)], "rows")


MANY_ROWS = ("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 1000)"
             " SELECT zeroblob(1000000) FROM c")


BUSY = ("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 300000)"
        " SELECT count(*) FROM c")


@case(seconds=120)
def test_clients_that_do_not_read_make_room_for_others():
    with Cluster(1) as c, c.client() as q:
        slow = [c.client() for _ in range(40)]  # eight more than reader-connections
        for s in slow:
            s.begin(MANY_ROWS)
        time.sleep(2)  # so that most of them are blocked; the rest does not matter
        for _ in range(20):
            began = time.monotonic()
            expect_equal(q.query("SELECT 1", timeout_ms=5000).rows, [(1,)], "a read among them")
            expect(time.monotonic() - began < 4, "a read waited for clients that do not read")
        ended = c.nodes[0].log_text().count("others waited for a reader")
        expect(8 < ended <= 40, f"{ended} statements made room")
        for s in slow:
            s.close()


def test_few_slow_clients_stay_though_others_wait():
    """A quarter of the places may be theirs: the other three are never enough here."""
    with Cluster(1, **{"reader-connections": 4}) as c, c.client() as slow:
        slow.begin(MANY_ROWS)
        busy = [c.client() for _ in range(12)]
        until = time.monotonic() + 3
        while time.monotonic() < until:
            for b in busy:
                b.begin(BUSY)
            for b in busy:
                b.finish()
        expect("others waited for a reader" not in c.nodes[0].log_text(), "it was ended")
        for b in busy:
            b.close()


@case(short=True)
def test_a_blocked_statement_keeps_its_deadline_and_heeds_cancel():
    with Cluster(1) as c, c.client() as q:
        q.begin(MANY_ROWS, timeout_ms=1000)
        time.sleep(2)  # its client reads nothing meanwhile
        expect_error("TIMEOUT", q.finish)
        q.begin(MANY_ROWS)
        time.sleep(0.5)
        q.cancel()
        expect_error("CANCELLED", q.finish)
        expect_equal(q.query("SELECT 1").rows, [(1,)], "afterwards")


@case(short=True)
def test_a_node_that_stops_takes_no_answer_back():
    """One request of the connection is not answered in time; the others were, and are heard."""
    with Cluster(1) as c, c.client() as q, c.client() as other:
        q.query("CREATE TABLE t(a)")
        q.stream().begin("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE "
                         "i < 1000000000) SELECT count(*) FROM c")
        large = q.begin("SELECT zeroblob(250000)")  # more than kernels take unread
        write = q.begin("INSERT INTO t VALUES (1)")
        wait_for(lambda: other.query("SELECT count(*) FROM t").rows == [(1,)], "the write")
        c.nodes[0].terminate()
        expect_equal(c.nodes[0].wait_end(), 0, "the exit status")
        expect_equal(len(q.finish(large).rows[0][0]), 250000, "bytes of the large answer")
        expect_equal(q.finish(write).changes, 1, "the acknowledged write")


@case(short=True)
def test_cancel_finds_a_request_that_waits_in_the_line():
    with Cluster(1) as c, c.client() as holder, c.client() as q:
        holder.query("CREATE TABLE t(a)")
        holder.query("BEGIN IMMEDIATE")
        first, second, third = [q.begin("INSERT INTO t VALUES (?)", (i,)) for i in range(3)]
        q.cancel(second)
        time.sleep(0.2)
        holder.query("ROLLBACK")
        q.finish(first)
        expect_error("CANCELLED", lambda: q.finish(second))
        q.finish(third)
        expect_equal(q.query("SELECT a FROM t").rows, [(0,), (2,)], "rows")


@case(short=True)
def test_a_write_ends_when_the_leaders_port_cannot_be_reached():
    with Cluster(2, start=False) as c:
        for node in c.nodes:  # port 9: nobody listens there
            node.start(c.members, {**c.settings, "advertise": "127.0.0.1:9"})
        c.wait_serving()
        with c.others(c.leader())[0].client() as q:
            began = time.monotonic()
            expect_error("NO_LEADER", lambda: q.query("CREATE TABLE t(a)", timeout_ms=1000))
            expect(time.monotonic() - began < 8 * PATIENCE, "the error was late")


@case(short=True)
def test_what_hello_says_does_not_write_the_log():
    with Cluster(1) as c:
        with c.nodes[0].client(handshake=False) as q:
            q.send_raw(hello(database='x"\nforged level=error\x1b[2J'))
            expect_error("NOT_FOUND", q.connection.read_welcome)
        text = c.nodes[0].log_text()
        expect("\nforged" not in text and "\x1b" not in text, "the client wrote into the log")
