"""Large transactions: bounded memory, a limit that hurts nobody, and no half of one anywhere."""

import random
import threading
import time

from tests.lib.cluster import (PATIENCE, SANITIZED, STEADY, Cluster, case, expect, expect_equal,
                               expect_error)
from tests.lib.lectern_client import ConnectionLost, LecternError

MEBIBYTES_MAX = 150  # of a node while a large transaction passes


def fill(table, megabytes):
    """Rows of 4 KB that do not pack, in one statement."""
    return ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT "
            f"{megabytes * 250}) INSERT INTO {table} SELECT randomblob(4000) FROM n")


def peak_mebibytes(node):
    with open(f"/proc/{node.process.pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) // 1024 for line in f if line.startswith("VmHWM"))


@case(seconds=60)
def test_a_large_transaction_takes_little_memory_and_stops_no_reader():
    with Cluster(**STEADY) as c, c.leader().client(socket_timeout=60 * PATIENCE) as q:
        leader = c.leader()
        q.query("CREATE TABLE t(v)")
        c.wait_equal()
        term, slowest, stop = leader.row()["term"], [0.0], threading.Event()
        reads = [0]

        def read():
            with c.others(leader)[0].client() as other:
                while not stop.is_set():
                    began = time.monotonic()
                    other.query("SELECT max(rowid) FROM t", level="any")
                    slowest[0] = max(slowest[0], time.monotonic() - began)
                    reads[0] += 1

        def write(sql):
            before = reads[0]
            q.query(sql)
            expect(reads[0] > before + 10, f"{reads[0] - before} reads while {sql[-40:]!r} ran")
        reader = threading.Thread(target=read)
        reader.start()
        try:
            write(fill("t", 40))
            write("CREATE INDEX i ON t(substr(v, 1, 1000))")
            write("UPDATE t SET v = randomblob(4001) WHERE rowid % 3 = 0")
            write("VACUUM")
        finally:
            stop.set()
            reader.join()
        expect(slowest[0] < 5 * PATIENCE, f"a read took {slowest[0]:.1f} s meanwhile")
        c.check_equal()
        expect_equal({n.row()["term"] for n in c.nodes}, {term}, "the terms")
        for n in c.nodes:
            if not SANITIZED:
                expect(peak_mebibytes(n) < MEBIBYTES_MAX, f"{n} took {peak_mebibytes(n)} MiB")


@case(short=True)
def test_a_transaction_over_the_limit_is_refused_and_hurts_nobody():
    with Cluster(**STEADY, transaction_bytes="20MiB") as c, c.leader().client() as q:
        q.query("CREATE TABLE t(v)")
        q.query("INSERT INTO t VALUES (1)")
        expect_error("FULL", lambda: q.query(fill("t", 30)), 13,
                     "more than 20971520 bytes, the limit of transaction-bytes")
        q.query("BEGIN")
        q.query(fill("t", 15))
        e = expect_error("FULL", lambda: q.query(fill("t", 15)), 13, "transaction-bytes")
        expect(not e.in_transaction, "SQLite rolled it back")
        expect_equal(q.query("SELECT count(*) FROM t").rows, [(1,)], "rows after the refusals")
        q.query(fill("t", 15))
        q.query(fill("t", 15))
        expect_equal(q.query("SELECT count(*) FROM t").rows, [(1 + 2 * 15 * 250,)], "rows")
        c.check_equal()


@case(short=True)
def test_large_values():
    with Cluster() as c, c.others(c.leader())[0].client(socket_timeout=60 * PATIENCE) as q:
        q.query("CREATE TABLE t(v)")
        q.query("INSERT INTO t VALUES (?)", (random.randbytes(10_000_000),))
        q.query("INSERT INTO t VALUES (randomblob(10000000))")
        expect_error("SQL", lambda: q.query("INSERT INTO t VALUES (zeroblob(67108864))"), 18,
                     "too big")
        expect_equal(q.query("SELECT length(v) FROM t").rows, [(10_000_000,)] * 2, "lengths")
        c.check_equal()


@case(seconds=90)
def test_a_large_transaction_is_whole_or_not_there_whoever_dies():
    """The leader, or a follower, is killed at any moment of it."""
    r = random.Random()
    with Cluster() as c:
        with c.client() as q:
            q.query("CREATE TABLE t(v)")
        megabytes, told = 24, 0
        for _ in range(3):
            victim = r.choice([c.leader(), c.leader(), *c.others(c.leader())])
            outcome = []

            def write(into=outcome):
                try:
                    with c.leader().client(socket_timeout=60 * PATIENCE) as q:
                        q.query("BEGIN")
                        q.query(fill("t", megabytes))
                        q.query("COMMIT")
                    into.append(True)
                except (ConnectionLost, LecternError):
                    into.append(False)
            writer = threading.Thread(target=write)
            writer.start()
            time.sleep(r.uniform(0.1, 1.0) * PATIENCE)
            victim.kill()
            writer.join()
            c.restart(victim)
            c.wait_serving()
            c.check_equal()
            with c.client() as q:
                rows = q.query("SELECT count(*) FROM t", level="strong").rows[0][0]
            expect(rows % (megabytes * 250) == 0, f"{rows} rows: a part of a transaction")
            told += outcome == [True]
            expect(rows >= told * megabytes * 250, f"{rows} rows, {told} were acknowledged")
