"""Restarts inside the process, as before and after each fetch, leave nothing behind: descriptors,
threads, memory. And what a stop or a pause does to a fetch under way."""

import os
import re
import time

from tests.cluster.test_catchup import begin_fetch, fatten, fetches, fetching, make, wait_fetched
from tests.cluster.test_log_cut import SMALL, first_index
from tests.lib.cluster import PATIENCE, STEADY, Cluster, case, expect

GROWTH_KIB = 2 * 1024  # of resident memory: the allocator's fragments, not a leak


def resources(node):
    """(descriptors, threads, resident KiB) of a node's process."""
    proc = f"/proc/{node.process.pid}"
    with open(proc + "/status", encoding="ascii") as f:
        status = f.read()
    return (len(os.listdir(proc + "/fd")), int(re.search(r"Threads:\s+(\d+)", status)[1]),
            int(re.search(r"VmRSS:\s+(\d+)", status)[1]))


def leave_behind(c, node):
    """NODE sleeps until the others have cut what it lacks, and then fetches."""
    last, before = node.row()["commit"], fetches(node)
    node.pause()
    with c.others(node)[0].client() as q:
        for i in range(200):
            q.query("UPDATE big SET a = randomblob(300000) WHERE id = 1 + abs(random() % 8)",
                    timeout_ms=20000)
            if i > 60 and all(first_index(x) > last + 1 for x in c.others(node)):
                break
    c.wait(lambda: all(first_index(x) > last + 1 for x in c.others(node)), "the others have cut")
    node.resume()
    wait_fetched(c, node, before)


def restarts_leak_nothing(cycles):
    with Cluster(**STEADY, **SMALL) as c:
        make(c)
        c.wait_equal()
        node = c.others(c.leader())[0]
        found = []
        for cycle in range(cycles + 2):
            leave_behind(c, node)
            c.wait_equal()
            found.append(resources(node))
            print(f"cycle {cycle}: {found[-1]}", flush=True)
        starts = len(re.findall(r"to be opened again", node.log_text()))
        expect(starts >= 2 * cycles, f"{starts} restarts inside the process")
        # The first ones warm up.
        fds, threads, kib = found[1]
        # What is under way for a moment is not left behind.
        c.wait(lambda: resources(node)[0] <= fds + 3 and resources(node)[1] <= threads + 1,
               f"descriptors and threads as before: {found}")
        fds_last, threads_last, kib_last = resources(node)
        kib = max(kib, found[2][2])
        print(f"{starts} restarts: descriptors {fds} -> {fds_last}, threads {threads} -> "
              f"{threads_last}, resident {kib} -> {kib_last} KiB")
        expect(kib_last <= kib + GROWTH_KIB, f"resident KiB: {found}")
        c.check_equal()


@case(seconds=90)
def test_restarts_inside_the_process_leak_nothing():
    restarts_leak_nothing(5)


# --- a stop and a pause in the middle of a fetch --------------------------------------------------


def logged(node, text):
    return text in node.log_text()


@case(seconds=120, weight=2)
def test_a_stop_while_a_large_database_is_read_back():
    with Cluster(log_keep="1MiB", wal_checkpoint="1MiB", wal_restart="4MiB") as c:
        make(c)
        fatten(c, 150)
        victim = c.others(c.leader())[0]
        for text in (" fetch begins from=", " pinned"):  # the pages travel; they are read back
            begin_fetch(c, victim)
            c.wait(lambda t=text: logged(victim, t), f"{victim} logs {text!r}", 60)
            before = time.monotonic()
            victim.terminate()
            expect(victim.wait_end() == 0, "exit status")
            took = time.monotonic() - before
            print(f"SIGTERM after {text!r}: {took:.2f} s; complete: "
                  f"{logged(victim, 'replication fetch complete')}")
            expect(took < 3 * PATIENCE, f"a stop after {text!r} took {took:.1f} s")
            os.truncate(victim.log, 0)
            c.restart(victim)
            wait_fetched(c, victim, 0)
            os.truncate(victim.log, 0)
        c.wait_serving()
        c.check_equal()


@case(seconds=120)
def test_the_source_of_a_fetch_stands_still_for_long():
    """For longer than an answer is waited for: the other source is taken, and nothing is lost."""
    with Cluster(log_keep="1MiB", wal_checkpoint="1MiB", wal_restart="4MiB") as c:
        make(c)
        fatten(c, 60)
        leader = c.leader()
        victim, source = c.others(leader)
        asked = ""
        while asked != str(source.id):  # a follower that says nothing for a moment is not asked
            victim.kill()
            os.truncate(victim.log, 0)
            begin_fetch(c, victim)
            asked = c.wait(lambda: re.search(r" fetch begins from=(\d+)", victim.log_text()),
                           "a source is asked")[1]
        source.pause()
        c.wait(lambda: fetching(victim) is None or logged(victim, " fetch failed from="),
               "the answer's time is over", 60)
        stood = logged(victim, " fetch failed from=")
        wait_fetched(c, victim, 0)
        with c.client() as q:  # two of three are enough, and one of them has just fetched
            q.query("INSERT INTO numbered(writer, number) VALUES (1, 1)", timeout_ms=20000)
        source.resume()
        c.wait_serving()
        print("the source stood still in the middle of the fetch:", stood)
        c.check_equal()
