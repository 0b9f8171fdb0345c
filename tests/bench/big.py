#!/usr/bin/env python3
"""Big things: what a large transaction, a CREATE INDEX and a VACUUM cost the cluster.

    python3 tests/bench/big.py --build build/release --megabytes 1024 --rows 10000000

Prints for each: seconds, the highest resident size of each node while it ran (reset before), and
the latency of small reads beside it: of level any on a follower, and strong ones, which the leader
must confirm with a majority. Fails when the leader changes.
"""

import argparse
import os
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

# pylint: disable=wrong-import-position
from tests.lib.cluster import Cluster, expect, expect_equal  # noqa: E402


def peak(node):
    with open(f"/proc/{node.process.pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) // 1024 for line in f if line.startswith("VmHWM"))


def resident(node):
    with open(f"/proc/{node.process.pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def reset_peak(node):
    with open(f"/proc/{node.process.pid}/clear_refs", "w", encoding="ascii") as f:
        f.write("5")


class Prober:
    """Small reads, one after the other, until it is stopped; their latencies in ms."""

    def __init__(self, node, level):
        self.node, self.level, self.ms, self.failed = node, level, [], []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        with self.node.client(socket_timeout=120) as c:
            while not self.stopping.is_set():
                began = time.monotonic()
                try:
                    c.query("SELECT count(*) FROM small", level=self.level, timeout_ms=60000)
                except Exception as e:  # pylint: disable=broad-exception-caught
                    self.failed.append(repr(e))
                self.ms.append((time.monotonic() - began) * 1000)
                time.sleep(0.005)

    def stop(self):
        self.stopping.set()
        self.thread.join()
        self.ms.sort()
        n = len(self.ms)
        failed = f" FAILED {len(self.failed)}: {self.failed[0]}" if self.failed else ""
        return (f"p50 {self.ms[n // 2]:.1f} p99 {self.ms[n * 99 // 100]:.1f} "
                f"max {self.ms[-1]:.0f} ms{failed}")


def terms(c):
    return {c.node(n.id).status()["term"] for n in c.nodes}


def measure(c, what, action):
    for n in c.nodes:
        reset_peak(n)
    leader, before = c.leader(), terms(c)
    probes = [Prober(c.others(leader)[0], "any"), Prober(leader, "strong")]
    began = time.monotonic()
    try:
        action()
        seconds = time.monotonic() - began
        c.wait_equal(300)
        equal = time.monotonic() - began
    finally:
        told = [p.stop() for p in probes]
    expect_equal(terms(c), before, f"terms after {what}")
    print(f"{what:34} {seconds:7.1f} s, followers {equal:7.1f} s | peak MiB "
          + " ".join(f"{'L' if n is leader else 'F'}{peak(n)}" for n in c.nodes)
          + " | now " + " ".join(str(resident(n)) for n in c.nodes)
          + f" | any {told[0]} | strong {told[1]}", flush=True)


def load(client, table, megabytes):
    """Rows of 1 KB that do not pack, many to a statement, in one transaction."""
    client.query("BEGIN")
    rows = megabytes * 1024 // 8
    for at in range(0, 8):
        client.query("WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<?) "
                     f"INSERT INTO {table} SELECT i + ?, randomblob(1000) FROM n",
                     (rows, at * rows))
    client.query("COMMIT")


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    options.add_argument("--build", default="build/release")
    options.add_argument("--megabytes", type=int, default=1024)
    options.add_argument("--rows", type=int, default=10_000_000)
    options.add_argument("--directory")
    options.add_argument("--election", type=int, default=1000)
    args = options.parse_args()
    settings = {"election-timeout": args.election, "heartbeat": args.election // 10,
                "transaction-bytes": "4GiB", "transaction-timeout": 600000,
                "transaction-idle-timeout": 600000}
    with Cluster(3, build=os.path.abspath(args.build), directory=args.directory,
                 **settings) as c:
        with c.leader().client(socket_timeout=900) as client:
            client.query("CREATE TABLE small(a)")
            client.query("CREATE TABLE big(id INTEGER PRIMARY KEY, v BLOB)")
            client.query("CREATE TABLE many(id INTEGER PRIMARY KEY, a INTEGER, b TEXT)")
            print("idle MiB", *(resident(n) for n in c.nodes))
            measure(c, "INSERT of a 10 MB blob",
                    lambda: client.query("INSERT INTO big VALUES(-1, randomblob(10000000))"))
            measure(c, f"{args.megabytes} MB in one transaction",
                    lambda: load(client, "big", args.megabytes))
            measure(c, f"INSERT of {args.rows} rows", lambda: client.query(
                "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<?) INSERT "
                "INTO many SELECT i, abs(random() % 1000000000), printf('row %d', i) FROM n",
                (args.rows,)))
            measure(c, f"CREATE INDEX on {args.rows} rows",
                    lambda: client.query("CREATE INDEX many_a ON many(a)"))
            measure(c, "DELETE of half",
                    lambda: client.query("DELETE FROM big WHERE id % 2 = 0"))
            measure(c, "VACUUM", lambda: client.query("VACUUM"))
            measure(c, "full scan", lambda: [
                n.client(socket_timeout=900).query("SELECT sum(length(v)) FROM big", level="any")
                for n in c.nodes])
            expect(client.query("SELECT count(*) FROM many"), "the rows")


if __name__ == "__main__":
    main()
