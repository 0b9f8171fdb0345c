"""Disks that fill up, with small file systems of their own: writes are refused or wait, reads go
on, and all goes on without a restart when there is room again."""

import ctypes
import os
import subprocess

from tests.cluster.test_catchup import fetches, serves
from tests.lib.cluster import PATIENCE, Cluster, case, expect, expect_equal, expect_error
from tests.lib.lectern_client import ConnectionLost, LecternError
from tests.lib.load import TABLE, Writers
from tests.lib.metrics import get, scrape, value

MIB = 1 << 20
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
_libc = ctypes.CDLL(None, use_errno=True)


def own_mounts():
    """This test's process (and its nodes) see mounts of their own from here on; they end with it.
    Without root: in a user namespace of its own."""
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        flags = CLONE_NEWNS
    else:
        flags = CLONE_NEWNS | CLONE_NEWUSER
    expect(_libc.unshare(flags) == 0, f"unshare: {os.strerror(ctypes.get_errno())}")
    if uid != 0:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"),
                           ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as f:
                f.write(text)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def small_disk(node, megabytes):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", node.dir],
                   check=True)


class SmallDisks:
    """A cluster each of whose nodes has a file system of its own, not yet started."""

    def __init__(self, megabytes, **settings):
        own_mounts()
        self.cluster = Cluster(start=False, log_keep=MIB, wal_checkpoint="256KiB",
                               wal_restart="512KiB", **settings)
        for node in self.cluster.nodes:
            small_disk(node, megabytes)

    def __enter__(self):
        try:
            self.cluster.start()
        except BaseException:
            self.cluster.show_logs()
            raise
        return self.cluster

    def __exit__(self, kind, error, trace):
        try:
            return self.cluster.__exit__(kind, error, trace)
        finally:
            for node in self.cluster.nodes:
                subprocess.run(["umount", "-l", node.dir], check=False)
            self.cluster.remove()


def filler(node):
    return os.path.join(node.dir, "filler")


def room(node):
    st = os.statvfs(node.dir)
    return st.f_bavail * st.f_frsize


def fill(node, leave):
    """Somebody else takes the room, all but LEAVE bytes."""
    with open(filler(node), "ab") as f:
        while room(node) > leave:
            piece = min(room(node) - leave, MIB)
            try:
                os.posix_fallocate(f.fileno(), os.path.getsize(filler(node)), piece)
            except OSError:
                break
            if room(node) <= max(leave, 4096):
                break


def make_room(node):
    os.remove(filler(node))


def state(node):
    row = node.status()
    return row["state"] if row else ""


def readiness(node, query=""):
    status, _, text = get(node, "/readyz" + query)
    return status, text.strip()


def try_write(c, timeout_ms=3000):
    """The error of one write through any node, or None."""
    try:
        with c.nodes[0].client() as q:
            q.query("INSERT INTO numbered(writer, number) VALUES (500, 1)",
                    timeout_ms=timeout_ms * PATIENCE)
        return None
    except LecternError as e:
        return e
    except ConnectionLost as e:
        return e


@case(short=True, seconds=120)
def test_below_the_reserve_writes_are_refused_and_reads_go_on():
    with SmallDisks(40, disk_reserve="12MiB", http=True) as c:
        with c.client() as q:
            q.query(TABLE)
            q.query("INSERT INTO numbered(writer, number) VALUES (1, 1)")
        c.wait_equal()
        for node in c.nodes:
            fill(node, 6 * MIB)
        for node in c.nodes:
            c.wait(lambda n=node: "disk-reserve" in state(n), f"{node} tells of its disk")
        c.wait(lambda: getattr(try_write(c), "name", "") == "FULL", "writes are refused")
        error = try_write(c)
        expect("the disk of node" in error.message and "disk-reserve" in error.message
               and "reads go on" in error.message, error.message)
        with c.client() as q:  # a transaction may read, and end
            q.query("BEGIN")
            expect_equal(q.query("SELECT writer FROM numbered").rows, [(1,)], "rows")
            expect_error("FULL", lambda: q.query("DELETE FROM numbered"), says="disk-reserve")
            expect_error("FULL", lambda: q.query("WITH x AS (SELECT 1) INSERT INTO numbered "
                                                 "SELECT 11, 2, 3, 4 FROM x"))
            q.query("COMMIT")
        for node in c.nodes:
            for level in ("any", "session", "strong"):
                with node.client() as q:
                    expect_equal(q.query("SELECT writer FROM numbered", level=level).rows, [(1,)],
                                 f"a read at {node}, level {level}")
            expect_equal(readiness(node), (200, "ready"), f"{node}, for reads")
            c.wait(lambda n=node: readiness(n, "?writes")[0] == 503, f"{node}, for writes")
            why = readiness(node, "?writes")[1]
            if node is c.leader():
                expect("the disk of node" in why and "disk-reserve" in why, why)
            else:
                expect_equal(why, "not ready: the leader's disk is full: it refuses writes", "why")
            expect_equal(value(scrape(node), "lectern_disk_low"), 1, f"lectern_disk_low of {node}")
        for node in c.nodes:
            make_room(node)
        c.wait(lambda: try_write(c) is None, "writes go on without a restart")
        c.wait(lambda: all(state(n) == "ok" for n in c.nodes), "all is well")
        c.wait(lambda: all(readiness(n, "?writes")[0] == 200 for n in c.nodes), "they say so")
        expect(all(value(scrape(n), "lectern_disk_low") == 0 for n in c.nodes), "lectern_disk_low")
        c.check_equal()


@case(seconds=120)
def test_a_leader_without_room_hands_over():
    with SmallDisks(40, disk_reserve="12MiB") as c:
        with c.client() as q:
            q.query(TABLE)
        c.wait_equal()
        leader = c.leader()
        with Writers(c.nodes, 3) as w:
            fill(leader, 8 * MIB)
            c.wait(lambda: c.leader_now() not in (None, leader), "another one leads")
            seen = w.acknowledged
            c.wait(lambda: w.acknowledged > seen + 100, "writes go on there")
            w.stop()
        make_room(leader)
        c.wait_equal()
        w.check(leader)
        c.check_equal()


@case(seconds=180)
def test_a_full_disk_of_a_follower_waits_and_goes_on():
    with SmallDisks(24, disk_reserve=0, http=True) as c:
        with c.client() as q:
            q.query(TABLE)
        victim = c.others(c.leader())[0]
        with Writers(c.others(victim), 3, filler=3000) as w:
            c.wait(lambda: w.acknowledged > 50, "some writes")
            fill(victim, 0)
            c.wait(lambda: "disk is full" in state(victim), "the follower says that it waits", 60)
            # A log that is cut makes a little room again and again.
            c.wait(lambda: readiness(victim, "?noleader") ==
                   (503, "not ready: the disk is full: what others write does not come in"),
                   "readiness")
            c.wait(lambda: value(scrape(victim), "lectern_disk_waits") == 1, "lectern_disk_waits")
            seen = w.acknowledged
            c.wait(lambda: w.acknowledged > seen + 200, "the others go on")
            with victim.client() as q:
                q.query("SELECT count(*) FROM numbered", level="any")
            make_room(victim)
            c.wait(lambda: state(victim) == "ok" and serves(victim), "it goes on", 60)
            w.stop()
        c.wait_equal(60)
        w.check(victim)
        c.check_equal()


@case(seconds=180)
def test_a_full_disk_of_the_leader_waits_and_goes_on():
    """Nobody reserved anything: somebody else has taken all of the room."""
    with SmallDisks(24, disk_reserve=0) as c:
        with c.client() as q:
            q.query(TABLE)
        leader = c.leader()
        with Writers(c.nodes, 3, filler=3000) as w:
            c.wait(lambda: w.acknowledged > 50, "some writes")
            fill(leader, 0)
            c.wait(lambda: "disk is full" in state(leader)
                   or c.leader_now() not in (None, leader), "the leader waits, or hands over", 60)
            with leader.client() as q:
                q.query("SELECT count(*) FROM numbered", level="any")
            make_room(leader)
            c.wait(lambda: state(leader) == "ok", "it goes on", 60)
            seen = w.acknowledged
            c.wait(lambda: w.acknowledged > seen + 50, "writes go on", 60)
            w.stop()
        c.wait_equal(60)
        w.check(leader)
        c.check_equal()


@case(seconds=120)
def test_all_disks_full_again_and_again():
    with SmallDisks(24, disk_reserve=0) as c:
        with c.client() as q:
            q.query(TABLE)
        with Writers(c.nodes, 3, filler=2000) as w:
            for _ in range(3):
                seen = w.acknowledged
                c.wait(lambda s=seen: w.acknowledged > s + 50, "writes go on", 60)
                for node in c.nodes:
                    fill(node, 0)
                c.wait(lambda: any("disk is full" in state(n) for n in c.nodes), "it stops", 60)
                for node in c.nodes:
                    make_room(node)
            seen = w.acknowledged
            c.wait(lambda: w.acknowledged > seen + 50, "writes go on in the end", 60)
            w.stop()
        c.wait_equal(60)
        w.check(c.nodes[0])
        c.check_equal()


@case(seconds=90)
def test_a_fetch_without_room_waits_for_it():
    with SmallDisks(32, disk_reserve=0) as c:
        with c.client() as q:
            q.query(TABLE)
            q.query("CREATE TABLE big(a)")
            for _ in range(8):
                q.query("INSERT INTO big VALUES (randomblob(1000000))")
        with Writers(c.nodes, 3, filler=3000) as w:
            c.wait(lambda: all(" log-cut index" in n.log_text() for n in c.nodes), "cuts")
            w.stop()
        c.wait_equal()
        victim = c.others(c.leader())[0]
        victim.kill()
        for name in ("main.db", "main.db-wal", "main.db-shm"):
            os.remove(os.path.join(victim.dir, name))
        fill(victim, 4 * MIB)
        c.restart(victim)
        c.wait(lambda: "No space left" in victim.log_text() or "FULL" in victim.log_text(),
               "the fetch meets the full disk")
        make_room(victim)
        c.wait(lambda: fetches(victim) > 0 and serves(victim), "fetched after all", 60)
        c.wait_serving()
        c.check_equal()


@case(seconds=60)
def test_a_read_only_file_system_is_named():
    with SmallDisks(24, disk_reserve=0) as c:
        with c.client() as q:
            q.query(TABLE)
        c.wait_equal()
        victim = c.others(c.leader())[0]
        victim.stop()
        subprocess.run(["mount", "-o", "remount,ro", victim.dir], check=True)
        c.restart(victim)
        victim.should_run = False
        expect(victim.wait_end_by_itself() == 1, "the exit status")
        last_words = victim.log_text().splitlines()[-1]
        expect("Read-only file system" in last_words or "readonly" in last_words, last_words)
        with c.client() as q:
            q.query("INSERT INTO numbered(writer, number) VALUES (1, 1)")
        subprocess.run(["mount", "-o", "remount,rw", victim.dir], check=True)
        c.restart(victim)
        c.wait_serving()
        c.check_equal()
