"""Streams that end at bad moments, and clients that use them against the node."""

import os
import socket
import struct
import time

from tests.cluster.test_disk_errors import FaultyCluster
from tests.lib import lectern_client as wire
from tests.lib.cluster import (HANG, PATIENCE, STEADY, Cluster, case, expect, expect_equal,
                               expect_error, wait_for)

LONG = ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000000000)"
        " SELECT count(*) FROM n")


@case(short=True)
def test_the_last_answer_of_a_lost_leader_ends_a_connection_with_open_transactions():
    with Cluster() as c:
        leader = c.leader()
        follower = c.others(leader)[0]
        with follower.client() as a:
            others = [a.stream() for _ in range(3)]
            for stream in (a, *others):
                stream.query("BEGIN")
            a.begin(LONG)
            a.shutdown_write()
            others_are_served(follower)
            leader.kill()
            expect_error("TXN_LOST", a.finish)
            expect(a.at_end(), "the connection ends with its last answer")
        with follower.client() as again:
            again.query("SELECT 1", level="any")


def others_are_served(node):
    """What was sent before has come to NODE: a new connection is served after the old one."""
    with node.client() as other:
        other.connection.ping(timeout=10 * HANG)


@case(short=True)
def test_many_cancels_of_a_long_queue_delay_nobody():
    """60,000 requests wait on one stream, and each CANCEL looks for its request among them."""
    with Cluster(1) as c:
        node = c.nodes[0]
        with node.client() as hostile, node.client() as other:
            hostile.begin(LONG, level="any")
            waiting = wire.query(7, "SELECT 1", level="any", stream=1)
            hostile.send_raw(waiting * 60000)
            other.connection.ping()
            hostile.send_raw(wire.frame(wire.CANCEL, 999999999) * 100000)
            began = time.monotonic()
            for _ in range(5):
                other.connection.ping(timeout=60)
            took = time.monotonic() - began
            expect(took < 5 * PATIENCE, f"another connection waited {took:.1f} s")


@case(short=True)
def test_a_client_that_is_gone_behind_its_end_keeps_no_reader():
    """After its end of file nothing is read of it; that it broke later is noticed all the same."""
    with Cluster(1, readers=1, reader_connections=1) as c:
        with c.nodes[0].client() as gone, c.nodes[0].client() as other:
            for _ in range(3):
                gone.begin(LONG, level="any", timeout_ms=600_000)
            gone.connection.ping()  # they have come
            gone.shutdown_write()
            expect_error("TIMEOUT", lambda: other.query("SELECT 1", timeout_ms=300))
            # What a kernel sends that has forgotten the connection of a killed client.
            gone.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                            struct.pack("ii", 1, 0))
            gone.close()
            expect_equal(other.query("SELECT 1", timeout_ms=5000 * HANG).rows, [(1,)], "a read")


def measured(n=3, **settings):
    """A cluster whose memory is measured: AddressSanitizer keeps what is freed for a while, by
    default 256 MiB of it."""
    os.environ["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=8"
    return Cluster(n, **settings)


def peak_mib(node):
    with open(f"/proc/{node.process.pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM")) >> 10


@case()
def test_requests_of_closed_streams_count_until_they_come_back():
    """The writer is busy, so none of them can be given back."""
    with measured(1) as c:
        node = c.nodes[0]
        with node.client() as hostile:
            hostile.query("CREATE TABLE t(a)")
            before = peak_mib(node)
            hostile.begin("INSERT INTO t " + LONG)
            for i in range(2, 602):
                hostile.send_raw(wire.query(1, "INSERT INTO t VALUES (?)", (bytes(1000000),),
                                            stream=i) + wire.frame(wire.CLOSE, 0, stream=i))
            refused = hostile.stream()
            refused.number = 1000
            refused.begin("INSERT INTO t VALUES (?)", (bytes(1000000),))
            expect_error("BUSY", refused.finish)
            more = peak_mib(node) - before
            expect(more < 300, f"{more} MiB for streams that are closed")
            hostile.cancel()
            expect_error("CANCELLED", hostile.finish)
            expect(hostile.query("SELECT count(*) FROM t").rows == [(0,)], "a closed one has run")
            hostile.query("INSERT INTO t VALUES (?)", (bytes(50000000),))


@case()
def test_long_answers_of_one_moment_are_not_in_memory_together():
    """Of 24 times 20 MB: as many as one write may answer in one batch, and then what is held. No
    more than 24, for it must be over long before who takes nothing is sent away: in 10 s."""
    with measured(1) as c:
        node = c.nodes[0]
        with node.client() as hostile:
            hostile.query("CREATE TABLE t(a)")
            before = peak_mib(node)
            first = hostile.begin("INSERT INTO t " + LONG.replace("1000000000", "1000000"))
            streams = [hostile.stream() for _ in range(24)]
            for stream in streams:
                stream.begin("INSERT INTO t VALUES (1) RETURNING zeroblob(20000000)")
            hostile.finish(first)
            with node.client() as other:
                expect(other.query("SELECT count(*) FROM t", level="strong").rows, "no answer")
                wait_for(lambda: other.query("SELECT count(*) FROM t").rows == [(25,)],
                         "all writes")
            more = peak_mib(node) - before
            expect(more < 350, f"{more} MiB for answers")


@case()
def test_a_follower_holds_no_more_of_relayed_answers_than_of_its_own():
    """Each stream takes nothing; its leader has a few bytes of the answer left, the follower the
    whole window."""
    with measured(**STEADY) as c:
        leader = c.leader()
        follower = c.others(leader)[0]
        with follower.client() as hostile:
            hostile.query("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
            hostile.query("INSERT INTO t VALUES (1, 0), (2, 0), (3, 0)")
            before = peak_mib(follower)
            for i in range(2, 2002):
                hostile.send_raw(
                    wire.query(1, "UPDATE t SET a = 0 WHERE id = 1 RETURNING zeroblob(270000)",
                               stream=i) +
                    wire.query(2, "UPDATE t SET a = 0 RETURNING"
                                  " CASE WHEN id < 3 THEN zeroblob(131072) END", stream=i))
            cut = 0
            while cut < 300:
                f = hostile.read_frame()
                if f.request == 2 and f.type == wire.ERROR:
                    expect_equal(wire.parse_error(f.body).name, "ROWS_LOST", "what was cut")
                    cut += 1
            more = peak_mib(follower) - before
            expect(more < 250, f"{more} MiB for answers that nobody takes")


@case()
def test_open_transactions_have_a_limit():
    """Each has a SQLite connection: a client with 16,384 streams must not open as many."""
    idle = {"transaction_idle_timeout": 60000}
    with Cluster(1, **idle) as c, c.nodes[0].client() as a, c.nodes[0].client() as other:
        streams = [a.stream() for _ in range(1025)]
        for stream in streams[:-1]:
            stream.query("BEGIN")
        error = expect_error("BUSY", lambda: streams[-1].query("BEGIN"))
        expect("1024 transactions" in error.message, error.message)
        other.query("CREATE TABLE t(a)")
        streams[0].query("ROLLBACK")
        streams[-1].query("BEGIN")
        streams[-1].query("INSERT INTO t VALUES (1)")
        streams[-1].query("COMMIT")
        expect_equal(other.query("SELECT a FROM t").rows, [(1,)], "rows")


def fill(clients, sql, size):
    """One request of SIZE bytes of each, which has come to the node."""
    for q in clients:
        q.begin(sql, (bytes(size),))
        q.connection.ping()


@case(seconds=120)
def test_what_waits_has_one_limit_for_all_connections():
    """Each connection is within its own; whole requests, and long frames that never end."""
    with measured(1, transaction_idle_timeout=60000, transaction_timeout=300000,
                  waiting_bytes="128MiB") as c:
        node = c.nodes[0]
        with c.client() as holder, c.client() as other:
            holder.query("CREATE TABLE t(a)")
            holder.query("BEGIN IMMEDIATE")
            before = peak_mib(node)
            hostile = [c.client() for _ in range(24)]
            fill(hostile[:12], "INSERT INTO t VALUES (length(?))", 20_000_000)
            for q in hostile[12:]:
                q.send_raw(wire.query(1, "SELECT ?", (bytes(60_000_000),))[:30_000_000])
            expect_equal(other.query("SELECT count(*) FROM t").rows, [(0,)], "rows, beside them")
            waits = other.begin("INSERT INTO t VALUES (?)", (bytes(100_000),))
            more = peak_mib(node) - before
            expect(more < 260, f"{more} MiB of 240 + 360 wait")
            holder.query("ROLLBACK")
            ends = [end_of(q) for q in hostile[:12]]
            expect_equal(set(ends), {"done", "BUSY"}, "what became of them")
            expect(2 <= ends.count("done") <= 5, f"{ends.count('done')} of 20 MB in 96 MiB")
            other.finish(waits)
            for q in hostile:
                q.close()
            wait_for(lambda: takes(other, 60_000_000), "all of the room again")


def end_of(stream):
    try:
        stream.finish()
        return "done"
    except wire.ConnectionLost:
        return "closed"
    except wire.LecternError as e:
        expect(e.name != "BUSY" or "waiting-bytes" in e.message, e.message)
        return e.name


def takes(stream, size):
    stream.begin("SELECT length(?)", (bytes(size),))
    return end_of(stream) == "done"


@case(seconds=120)
def test_answers_that_wait_have_one_limit_for_all_connections():
    with measured(1, waiting_bytes="128MiB") as c:
        node = c.nodes[0]
        with c.client() as other:
            other.query("CREATE TABLE t(a)")
            before = peak_mib(node)
            hostile = [c.client() for _ in range(30)]
            for i, q in enumerate(hostile):
                q.begin("INSERT INTO t VALUES (1) RETURNING zeroblob(30000000)")
                wait_for(lambda i=i: other.query("SELECT count(*) FROM t").rows == [(i + 1,)],
                         "a write")
            more = peak_mib(node) - before
            expect(more < 400, f"{more} MiB of 900 wait")
            ends = [end_of(q) for q in hostile]  # closed: it took nothing for 10 s, if this is slow
            expect(set(ends) <= {"ROWS_LOST", "done", "closed"} and "ROWS_LOST" in ends and
                   len(set(ends)) > 1, f"{ends}")


@case()
def test_a_statement_whose_client_takes_a_byte_now_and_then_is_ended():
    rows = ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
            " SELECT i, zeroblob(999) FROM n")
    with Cluster(1) as c, c.client() as q:
        q.begin(rows, level="any")
        began = time.monotonic()
        name = None
        while name is None:
            expect(time.monotonic() - began < 30, "it is parked for ever")
            q.send_raw(wire.credit(1, 1))
            try:
                f = q.connection.next_of(1, timeout=0.5)
            except wire.ConnectionLost as e:
                expect("time" in str(e), str(e))
                continue
            name = wire.parse_error(f.body).name if f.type == wire.ERROR else None
        expect_equal(name, "TIMEOUT", "its end")
        expect(time.monotonic() - began > 9, "it was ended too early")
        expect_equal(q.stream().query("SELECT 1").rows, [(1,)], "afterwards")


@case()
def test_requests_of_one_client_of_a_follower_leave_room_to_its_others():
    """For the leader all of them come from one node."""
    with Cluster(**STEADY, transaction_idle_timeout=60000) as c:
        follower = c.others(c.leader())[0]
        with c.client() as holder, follower.client() as hostile, follower.client() as other:
            holder.query("CREATE TABLE t(a)")
            holder.query("BEGIN IMMEDIATE")
            streams = [hostile.stream() for _ in range(33)]
            fill(streams, "INSERT INTO t VALUES (length(?))", 4_000_000)
            waits = other.begin("INSERT INTO t VALUES (length(?))", (bytes(10_000_000),))
            other.connection.ping()
            with c.leader().client() as q:
                q.connection.ping()
            holder.query("ROLLBACK")
            other.finish(waits)
            expect_equal([end_of(q) for q in streams], ["done"] * 33, "the others")


def rows_beside(q, other):
    """As OTHER sees them. Meanwhile Q takes what comes without credit: no kernel need hold it."""
    q.connection.ping()
    return other.query("SELECT count(*) FROM t", level="strong").rows[0][0]


@case()
def test_answers_to_one_client_of_a_follower_leave_room_to_its_others():
    with Cluster(**STEADY) as c:
        follower = c.others(c.leader())[0]
        with follower.client() as hostile, follower.client() as other:
            other.query("CREATE TABLE t(a)")
            for i in range(1, 4):
                rows = "INSERT INTO t SELECT value FROM json_each(?) RETURNING zeroblob(1000000)"
                hostile.stream().begin(rows, (str(list(range(25))),))
                wait_for(lambda i=i: rows_beside(hostile, other) == 25 * i, "a write")
            answer = other.query(rows, (str(list(range(30))),))
            expect_equal(len(answer.rows), 30, "rows of who takes them")


def stopped(q):
    try:
        q.query("SELECT count(*) FROM t", timeout_ms=2000)
        return None
    except wire.LecternError as e:
        return e


@case()
def test_a_failed_node_frees_its_sessions_of_their_transactions_at_the_leader():
    with FaultyCluster(transaction_idle_timeout=3000) as c:
        leader = c.leader()
        victim = c.others(leader)[0]
        with victim.client() as q, leader.client() as other:
            other.query("CREATE TABLE t(a)")
            q.query("BEGIN")
            expect(q.query("SELECT count(*) FROM t").rows == [(0,)] and q.in_transaction, "open")
            victim.fail(("EIO", "w", "raft/*.seg"))
            other.query("INSERT INTO t VALUES (1)")
            error = wait_for(lambda: stopped(q), "the node has failed")
            expect_equal((error.name, error.flags & 1), ("STOPPED", 0), "error")
            expect_equal(stopped(q).name, "STOPPED", "the next one")
            time.sleep(4.5)  # else the leader would find it idle
            expect("transaction-lost" not in leader.log_text(), "it was still open there")
            victim.heal()


@case()
def test_answers_of_64_mib_are_held_for_a_connection():
    """Each is 20 MB; what is cut is done, and what is held comes whole when it is taken."""
    with Cluster(1) as c, c.client() as other, c.client() as q:
        other.query("CREATE TABLE t(a)")
        streams = [q.stream() for _ in range(5)]
        for i, stream in enumerate(streams, 1):
            stream.begin("INSERT INTO t SELECT value FROM json_each(?) RETURNING zeroblob(1000000)",
                         (str(list(range(20))),))
            wait_for(lambda i=i: rows_beside(q, other) == 20 * i, "a write")
        expect_equal(sorted(end_of(s) for s in streams[3:]), ["ROWS_LOST"] * 2, "beyond 64 MiB")
        for stream in streams[:3]:
            expect_equal([len(row[0]) for row in stream.finish().rows], [1000000] * 20, "rows")
        for stream in streams:
            expect_equal(stream.query("SELECT count(*) FROM t").rows, [(100,)], "rows of t")


@case()
def test_texts_that_are_forgotten_count_while_requests_wait_for_them():
    """Each request is a few bytes, and the one that has a text of a megabyte."""
    with measured(1, waiting_bytes="128MiB") as c, c.client() as q:
        q.query("CREATE TABLE t(a)")
        before = peak_mib(c.nodes[0])
        busy, text = q.stream(), q.stream()
        busy.begin("INSERT INTO t " + LONG)
        refused = 0
        for i in range(1, 401):
            if i % 200 == 0:
                busy = q.stream()
                busy.begin("INSERT INTO t " + LONG)
            try:
                text.query("SELECT 1 -- " + "x" * 1_000_000, keep=i, level="any")
                busy.begin("", keep=i, level="any")
                q.forget(i)
            except wire.LecternError as e:
                expect_equal(e.name, "BUSY", e.message)
                refused += 1
        more = peak_mib(c.nodes[0]) - before
        expect(more < 250 and refused > 0, f"{more} MiB of 400 for texts, {refused} refused")
        for number in range(1, q.streams + 1):
            q.send_raw(wire.frame(wire.CLOSE, 0, stream=number))
        last = q.stream()
        wait_for(lambda: takes(last, 60_000_000), "all of the room again")
