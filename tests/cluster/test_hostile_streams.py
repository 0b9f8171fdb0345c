"""Streams that end at bad moments, and clients that use them against the node."""

import time

from tests.lib import lectern_client as wire
from tests.lib.cluster import PATIENCE, Cluster, case, expect, expect_error

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
        other.connection.ping(timeout=2 * PATIENCE)


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
            hostile.send_raw(wire.frame(wire.CANCEL, 999999999) * 20000)
            began = time.monotonic()
            for _ in range(5):
                other.connection.ping(timeout=60)
            took = time.monotonic() - began
            expect(took < 1 * PATIENCE, f"another connection waited {took:.1f} s")
