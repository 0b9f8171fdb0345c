"""Nodes die, pause and come back under a steady load of numbered writes: nothing acknowledged is
lost, nothing is there twice, and in the end all nodes are equal."""

import time

from tests.lib.cluster import (PATIENCE, SETTINGS, Cluster, case, expect, expect_equal,
                               wait_for)
from tests.lib.lectern_client import LecternError
from tests.lib.load import TABLE, Writers


def begin(c):
    with c.client() as q:
        q.query(TABLE)


def more(c, w, n=50, seconds=30.0):
    """Waits until N more writes were acknowledged than now: the cluster goes on."""
    goal = w.acknowledged + n
    c.wait(lambda: w.acknowledged >= goal or w.crashed, f"{n} more acknowledgements", seconds)


def check(c, w):
    w.stop()
    c.check_equal()
    for node in c.nodes:
        if node.running:
            w.check(node)


@case(short=True, seconds=90)
def test_kill_9_of_the_leader_under_load():
    with Cluster() as c:
        begin(c)
        with Writers(c.nodes, 6) as w:
            more(c, w, 200)
            old = c.leader()
            old.kill()
            more(c, w, 200)
            expect(c.leader() is not old, "a dead leader")
            c.restart(old)
            more(c, w, 200)
            c.wait(lambda: (old.status() or {}).get("role") in ("follower", "leader"),
                   f"{old} takes part again")
            check(c, w)


@case(seconds=120)
def test_the_leader_is_killed_again_and_again():
    with Cluster() as c:
        begin(c)
        with Writers(c.nodes, 4, filler=500) as w:
            for _ in range(5):
                more(c, w, 100)
                old = c.leader()
                old.kill()
                more(c, w, 50)
                c.restart(old)
                c.wait_serving()
            check(c, w)


@case(short=True, seconds=90)
def test_kill_9_of_all_three_loses_nothing_acknowledged():
    with Cluster() as c:
        begin(c)
        for round_ in range(2):
            with Writers(c.nodes, 6, first=100 * round_) as w:
                more(c, w, 300)
                for node in c.nodes:
                    node.kill()
                c.start()
                more(c, w, 50)
                check(c, w)


@case(seconds=90)
def test_a_paused_follower_does_not_stop_the_others_and_catches_up():
    with Cluster() as c:
        begin(c)
        with Writers(c.nodes, 4, filler=2000) as w:
            more(c, w, 100)
            # A leader that a busy machine lets stand still is toppled, too, but not each time.
            toppled = sum(pause_a_follower(c, w) for _ in range(3))
            expect(toppled < 3, "a paused follower toppled the leader")
            check(c, w)


def pause_a_follower(c, w):
    """For so long that it would stand for election. Returns whether another term began."""
    leader = c.leader()
    slow = c.others(leader)[0]
    term, began = leader.row()["term"], time.monotonic()
    slow.pause()
    # Writers that were connected to the paused node wait; the others go on.
    more(c, w, 300)
    wait_for(lambda: time.monotonic() - began > 2.2 * SETTINGS["election-timeout"] / 1000,
             "it has heard nothing for two timeouts")
    slow.resume()
    more(c, w, 100)

    def caught_up():
        lag = (slow.status() or {}).get("lag")
        return lag is not None and lag < 1000
    c.wait(caught_up, f"{slow} catches up")
    return leader.row()["term"] != term


@case(seconds=90)
def test_a_paused_leader_is_replaced_and_steps_down():
    with Cluster() as c:
        begin(c)
        with Writers(c.nodes, 6) as w:
            more(c, w, 200)
            old = c.leader()
            old.pause()
            new = c.wait(lambda: next((x for x in c.others(old)
                                       if (x.status() or {}).get("role") == "leader"), None),
                         "a new leader")
            more(c, w, 50)
            old.resume()
            c.wait(lambda: (old.status() or {}).get("role") == "follower", f"{old} steps down")
            expect(new.running, "the new leader")
            more(c, w, 100)
            check(c, w)


@case(seconds=90)
def test_a_deposed_leader_gives_no_stale_answer():
    """A leader that slept through its deposition finds requests in its sockets when it wakes up."""
    with Cluster() as c:
        with c.client() as setup:
            setup.query("CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE)")
            setup.query("INSERT INTO t VALUES (1, 'v0'), (2, 'taken')")
        for i in range(3):
            old = c.leader()
            swap, clash = old.client(), old.client()
            for each in (swap, clash):
                each.query("SELECT 1")
            old.pause()
            new = c.wait(lambda o=old: next(
                (x for x in c.others(o) if (x.status() or {}).get("role") == "leader"), None),
                "a new leader")
            with new.client() as q:
                q.query("UPDATE t SET v = ? WHERE id = 1", (f"new{i}",))
                q.query("UPDATE t SET v = ? WHERE id = 2", (f"free{i}",))
            asked = swap.begin("UPDATE t SET v = ? WHERE v = ?", (f"v{i + 1}", f"new{i}"))
            clashes = clash.begin("INSERT INTO t(v) VALUES ('taken')")
            old.resume()
            expect_equal(swap.finish(asked).changes, 1, "a compare-and-set after the new value")
            clash.finish(clashes)  # the name is free since before it was asked for
            with new.client() as q:
                q.query("DELETE FROM t WHERE v = 'taken'")
                q.query("UPDATE t SET v = 'taken' WHERE id = 2")
            swap.close()
            clash.close()
            c.wait_serving()
        c.check_equal()


@case(seconds=90)
def test_sigterm_hands_leadership_over():
    with Cluster(election_timeout=3000 * PATIENCE, heartbeat=300) as c:
        begin(c)
        with Writers(c.nodes, 4) as w:
            more(c, w, 200)
            old = c.leader()
            began = time.monotonic()
            old.stop()
            new = c.leader()
            more(c, w, 50)
            took = time.monotonic() - began
            expect(took < 2.8 * PATIENCE, f"{took:.1f} s: an election, not a hand-over")
            c.restart(old)
            c.wait_serving()
            expect(c.leader() is new, "a returning node took the leadership")
            more(c, w, 50)
            check(c, w)


@case(seconds=120)
def test_rolling_restarts_under_load():
    with Cluster() as c:
        begin(c)
        with Writers(c.nodes, 4, filler=1000) as w:
            for _ in range(2):
                for node in c.nodes:
                    more(c, w, 50)
                    node.stop()
                    more(c, w, 20)
                    c.restart(node)
                    c.wait_serving()
            check(c, w)


@case(seconds=90)
def test_without_a_majority_nothing_is_acknowledged():
    with Cluster(leader_wait=1500) as c:
        begin(c)
        leader = c.leader()
        with leader.client() as q:
            q.query("INSERT INTO numbered(writer, number) VALUES (1, 1)")
            c.wait_equal()
            for node in c.others(leader):
                node.kill()
            began = time.monotonic()
            try:
                done = q.query("INSERT INTO numbered(writer, number) VALUES (1, 2)",
                               timeout_ms=3000)
                expect(False, f"acknowledged by one of three: {done}")
            except LecternError as e:
                # On its way when its leader stepped down: nobody can know.
                expect(e.name in ("UNKNOWN", "NO_LEADER", "TIMEOUT", "NOT_LEADER"), str(e))
            expect(time.monotonic() - began < 15 * PATIENCE, "the answer came late")
            rows = q.query("SELECT number FROM numbered", level="any").rows
            expect_equal(rows, [(1,)], "an uncommitted row was seen")
        with leader.client() as q:
            def refused():
                try:
                    q.query("INSERT INTO numbered(writer, number) VALUES (1, 3)", timeout_ms=2000)
                except LecternError as e:
                    return e.name in ("NO_LEADER", "TIMEOUT")
                return False
            wait_for(refused, "a clear refusal once the leadership is lost")
        for node in c.others(leader):
            c.restart(node)
        c.wait_serving()
        c.check_equal()
        with c.client() as q:
            numbers = [r[0] for r in q.query("SELECT number FROM numbered").rows]
            expect(numbers in ([1], [1, 2]), f"rows after the return: {numbers}")


@case(seconds=60)
def test_one_node_alone_is_a_cluster_too():
    with Cluster(1) as c:
        begin(c)
        with Writers(c.nodes, 4) as w:
            more(c, w, 200)
            c.node(1).kill()
            c.start()
            more(c, w, 50)
            check(c, w)


@case(seconds=90)
def test_a_restart_goes_on_from_the_exact_position():
    """Every restart, clean or not, stands where it stood: the sequence never jumps or repeats."""
    with Cluster(wal_checkpoint="64KiB", wal_restart="256KiB") as c:
        begin(c)
        for kind in ("kill", "stop", "kill", "stop"):
            with c.client() as q:
                for i in range(100):
                    q.query("INSERT INTO numbered(writer, number, filler) VALUES (1, ?, ?)",
                            (i, "x" * 3000))
            seq, checksum = c.wait_equal()
            for node in c.nodes:
                getattr(node, kind)()
            c.start()
            expect_equal(c.wait_equal(), (seq, checksum), f"position after {kind} of all")
        expect_equal(c.node(2).read("SELECT count(*) FROM numbered"), [(400,)], "rows")
        c.check_equal()
