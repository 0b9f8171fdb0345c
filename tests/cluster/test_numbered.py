"""Numbered writes across restarts of all nodes, and on nodes that fetched their database."""

import os
import re

from tests.cluster.test_catchup import advance, fetches, make, wait_fetched
from tests.cluster.test_log_cut import SMALL
from tests.lib.cluster import STEADY, Cluster, case, expect, expect_equal, expect_error
from tests.lib.lectern_client import AGAIN, RESOLVE, Number

ONCE = "INSERT INTO t(a) VALUES ('once') RETURNING id"


def covers(node):
    """Up to which sequence the node knew nothing of numbered writes at its last start."""
    return int(re.findall(r" replay outcomes covers=(\d+)", node.log_text())[-1])


@case(short=True)
def test_all_nodes_killed_know_what_was_done():
    with Cluster() as c:
        with c.client() as q, c.client() as other, c.client() as third:
            q.query("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
            one, two, three = (x.next_number() for x in (q, other, third))
            first = q.query(ONCE, number=one)
            q.query("BEGIN")
            q.query("INSERT INTO t(a) VALUES (2)")
            q.query("COMMIT", number=two)
            # It fails, and an attempt before it may still come: that is to fail, too.
            expect_error("SQL", lambda: q.query("INSERT INTO t(id) VALUES (1)", number=three,
                                                flags=AGAIN))
            q.query("UPDATE t SET id = 100 WHERE id = 1")
        for _ in range(2):
            for node in c.nodes:
                node.kill()
            c.start()
            for node in c.nodes:
                with node.client() as q:
                    again = q.query(ONCE, number=one, flags=AGAIN)
                    expect_equal(again.rows, first.rows, "the first answer")
                    q.query("COMMIT", number=two, flags=RESOLVE)
                    expect_error("SQL", lambda q=q: q.query("INSERT INTO t(id) VALUES (1)",
                                                            number=three))
        with c.client() as q:
            expect_equal(q.query("SELECT id, a FROM t").rows, [(2, 2), (100, "once")], "rows")
        expect_equal([covers(x) for x in c.nodes], [0, 0, 0], "what is not known")
        c.check_equal()


@case(short=True, seconds=120)
def test_nodes_that_fetched_their_database_run_nothing_twice():
    with Cluster(**SMALL) as c:
        make(c)
        leader = c.leader()
        with leader.client() as q:
            q.query("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
            number = q.next_number()
            q.query(ONCE, number=number)
        c.wait_equal()
        one, two = c.others(leader)
        # Its database is lost and its log is not: what it fetched, and all that the log says.
        one.stop()
        os.remove(one.database)
        c.restart(one)
        wait_fetched(c, one, 0)
        expect(covers(one) <= number.since, f"{one} did not read its log")
        # Their logs end before the others' begin, and are emptied: they know nothing of before.
        for victim in (one, two):
            before, last = fetches(victim), victim.status()["commit"]
            victim.kill()
            advance(c, victim, last)
            c.restart(victim)
            wait_fetched(c, victim, before)
            expect(covers(victim) > number.since, f"{victim} knows too much")
            c.wait_equal()
        leader.kill()  # the only one that knows it still
        with c.client() as q:
            error = expect_error("EXPIRED", lambda: q.query(ONCE, number=number, flags=AGAIN))
            expect(error.seq > number.since, "EXPIRED says from where on it knows")
            q.query(ONCE, number=q.next_number())
            expect_equal(q.query("SELECT count(*) FROM t").rows, [(2,)], "rows")
        c.restart(leader)
        c.wait_serving()
        c.check_equal()


@case(short=True)
def test_a_number_older_than_what_is_kept_of_its_writer_is_not_run():
    """4,096 answers of one writer are kept. It acknowledged none of them."""
    with Cluster(**STEADY) as c:
        follower = c.others(c.leader())[0]
        with c.client() as q, follower.client() as other:
            q.query("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
            first = q.next_number()
            q.query(ONCE, number=first)
            for _ in range(70):
                sent = []
                for _ in range(60):
                    q.numbers += 1
                    sent.append(q.begin("INSERT INTO t(a) VALUES ('more')",
                                        number=Number(q.writer, q.numbers, 0, first.since)))
                for request in sent:
                    q.finish(request)
            kept = Number(q.writer, q.numbers - 4000, 0, first.since)
            for s in (q, other):
                s.query("INSERT INTO t(a) VALUES ('more')", number=kept, flags=AGAIN)
                expect_error("EXPIRED", lambda s=s: s.query(ONCE, number=first, flags=AGAIN))
                expect_equal(s.query("SELECT count(*) FROM t").rows, [(4201,)], "rows")
