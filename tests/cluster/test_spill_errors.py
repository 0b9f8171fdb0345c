"""A disk that does not take the temporary file of a large transaction: the leader's, beside its
database, and the follower's, for its parts on their way in. The node names the file and the error
and stops; the cluster goes on."""

import os

from tests.cluster.test_disk_errors import FaultyCluster, says, state
from tests.lib.cluster import case, expect, expect_equal
from tests.lib.lectern_client import LecternError
from tests.lib.load import TABLE

LARGE = 20_000_000  # bytes: more than a transaction may keep in memory


def begin(c):
    with c.client() as q:
        q.query(TABLE)
        q.query("CREATE TABLE big(id INTEGER PRIMARY KEY, a)")
    c.wait_equal()


def write_large(q):
    q.query(f"INSERT INTO big(a) VALUES (randomblob({LARGE}))", timeout_ms=30000)


def heal(c, victim, rows):
    expect(victim.running, f"{victim} ended: {state(victim)}")
    victim.heal()
    victim.stop()
    c.restart(victim)
    c.wait_serving()
    c.wait_equal(60)
    with c.client() as q:
        expect_equal(q.query("SELECT count(*) FROM big", level="strong").rows, [(rows,)],
                     "large rows")
    c.check_equal()


LEADERS = [
    (("EROFS", "n", "main.db.overlay*"), "Read-only file system"),
    (("EIO", "w", "main.db.overlay*"), "Input/output error"),
    (("EIO", "r", "main.db.overlay*"), "Input/output error"),
]


@case(seconds=120)
def test_errors_of_the_leaders_temporary_file():
    with FaultyCluster() as c:
        begin(c)
        for n, (rule, words) in enumerate(LEADERS):
            leader = c.leader()
            os.truncate(leader.log, 0)
            leader.fail(rule)
            with leader.client() as q:
                try:
                    write_large(q)
                    raise AssertionError("a large write on a broken disk was acknowledged")
                except LecternError as e:
                    expect("main.db.overlay" in str(e) and words in str(e), f"{rule}: {e}")
            c.wait(lambda: says(leader, ["main.db.overlay", words]), f"{leader} names {words}")
            c.wait(lambda: c.leader_now() not in (None, leader), "another one leads", 15)
            with c.client() as q:
                write_large(q)
            heal(c, leader, n + 1)


FOLLOWERS = [
    (("EROFS", "n", "main.db.stash*"), "Read-only file system"),
    (("EIO", "w", "main.db.stash*"), "Input/output error"),
    (("EIO", "r", "main.db.stash*"), "Input/output error"),
]


@case(seconds=120)
def test_errors_of_a_followers_temporary_file():
    with FaultyCluster() as c:
        begin(c)
        for n, (rule, words) in enumerate(FOLLOWERS):
            victim = c.others(c.leader())[0]
            os.truncate(victim.log, 0)
            victim.fail(rule)
            with c.client() as q:
                write_large(q)
            c.wait(lambda: says(victim, ["main.db.stash", words]), f"{victim} names {words}")
            heal(c, victim, n + 1)


# --- damaged pages --------------------------------------------------------------------------------


@case(seconds=60)
def test_who_meets_an_unreadable_page_hears_which_node_and_where():
    for leads in (False, True):
        with FaultyCluster() as c:
            begin(c)
            leader = c.leader()
            victim = leader if leads else c.others(leader)[0]
            with c.client() as q:
                q.query("INSERT INTO big(a) VALUES (randomblob(100000))")
            c.wait_equal()
            victim.fail(("EIO", "r", "main.db-wal"))
            with victim.client() as q:  # the first to look: no reader has the pages yet
                try:
                    q.query("SELECT sum(length(hex(a))) FROM big", level="any", timeout_ms=20000)
                    raise AssertionError("unreadable pages were read")
                except LecternError as e:
                    for words in ("CORRUPT", f"node {victim.id}: ", "main.db-wal", "at byte",
                                  "cannot be read: Input/output error"):
                        expect(words in str(e), f"{words}: {e}")
            victim.heal()
            c.wait_equal(60)
            c.check_equal()
