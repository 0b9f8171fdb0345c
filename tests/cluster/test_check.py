"""`lectern check DIR` on a stopped node's files: what is whole, and what is not."""

import os
import re
import subprocess

from tests.lib.cluster import BUILD, Cluster, case, expect, expect_equal, wait_for

FILL = ("INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300) "
        "SELECT i, randomblob(2000) FROM n")


def check(directory, program="lectern"):
    done = subprocess.run([os.path.join(BUILD, program), "check", directory], capture_output=True,
                          text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def stopped_node(cluster):
    """A follower with a WAL begun anew (so main.db counts), an image of which is returned."""
    with cluster.client() as q:
        q.query("CREATE TABLE t(i, payload)")
        for _ in range(4):
            q.query(FILL)
        q.query("UPDATE t SET i = i + 1 WHERE i < 3")
    cluster.wait_equal()
    node = cluster.others(cluster.leader())[0]
    return node


def flip(path, at):
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 4]))


def segments(node):
    raft = os.path.join(node.dir, "raft")
    return sorted(os.path.join(raft, n) for n in os.listdir(raft) if n.endswith(".seg"))


@case(short=True)
def test_check_finds_all_well_after_a_stop_and_after_a_kill():
    with Cluster(wal_checkpoint="64KiB", wal_restart="128KiB") as c:
        node = stopped_node(c)
        status, text = check(node.dir)
        expect_equal(status, 1, f"a running node is not checked: {text}")
        expect("stop the node" in text, text)
        position = node.row()
        node.kill()
        status, text = check(node.dir)
        expect_equal(status, 0, f"after kill -9: {text}")
        expect(f"sequence {position['seq']}" in text and position["checksum"] in text, text)
        c.restart(node)
        c.wait_equal()
        node.stop()
        for program in ("lectern", "lecternd"):
            status, text = check(node.dir, program)
            expect_equal(status, 0, f"{program} after a clean stop: {text}")
        before = {n: os.stat(os.path.join(node.dir, n)).st_mtime_ns for n in os.listdir(node.dir)}
        check(node.dir)
        after = {n: os.stat(os.path.join(node.dir, n)).st_mtime_ns for n in os.listdir(node.dir)}
        expect_equal(after, before, "a check changed files")


@case(short=True)
def test_check_names_what_is_damaged():
    with Cluster(wal_checkpoint="64KiB", wal_restart="128KiB") as c:
        node = stopped_node(c)
        node.stop()
        in_wal = set()
        with open(node.database + "-wal", "rb") as f:
            wal = f.read()
        for at in range(32, len(wal), 24 + 4096):
            in_wal.add(int.from_bytes(wal[at:at + 4], "big"))
        page = next(p for p in range(20, 400) if p not in in_wal)
        for path, at, says in ((node.database, (page - 1) * 4096 + 100, f"page {page}"),
                               (segments(node)[0], 4096 + 60, ".seg"),
                               (os.path.join(node.dir, "position"), 100, "position")):
            flip(path, at)
            if says == "position":
                flip(path, 4096 + 100)  # one slot of two is repaired silently
            status, text = check(node.dir)
            expect_equal(status, 1, f"{path} damaged: {text}")
            expect("DAMAGED" in text and says in text, f"{path}: {text}")
            flip(path, at)
            if says == "position":
                flip(path, 4096 + 100)
        expect_equal(check(node.dir)[0], 0, "all flipped back")
        os.rename(segments(node)[0], os.path.join(node.dir, "away"))
        status, text = check(node.dir)
        expect_equal(status, 1, f"a segment is missing: {text}")


@case(seconds=120)
def test_check_and_the_start_agree_about_a_damaged_wal():
    """What the next start mends by itself is a note; both name what is damaged."""
    header, frame = 5, 32 + 4120 * 3 + 500
    in_part = {"wal_checkpoint": "64KiB", "wal_restart": "64MiB"}  # main.db has a part of the WAL
    for settings, kill, at, status, says in (
            ({}, False, header, 0, "its header is damaged"),
            ({}, False, frame, 1, "frame 4 in .*main.db-wal, at byte 12392, is damaged"),
            ({}, True, header, 0, "its header is damaged"),
            ({}, True, frame, 0, "frame 4 in .*main.db-wal, at byte 12392, is damaged"),
            (in_part, True, header, 1, "its header is damaged")):
        with Cluster(**settings) as c:
            node = stopped_node(c)
            if settings:
                wait_for(lambda n=node: os.path.getsize(n.database) > 4096, "a checkpoint")
            (node.kill if kill else node.stop)()
            flip(node.database + "-wal", at)
            what = f"kill={kill} at={at}"
            found, text = check(node.dir)
            expect_equal(found, status, f"{what}: {text}")
            expect(re.search(("DAMAGED" if status else "note") + " .*" + says, text), text)
            before = len(node.log_text())
            c.restart(node)
            c.wait_equal()
            log = node.log_text()[before:]
            expect(re.search("warn .*wal_not_whole .*" + says, log), f"{what}: {log}")
            expect("another program opened" not in log, f"{what}: {log}")
            expect(not settings or "the WAL is damaged, and" in log, f"{what}: {log}")
            c.check_equal()


@case()
def test_check_without_a_node_and_with_a_wrong_command_line():
    with Cluster(1) as c:
        status, text = check(c.dir)
        expect_equal(status, 1, text)
        expect("holds no node" in text, text)
        for arguments in ([], ["--nonsense"], ["a", "b"]):
            done = subprocess.run([os.path.join(BUILD, "lecternd"), "check", *arguments],
                                  capture_output=True, text=True, timeout=60, check=False)
            expect_equal(done.returncode, 2, f"{arguments}: {done.stderr}")
