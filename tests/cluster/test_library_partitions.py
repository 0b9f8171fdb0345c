"""The client library and cut cables: packets vanish, nobody closes a connection."""

from tests.cluster.test_library_routing import (ONE_TIMEOUT_MS, all_calls_end, check_told,
                                                expect_no_silence, table, write_until_at)
from tests.lib.cluster import case, expect, expect_equal
from tests.lib.exactly_once import trial
from tests.lib.library import Library
from tests.lib.partition import CableCluster


@case()
def test_library_a_leader_that_is_cut_off_costs_one_timeout():
    with CableCluster() as c, Library() as p:
        table(c)
        p.open(0, c.addresses())
        leader = c.leader()
        write_until_at(p, 0, leader)
        leader.cut()
        first = p.query(0, "INSERT INTO t VALUES (1)")["took_ms"]
        rest = [p.query(0, "INSERT INTO t VALUES (2)") for _ in range(20)]
        reads = [p.query(0, "SELECT count(*) FROM t")["took_ms"] for _ in range(20)]
        print(f"leader cut off: the first write {first:.0f} ms, reads up to {max(reads):.0f}")
        expect(first < ONE_TIMEOUT_MS, f"the first write took {first} ms")
        expect_no_silence(rest)
        leader.mend()
        c.wait_serving()
        expect_equal(p.rows(0, "SELECT a, count(*) FROM t WHERE a > 0 GROUP BY a"),
                     [[1, 1], [2, 20]], "each done once")
        c.check_equal()


@case(seconds=120)
def test_library_every_call_ends_when_all_cables_are_cut():
    with CableCluster() as c, Library() as p:
        table(c)
        p.open(0, c.addresses())
        p.query(0, "SELECT 1")
        for node in c.nodes:
            node.cut()
        answers = all_calls_end(p)
        for node in c.nodes:
            node.mend()
        c.wait_serving()
        p.ask("timeout", 0, 20000)
        check_told(p.rows(0, "SELECT a FROM t"), answers)
        p.query(0, "INSERT INTO t VALUES (100)")
        c.check_equal()


@case(seconds=120, weight=2)
def test_library_exactly_once_with_cut_cables():
    with CableCluster() as c:
        trial(c, 4, harms=("cut",))
