"""Read levels: what each promises, and that it holds while a node is behind or cut off."""

import time

from tests.lib.cluster import (PATIENCE, Cluster, case, expect, expect_equal, expect_error)
from tests.lib.lectern_client import LecternError


@case(short=True)
def test_session_reads_see_own_writes_on_every_node():
    with Cluster() as c:
        with c.client() as w:
            w.query("CREATE TABLE t(id INTEGER PRIMARY KEY)")
            readers = [n.client() for n in c.nodes]
            for i in range(100):
                w.query("INSERT INTO t VALUES (?)", (i,))
                for r in readers:
                    r.seq = max(r.seq, w.seq)
                    expect_equal(r.query("SELECT max(id) FROM t").rows, [(i,)], "own write")
            for r in readers:
                r.close()


@case(short=True)
def test_strong_reads_see_what_was_acknowledged_before_they_began():
    with Cluster() as c:
        with c.client() as w:
            w.query("CREATE TABLE t(id INTEGER PRIMARY KEY)")
            readers = [n.client() for n in c.nodes]
            for i in range(50):
                w.query("INSERT INTO t VALUES (?)", (i,))
                for r in readers:  # they carry no sequence: the majority must tell them
                    found = r.query("SELECT max(id) FROM t", level="strong", min_seq=0).rows
                    expect_equal(found, [(i,)], "strong read")
            for r in readers:
                r.close()


@case(seconds=90)
def test_levels_on_a_node_that_is_cut_off():
    with Cluster() as c:
        leader = c.leader()
        alone = c.others(leader)[0]
        with c.client() as w:
            w.query("CREATE TABLE t(id INTEGER PRIMARY KEY)")
            w.query("INSERT INTO t VALUES (1)")
            c.wait_equal()
            for node in c.others(alone):
                node.pause()
            with alone.client() as r:
                expect_equal(r.query("SELECT count(*) FROM t", level="any").rows, [(1,)], "any")
                for level, more in (("strong", {}), ("bounded", {"bound_ms": 1}),
                                    ("session", {"min_seq": w.seq + 1000})):
                    began = time.monotonic()
                    try:
                        found = r.query("SELECT 1", level=level, timeout_ms=1500, **more)
                        expect(False, f"{level} was answered without a majority: {found}")
                    except LecternError as e:
                        expect(e.name in ("TIMEOUT", "NO_LEADER"), f"{level}: {e}")
                    expect(time.monotonic() - began < 10 * PATIENCE, f"{level}: a late error")
                expect_equal(r.query("SELECT count(*) FROM t", level="any").rows, [(1,)], "any")
            for node in c.others(alone):
                node.resume()
        c.wait_serving()
        with alone.client() as r:
            expect_equal(r.query("SELECT count(*) FROM t", level="strong").rows, [(1,)], "again")
            r.query("INSERT INTO t VALUES (2)")
        c.check_equal()


@case(seconds=90)
def test_bounded_reads_keep_their_bound():
    # While the follower sleeps no other may miss the leader: a write might end as UNKNOWN.
    with Cluster(election_timeout=1500 * PATIENCE) as c:
        leader = c.leader()
        follower = c.others(leader)[0]
        with c.client() as w, follower.client() as r:
            w.query("CREATE TABLE t(id INTEGER PRIMARY KEY, at REAL)")
            c.wait_equal()
            acknowledged = []
            while len(acknowledged) < 300:
                w.query("INSERT INTO t VALUES (?, 0)", (len(acknowledged),))
                acknowledged.append(time.monotonic())
                asked = time.monotonic()
                seen = r.query("SELECT count(*) FROM t", level="bounded", bound_ms=200).rows[0][0]
                must = sum(1 for at in acknowledged if at < asked - 0.2)
                expect(seen >= must, f"{seen} rows, {must} were acknowledged 200 ms before")
            follower.pause()
            w.query("INSERT INTO t VALUES (1000, 0)")
            end = time.monotonic() + 2
            while time.monotonic() < end:  # the cluster goes on without it
                w.query("INSERT INTO t(at) VALUES (0)")
            follower.resume()
            # It knows that its knowledge is old: it catches up, or asks, before it answers.
            rows = r.query("SELECT count(*) FROM t WHERE id = 1000", level="bounded",
                           bound_ms=500).rows
            expect_equal(rows, [(1,)], "the first bounded read after a pause of 2 s")
        c.check_equal()


@case()
def test_an_unreachable_sequence_is_an_error_not_a_hang():
    with Cluster() as c, c.client() as q:
        expect_error("TIMEOUT", lambda: q.query("SELECT 1", min_seq=10**9, timeout_ms=300))
        expect_equal(q.query("SELECT 1", min_seq=0).rows, [(1,)], "afterwards")
