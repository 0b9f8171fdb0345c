"""The Raft log is cut by bytes, under load, and a start finds its place behind the cut."""

import os
import re

from tests.lib.cluster import STEADY, Cluster, case, expect, expect_equal
from tests.lib.load import TABLE, Writers

KEEP = 1 << 20
SMALL = {"log_keep": KEEP, "wal_checkpoint": "256KiB", "wal_restart": "512KiB"}


def log_bytes(node):
    """Of the segments on the disk."""
    raft = os.path.join(node.dir, "raft")
    total = 0
    for name in os.listdir(raft):
        try:
            total += os.path.getsize(os.path.join(raft, name))
        except FileNotFoundError:
            pass  # cut just now
    return total


def cuts(node):
    """The indexes of the cuts that a node made, in order."""
    return [int(x) for x in re.findall(r" cut index=(\d+) seq=", node.log_text())]


def first_index(node):
    """Of the log, as of the node's last cut; 1: it was never cut."""
    return int(([1] + re.findall(r" log-cut index=\d+ first=(\d+)", node.log_text()))[-1])


def other_databases(node):
    """How often it wanted another database than its own."""
    log = node.log_text()
    return log.count("rebuild") + log.count("fetch reason")


def write_until(c, condition, what, filler=10000, seconds=40, writers=4, nodes=None):
    """Writes until CONDITION; all acknowledged rows are checked on every node."""
    with Writers(nodes or c.nodes, writers, filler=filler, first=write_until.first) as w:
        write_until.first += 100
        c.wait(condition, what, seconds)
        w.stop()
    return w


write_until.first = 1


@case(short=True, seconds=120)
def test_the_log_stays_short_under_load():
    with Cluster(**SMALL) as c:
        with c.client() as q:
            q.query(TABLE)
        w = write_until(c, lambda: all(len(cuts(n)) >= 4 for n in c.nodes),
                        "four cuts on every node")
        c.wait_equal()
        for node in c.nodes:
            indexes = cuts(node)
            expect_equal(indexes, sorted(set(indexes)), f"the cuts of {node}")
            # keep, a quarter, the segment that is written and those made in advance
            c.wait(lambda n=node: log_bytes(n) <= KEEP * 1.25 + 4 * KEEP / 4,
                   f"a log of {log_bytes(node)} bytes on {node}, keep is {KEEP}")
            w.check(node)
        c.check_equal()


@case(seconds=120)
def test_a_start_finds_its_place_behind_a_cut():
    with Cluster(**SMALL) as c:
        with c.client() as q:
            q.query(TABLE)
        for how in ("stop", "kill", "kill"):
            wanted = {n.id: len(cuts(n)) + 2 for n in c.nodes}
            w = write_until(c, lambda: all(len(cuts(n)) >= wanted[n.id] for n in c.nodes),
                            "two more cuts on every node")
            before = c.wait_equal()
            # Whoever stood still for a while fell behind the cuts.
            others = [other_databases(node) for node in c.nodes]
            for node in c.nodes:
                getattr(node, how)()
            c.start()
            expect_equal(c.wait_equal(), before, f"position after {how}")
            w.check(c.node(1))
            expect_equal([other_databases(node) for node in c.nodes], others,
                         f"how often nodes needed another database, before and after {how}")
        c.check_equal()


@case(seconds=60)
def test_a_start_with_nothing_in_the_log_but_its_record():
    """An idle cluster whose log was cut at its very end."""
    with Cluster(n=1, **SMALL) as c:
        with c.client() as q:
            q.query(TABLE)
        write_until(c, lambda: len(cuts(c.node(1))) >= 2, "two cuts")
        before = c.wait_equal()
        for _ in range(2):
            c.node(1).kill()
            c.start()
            expect_equal(c.wait_equal(), before, "position")


@case(seconds=90)
def test_a_log_of_large_entries_is_cut_too():
    """Entries as large as a segment."""
    with Cluster(log_keep="2MiB", **STEADY) as c:
        with c.client() as q:
            q.query("CREATE TABLE big(a)")
            for _ in range(20):
                q.query("INSERT INTO big VALUES (randomblob(900000))", timeout_ms=30000)
            c.wait_equal()
            for node in c.nodes:
                c.wait(lambda n=node: first_index(n) > 5, f"{node} has cut its log")
                c.wait(lambda n=node: log_bytes(n) <= 8 << 20, f"{log_bytes(node)} bytes of log")
        c.check_equal()
