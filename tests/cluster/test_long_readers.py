"""The WAL stays bounded whoever reads: long reads are named, then ended; other programs named."""

import contextlib
import os
import re
import sqlite3
import threading
import time

from tests.lib.cluster import (HANG, PATIENCE, STEADY, Cluster, case, expect, expect_equal,
                               expect_error, wait_for)
from tests.lib.lectern_client import ConnectionLost, LecternError

# Small, so that a test is quick: what matters is their order.
READER_LIMIT = 1500 * PATIENCE
LIMITS = {"wal_checkpoint": "128KiB", "wal_restart": "512KiB", "wal_limit": "2MiB",
          "reader_warn": 300, "reader_limit": READER_LIMIT}
TRANSACTION_LIMIT, NAMED_LIMIT = 3000 * PATIENCE, 2500 * PATIENCE
WAL_LIMIT = 2 * 1024 * 1024
# Minutes of work, and no row before the end.
LONG_COUNT = "SELECT count(*) FROM t a, t b, t c, t d, t e, t f WHERE a.id + f.id = -1"
# More than a connection takes while its client reads nothing.
MANY_ROWS = "SELECT zeroblob(100000) FROM t a, t b, t c"
# Long, and of no table: no read transaction.
COUNTING = ("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 1000000000)"
            " SELECT count(*) FROM c")
NUMBERS = ("(WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM g LIMIT 300)"
           " SELECT n FROM g)")


def fill(q):
    q.query("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    q.query(f"INSERT INTO t SELECT n, zeroblob(100) FROM {NUMBERS}")
    q.query("CREATE TABLE w(v)")


class Background:
    """Runs STEP with a client of NODE, again and again, until it is left."""

    def __init__(self, node, step):
        self.node, self.step = node, step
        self.leave = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.done = 0
        self.error = None

    def run(self):
        try:
            with self.node.client() as q:
                while not self.leave.is_set():
                    self.step(q)
                    self.done += 1
        except (LecternError, ConnectionLost, OSError) as e:
            self.error = e

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, error, trace):
        self.leave.set()
        self.thread.join(30 * PATIENCE)
        if kind is None:
            expect(self.error is None, f"in the background: {self.error}")


def writes(node, size=200000):
    """About so many bytes of WAL each, as fast as they come."""
    def step(q):
        q.query("INSERT INTO w VALUES (randomblob(?))", (size,))
        q.query("DELETE FROM w WHERE rowid < (SELECT max(rowid) FROM w) - 5")
    return Background(node, step)


def reads(node):
    return Background(node, lambda q: q.query("SELECT count(*), sum(length(v)) FROM w"))


def wal_bytes(node):
    row = node.status()
    return row["wal_bytes"] if row else None


def wait_short(node):
    wait_for(lambda: (wal_bytes(node) or WAL_LIMIT) < WAL_LIMIT, "the WAL has started over")


def lost(q):
    """Uses Q's transaction, so it is never idle: whether it was rolled back."""
    try:
        q.query("SELECT count(*) FROM t")
        return False
    except LecternError as e:
        expect_equal(e.name, "TXN_LOST", e.message)
        return True


def grows_long_beside(q, node):
    """Begins a transaction on Q: whether the WAL is over its limit before the transaction's end.
    On a slow disk it takes a while until there is so much to write."""
    q.query("BEGIN")
    while not lost(q):
        if (wal_bytes(node) or 0) > WAL_LIMIT:
            return True
    return False


def wait_log(node, pattern):
    return wait_for(lambda: re.search(pattern, node.log_text()), f"the log says {pattern}")


def is_named_and_ended(node, q):
    """Whether a long read was named before it was ended. Where writes come slowly, the WAL gets so
    long only when the read is so old already."""
    q.begin(LONG_COUNT + " AND 'x' <> \"a\".v\n OR ?", (0,))
    e = expect_error("TIMEOUT", q.finish, 9, says="reader-limit.*wal-limit: 2 MiB")
    expect("starting over" in e.message, e.message)
    return re.search(r'reader_holds_wal session=\d+ age_ms=\d+ wal_bytes=\d{7,} '
                     r'restart_waits_ms=\d+ sql="SELECT count\(\*\) FROM t a, t b, t c, '
                     r't d, t e, t f WHERE a.id \+ f.id = -1 AND \'x\'"', node.log_text())


@case(short=True)
def test_a_running_read_is_named_and_ended():
    with Cluster(**STEADY, **{**LIMITS, "reader_limit": NAMED_LIMIT}) as c:
        leader = c.leader()
        with leader.client() as q:
            fill(q)
        for node in (leader, c.others(leader)[0]):
            with node.client() as q, writes(leader, 1000000):
                wait_for(lambda n=node, q=q: is_named_and_ended(n, q), f"{node} names it")
                wait_short(node)
                expect_equal(q.query("SELECT count(*) FROM t").rows, [(300,)], "afterwards")
            wait_log(node, r"reader_ended session=\d+")


@case(short=True)
def test_a_client_that_takes_no_rows_does_not_hold_the_wal():
    with Cluster(1, **LIMITS) as c:
        node = c.nodes[0]
        with node.client() as q:
            fill(q)
        with node.client() as slow, writes(node):
            slow.begin(MANY_ROWS)
            wait_log(node, r"reader_ended session=\d+ .*zeroblob\(100000\)")
            wait_short(node)
            expect_error("TIMEOUT", slow.finish, 9, says="take the rows faster")
            expect_equal(slow.query("SELECT count(*) FROM t").rows, [(300,)], "afterwards")


@case(short=True)
def test_a_long_read_beside_a_short_wal_is_left_alone():
    # Not stretched for slow builds: a client that takes nothing for 10 s loses its connection.
    with Cluster(1, **{**LIMITS, "reader_limit": 1500}) as c:
        node = c.nodes[0]
        with node.client() as q, node.client() as slow:
            fill(q)
            slow.begin(MANY_ROWS, timeout_ms=60000 * PATIENCE)
            request = q.begin(LONG_COUNT, timeout_ms=4500)
            # Some writes, not enough for a long WAL.
            with node.client() as w:
                for _ in range(5):
                    w.query("INSERT INTO w VALUES (randomblob(20000))")
            expect_error("TIMEOUT", lambda: q.finish(request), 9, says="longer than its time limit")
            expect(wal_bytes(node) < WAL_LIMIT, "the WAL is long")
            log = node.log_text()
            expect("reader_" not in log and "wal_held" not in log, "somebody was accused")
            slow.cancel()
            expect_error("CANCELLED", slow.finish)


def held_open(node):
    """Another program inside a read transaction on NODE's file."""
    db = sqlite3.connect(f"file:{node.database}?mode=ro", uri=True, isolation_level=None)
    db.execute("BEGIN")
    db.execute("SELECT count(*) FROM t").fetchall()
    return contextlib.closing(db)


def test_another_program_is_named_and_who_reads_nothing_is_not_ended():
    with Cluster(1, **LIMITS) as c:
        node = c.nodes[0]
        with node.client() as q:
            fill(q)
        with node.client() as q, writes(node):
            with held_open(node):
                q.begin(COUNTING, timeout_ms=2 * READER_LIMIT)
                found = wait_log(node, r'wal_held_by_another_process wal_bytes=(\d+) '
                                       r'restart_waits_ms=\d+ who="([^"]*)"')
                expect(int(found[1]) > WAL_LIMIT, f"named at {found[1]} bytes of WAL")
                expect(f"(pid {os.getpid()})" in found[2], f"named: {found[2]}")
                expect_error("TIMEOUT", q.finish, 9, says="longer than its time limit")
                expect("reader_" not in node.log_text(), "a statement was accused")
            wait_short(node)
        expect_equal(node.log_text().count("wal_held"), 1, "lines within a minute")


@case(short=True)
def test_an_open_transaction_does_not_hold_the_wal_longer_than_its_limits():
    with Cluster(1, transaction_timeout=TRANSACTION_LIMIT, **LIMITS) as c:
        node = c.nodes[0]
        with node.client() as q:
            fill(q)
        with node.client() as q, writes(node):
            for _ in range(2):
                wait_for(lambda: grows_long_beside(q, node), "a transaction holds the WAL")
                wait_for(lambda: lost(q), "the transaction is rolled back")
                wait_short(node)


def watch_wal(nodes, enough, seconds=30):
    """The WAL's sizes until each has started over ENOUGH times: its longest, by node."""
    most = {node: 0 for node in nodes}
    restarts = {node: 0 for node in nodes}
    before = {node: 0 for node in nodes}
    end = time.monotonic() + seconds * HANG
    while min(restarts.values()) < enough:
        expect(time.monotonic() < end, f"restarts of the WAL in {seconds * HANG} s: {restarts}")
        for node in nodes:
            now = wal_bytes(node) or before[node]
            restarts[node] += now < before[node]
            before[node] = now
            most[node] = max(most[node], now)
        time.sleep(0.02)
    return most


def stays(node):
    """A client that has always a read under way that does not end; its errors are the limit's."""
    def step(q):
        expect_error("TIMEOUT", lambda: q.query(LONG_COUNT), 9, says="reader-limit")
    return Background(node, step)


@case(seconds=90, weight=2)
def test_the_wal_is_bounded_whoever_reads():
    """Writes and short reads without an end, and always one read that stays, begun anew as soon as
    it was ended; on the leader and on a follower."""
    with Cluster(**STEADY, **LIMITS) as c:
        leader = c.leader()
        nodes = (leader, c.others(leader)[0])
        with leader.client() as q:
            fill(q)
        with contextlib.ExitStack() as stack:
            writer = stack.enter_context(writes(leader))
            for node in nodes:
                stack.enter_context(reads(node))
                stack.enter_context(reads(node))
            long_reads = [stack.enter_context(stays(node)) for node in nodes]
            began = time.monotonic()
            most = watch_wal(nodes, 4)
            written = writer.done * 200000
        for node, long_read in zip(nodes, long_reads):
            print(f"{node}: WAL at most {most[node] >> 10} KiB, {written >> 10} KiB written in "
                  f"{time.monotonic() - began:.1f} s, {long_read.done} long reads ended")
            expect(long_read.done >= 3, f"{long_read.done} long reads ended")
        c.check_equal()


@case(seconds=90, weight=2)
def test_the_wal_is_bounded_when_reads_relieve_each_other():
    """Two reads that stay, one begun in the middle of the other: at no moment is there none."""
    with Cluster(1, **LIMITS) as c:
        node = c.nodes[0]
        with node.client() as q:
            fill(q)
        with contextlib.ExitStack() as stack:
            stack.enter_context(writes(node))
            stack.enter_context(reads(node))
            first = stack.enter_context(stays(node))
            time.sleep(READER_LIMIT / 2000)
            second = stack.enter_context(stays(node))
            most = watch_wal((node,), 2)
        print(f"WAL at most {most[node] >> 10} KiB, "
              f"{first.done} and {second.done} long reads ended")
        expect(min(first.done, second.done) >= 1, "who stays was not ended")
