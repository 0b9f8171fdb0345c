"""A disk that fails while a node runs: EIO and a file system that turned read-only, under each of
the node's files, for a follower and for the leader. The node names the file and the error, serves
nothing wrong, does not go on leading; the cluster goes on; after a restart the node is as before.

disk_faults.c makes the calls fail."""

import os
import re
import time

from tests.cluster.test_catchup import (fetches, fetching, make, never_wrong, remove,
                                        wait_fetched)
from tests.cluster.test_log_cut import SMALL
from tests.cluster.test_members import cluster as command
from tests.lib.cluster import BUILD, PATIENCE, STEADY, Cluster, Node, case, expect
from tests.lib.lectern_client import ConnectionLost, LecternError
from tests.lib.load import TABLE, Writers

LIBRARY = os.path.join(BUILD, "disk_faults.so")


class FaultyNode(Node):
    """A node whose disk can be told to fail."""

    def command(self, cluster, settings):
        sanitizer = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
        return ["env", f"LD_PRELOAD={LIBRARY}", f"FAULT_PLAN={self.plan}",
                f"ASAN_OPTIONS={sanitizer}", *super().command(cluster, settings)]

    @property
    def plan(self):
        return self.dir + ".plan"

    def fail(self, *rules):
        """Each (errno, calls, pattern below DIR)."""
        lines = "".join(f"{number} {calls} {self.dir}/{name}\n" for number, calls, name in rules)
        with open(self.plan + ".new", "w", encoding="utf-8") as f:
            f.write(lines)
        os.rename(self.plan + ".new", self.plan)

    def heal(self):
        os.remove(self.plan)


class FaultyCluster(Cluster):
    node_class = FaultyNode

    def __init__(self, **settings):
        expect(os.path.exists(LIBRARY), f"{LIBRARY} is missing: make {LIBRARY} B={BUILD}")
        super().__init__(**{**SMALL, **settings})


def state(node):
    row = node.status()
    return row["state"] if row else "no answer"


def says(node, words):
    """Its status and its log name the failure in these words."""
    text = state(node)
    return all(w in text for w in words) and all(w in node.log_text() for w in words)


def judge_reads(node, w):
    """What a failed node answers: an error, or a past that was true: no acknowledged row that it
    had shown is gone, no refused one is there."""
    refused = {k for k, v in list(w.answers.items()) if v == "refused"}
    try:
        with node.client(socket_timeout=5 * PATIENCE) as q:
            rows = q.query("SELECT writer, number, count(*) FROM numbered GROUP BY 1, 2",
                           level="any", timeout_ms=3000 * PATIENCE).rows
        for writer, number, count in rows:
            expect(count == 1, f"{node} shows {(writer, number)} {count} times")
            expect((writer, number) not in refused, f"{node} shows what was refused")
        return "answers"
    except (LecternError, ConnectionLost) as e:
        return f"refuses ({getattr(e, 'name', e)})"


def fail_under_load(c, leads, rules, words, ends=False):
    """Lets the disk of the leader, or of a follower, fail while writes go on, and mends it.
    Returns how long the node then took to stop."""
    leader = c.leader()
    victim = leader if leads else c.others(leader)[0]
    with Writers(c.nodes, 3, filler=2000, first=fail_under_load.first) as w:
        fail_under_load.first += 10
        c.wait(lambda: w.acknowledged > 30, "some writes")
        os.truncate(victim.log, 0)
        print(f"--- {'leader' if leads else 'follower'} {rules}")
        begun = time.monotonic()
        victim.fail(*rules)
        if ends:
            victim.should_run = False
        c.wait(lambda: says(victim, words), f"{victim} names {words}")
        named = time.monotonic() - begun
        c.wait(lambda: c.leader_now() not in (None, victim), "another one leads", 15)
        led = time.monotonic() - begun
        seen = w.acknowledged
        c.wait(lambda: w.acknowledged > seen + 50, "the cluster goes on")
        answers = judge_reads(victim, w)
        print(f"--- {'leader' if leads else 'follower'} {rules}: named after {named:.2f} s, "
              f"another leads after {led:.2f} s, a read: {answers}; {state(victim)}", flush=True)
        begun = time.monotonic()
        victim.terminate()
        status = victim.wait_end()
        took = time.monotonic() - begun
        victim.heal()
        c.restart(victim)
        c.wait_serving()
        w.stop()
    expect(status in (0, 1), f"exit status {status}")
    c.wait_equal(60)
    w.check(victim)
    c.check_equal()
    return took


fail_under_load.first = 100

FAULTS = [
    ([("EIO", "w", "raft/*.seg")], [".seg", "Input/output error"]),
    ([("EIO", "s", "raft/*.seg")], [".seg", "Input/output error"]),
    ([("EIO", "ws", "raft/meta*")], ["raft/meta", "Input/output error"]),
    ([("EIO", "w", "main.db-wal")], ["main.db-wal", "Input/output error"]),
    ([("EIO", "s", "main.db-wal")], ["main.db-wal", "Input/output error"]),
    ([("EIO", "w", "main.db")], ["main.db", "Input/output error"]),
    ([("EIO", "s", "main.db")], ["main.db", "Input/output error"]),
    ([("EIO", "ws", "hashes")], ["hashes", "Input/output error"]),
    ([("EIO", "wsn", "position*")], ["position", "Input/output error"]),
    ([("EIO", "wsn", "raft/snapshot*")], ["snapshot", "Input/output error"]),
    ([("EROFS", "wsn", "*")], ["Read-only file system"]),
    ([("EROFS", "wsn", "main.db*")], ["main.db", "Read-only file system"]),
]


def each_fault(leads):
    with FaultyCluster() as c:
        make(c)
        c.wait_equal()
        for rules, words in FAULTS:
            took = fail_under_load(c, leads, rules, words)
            if took > 2 * PATIENCE:  # it, or the machine, which does not do so twice
                took = fail_under_load(c, leads, rules, words)
            expect(took < 2 * PATIENCE, f"{rules}: {took:.1f} s to stop: somebody waits there")


@case(seconds=240)
def test_errors_of_a_followers_disk():
    each_fault(False)


@case(seconds=240)
def test_errors_of_the_leaders_disk():
    each_fault(True)


# --- reads ----------------------------------------------------------------------------------------


def unreadable_pages(leads, name):
    """Pages that the disk does not give back are fetched from another node; nobody gets them wrong,
    and nobody waits for them for ever."""
    with FaultyCluster() as c:
        make(c)
        leader = c.leader()
        victim = leader if leads else c.others(leader)[0]
        # Writes, so that there is a WAL to read.
        with Writers(c.nodes, 2, filler=2000, pause=0.01, first=3000) as w:
            c.wait(lambda: w.acknowledged > 30, "some writes")
            with c.client() as q:
                wanted = q.query("SELECT count(*), sum(length(a)), sum(a = x'00') FROM big").rows[0]
            before = fetches(victim)
            victim.fail(("EIO", "r", name))
            c.wait(lambda: (never_wrong(victim, wanted), "cannot be read: Input/output error"
                            in victim.log_text())[1], "the error is met and named")
            victim.heal()  # the disk's sector is another one, once it is written to
            wait_fetched(c, victim, before)
            seen = w.acknowledged
            c.wait(lambda: w.acknowledged > seen + 20, "the cluster goes on")
            w.stop()
        c.wait_equal()
        w.check(victim)
        c.check_equal()


@case(seconds=60)
def test_unreadable_pages_of_a_followers_database():
    unreadable_pages(False, "main.db")


@case(seconds=60)
def test_unreadable_pages_of_the_leaders_database():
    unreadable_pages(True, "main.db")


@case(seconds=60)
def test_unreadable_frames_of_a_followers_wal():
    unreadable_pages(False, "main.db-wal")


@case(seconds=60)
def test_unreadable_frames_of_the_leaders_wal():
    unreadable_pages(True, "main.db-wal")


@case(seconds=90)
def test_a_leader_that_cannot_read_its_log():
    """A member that was away asks for entries that are in no memory any more."""
    with FaultyCluster(**STEADY, log_keep="256MiB") as c:
        w = make_little(c)
        late = c.others(c.leader())[0]
        late.kill()
        with c.client() as q:
            for _ in range(130):  # more than the log keeps in memory
                q.query("UPDATE big SET a = randomblob(300000)", timeout_ms=20000)
        leader = c.leader()
        leader.fail(("EIO", "r", "raft/*"))
        c.restart(late)
        c.wait(lambda: says(leader, ["raft/", "cannot read", "Input/output error"]), "it is named")
        c.wait(lambda: c.leader_now() not in (None, leader), "another one leads", 15)
        with c.client() as q:
            q.query("INSERT INTO numbered(writer, number) VALUES (9, 1)", timeout_ms=20000)
        leader.heal()
        leader.stop()
        c.restart(leader)
        c.wait_serving()
        c.wait_equal()
        w.check(late)
        c.check_equal()


def make_little(c):
    with c.client() as q:
        q.query(TABLE)
        q.query("CREATE TABLE big(id INTEGER PRIMARY KEY, a)")
        q.query("INSERT INTO big(a) VALUES (randomblob(300000))")
    with Writers(c.nodes, 2) as w:
        c.wait(lambda: w.acknowledged > 20, "some writes")
        w.stop()
    return w


# --- a fetch --------------------------------------------------------------------------------------


@case(seconds=120)
def test_errors_of_the_disk_that_a_database_is_fetched_to():
    with FaultyCluster() as c:
        w = make(c)
        c.wait_equal()
        victim = c.others(c.leader())[0]
        for calls, words in (("w", ["cannot write"]), ("s", ["cannot sync"])):
            victim.kill()
            remove("main.db", "main.db-wal", "main.db-shm")(victim)
            victim.fail(("EIO", calls, "main.db.fetch"))
            os.truncate(victim.log, 0)
            c.restart(victim)
            c.wait(lambda x=words: says(victim, [*x, "main.db.fetch", "Input/output error"]),
                   f"{words} is named")
            expect(judge_reads(victim, w) != "answers", "it serves half a database")
            expect(not os.path.exists(victim.database), "half a database under its name")
            victim.heal()
            victim.stop()
            c.restart(victim)
            wait_fetched(c, victim, 0)
        w.check(victim)
        c.check_equal()


@case(seconds=60)
def test_a_fetch_is_from_the_follower_when_both_others_are_known():
    """Who is heard first may be asked first; the disk is full until both were heard."""
    with FaultyCluster() as c:
        make(c)
        c.wait_equal()
        leader = c.leader()
        victim, other = c.others(leader)
        lose_database(c, victim)
        c.wait(lambda: "failed from=" in victim.log_text(), "no room")
        c.wait(lambda: roles(victim, leader, other) == ["leader", "follower"], "both are known")
        before = victim.log_text().count(" fetch begins ")
        victim.heal()
        wait_fetched(c, victim, 0)
        sources = re.findall(r" fetch begins from=(\d+)", victim.log_text())[before:]
        expect(sources[0] == str(other.id), f"fetched from {sources}, the follower is {other}")
        c.check_equal()


def roles(by, *nodes):
    """What BY has heard of them."""
    with by.client() as q:
        found = {r["node"]: r["role"] for r in q.status()}
    return [found.get(n.id) for n in nodes]


# --- members --------------------------------------------------------------------------------------


def lose_database(c, node):
    """It comes back, and finds no room to fetch the database to."""
    node.kill()
    remove("main.db", "main.db-wal", "main.db-shm")(node)
    node.fail(("ENOSPC", "w", "main.db.fetch*"))
    c.restart(node)
    c.wait(lambda: fetching(node), f"{node} fetches")


@case(seconds=120)
def test_the_last_node_with_the_database_is_not_sent_away():
    with FaultyCluster() as c:
        w = make(c)
        c.wait_equal()
        leader = c.leader()
        one, two = c.others(leader)
        lose_database(c, one)
        # One of two can lead: it is told to, not the other.
        for _ in range(2):
            command(c, "transfer")
            c.wait(lambda: c.leader_now() in (leader, two), "a leader with the database")
        said = command(c, "transfer", one.id, status=1)
        expect("fetching the database" in said, said)
        if c.leader() is not leader:
            command(c, "transfer", leader.id)
        lose_database(c, two)
        c.wait(lambda: "fetching" in shown_state(leader, two), "the leader hears of it")
        for what in (("remove", leader.id), ("demote", leader.id), ("transfer",)):
            begun = time.monotonic()
            said = command(c, *what, status=1)
            expect("refused: no other voter has the database" in said and "fetching" in said, said)
            expect(time.monotonic() - begun < 5 * PATIENCE, f"{what} was refused late")
        said = command(c, "--timeout", 3000, "--force", "remove", leader.id, status=1)
        expect("no other voter has taken the leadership over in time" in said, said)
        expect(c.leader() is leader, "who leads")
        one.heal()
        two.heal()
        wait_fetched(c, one, 0)
        wait_fetched(c, two, 0)
        c.wait_equal()
        c.wait(lambda: {shown_state(leader, one), shown_state(leader, two)} == {"ok"},
               "the leader hears of both")
        expect("is a replica now" in command(c, "demote", leader.id), "demote")
        w.check(one)
        c.check_equal()


def shown_state(by, node):
    with by.client() as q:
        return next(r["state"] for r in q.status() if r["node"] == node.id)
