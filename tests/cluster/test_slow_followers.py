"""A follower that stands still costs the leader no memory: it is fed from the disk later."""

import os
import threading

from tests.lib.cluster import PATIENCE, STEADY, Cluster, case, expect, expect_equal

MIB = 1024 * 1024
BLOB = 400_000
# All of a node, and what it may grow by: measured 45 MiB and 5. Ten times as much is written.
RESIDENT_MAX = 100 * MIB
GROWTH_MAX = 30 * MIB
WARM = 120  # writes, so that what is always held is there
WRITES = 450


def resident(node):
    with open(f"/proc/{node.process.pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Most:
    """The largest resident size of NODE, looked at again and again until it is left."""

    def __init__(self, node):
        self.node = node
        self.most = 0
        self.leave = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.leave.wait(0.01):
            self.most = max(self.most, resident(self.node))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_exc):
        self.leave.set()
        self.thread.join()


def write(q, n):
    """N transactions of BLOB random bytes, some at once; the table stays small."""
    asked = []
    for _ in range(n):
        asked.append(q.begin("REPLACE INTO t SELECT abs(random()) % 20, randomblob(?)", (BLOB,)))
        if len(asked) == 8:
            q.finish(asked.pop(0))
    for request in asked:
        q.finish(request)


@case(seconds=120, weight=2)
def test_a_follower_that_stands_still_is_fed_from_the_disk():
    with Cluster(**STEADY, log_keep="1GiB") as c:
        leader = c.leader()
        slow, other = c.others(leader)
        with leader.client(socket_timeout=60.0 * PATIENCE) as q:
            q.query("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
            write(q, WARM)
            c.wait_equal()
            before = resident(leader)
            seq = slow.row()["seq"]
            slow.pause()
            with Most(leader) as leaders, Most(other) as others:
                write(q, WRITES)
            slow.resume()
            with Most(leader) as catching, Most(slow) as slows:
                c.wait_equal(60)
            print(f"leader {before // MIB} MiB, then at most {leaders.most // MIB} MiB while "
                  f"{WRITES * BLOB // MIB} MiB were written, {catching.most // MIB} MiB while the "
                  f"follower caught up; followers {others.most // MIB}, {slows.most // MIB} MiB")
            for most in (leaders.most, catching.most):
                expect(most - before < GROWTH_MAX,
                       f"the leader grew from {before // MIB} to {most // MIB} MiB")
            expect(max(leaders.most, catching.most, others.most, slows.most) < RESIDENT_MAX,
                   "a node is too large")
            expect(slow.row()["seq"] >= seq + WRITES, "it did not apply all")
        expect_equal(leader.row()["role"], "leader", "role of the leader, all the time")
        expect("fetch" not in slow.log_text(), "it fetched the database: the log was there")
        c.check_equal()
