"""A wiped node never comes back under its old id (PROTOCOL.md, who is who)."""

import os
import shutil
import subprocess

from tests.lib.cluster import BUILD, Cluster, case, expect, expect_equal, wait_for


def wipe(node, what=""):
    shutil.rmtree(os.path.join(node.dir, what))
    os.makedirs(node.dir, exist_ok=True)


def expect_refused(c, node):
    """NODE is started, and ends by itself, with the others' sentence."""
    before = len(node.log_text())
    node.start(c.members, c.settings)
    node.should_run = False
    expect(node.wait_end_by_itself() != 0, f"{node} ended as if all were well")
    log = node.log_text()[before:]
    for words in (f"node {node.id} was known with other files", "forgotten votes",
                  f"lectern cluster remove {node.id}", "--join"):
        expect(words in log, f"{node} does not say {words!r}")
    refused = [line for line in log.splitlines() if "refused: node" in line]
    expect(refused, "no line says that it was refused")
    for line in refused:
        expect(line.endswith('under a new id: lecternd --join"'), f"it is cut: {line}")


@case(short=True)
def test_a_wiped_node_is_refused_and_says_what_to_do():
    with Cluster() as c:
        leader = c.leader()
        wiped = c.others(leader)[0]
        with leader.client() as q:
            q.query("CREATE TABLE t(a)")
            c.check_equal()
            wiped.kill()
            wipe(wiped)
            expect_refused(c, wiped)
            expect_refused(c, wiped)  # with the files that it made meanwhile, too
            q.query("INSERT INTO t VALUES (1)")  # the others go on
        for node in c.others(wiped):
            wait_for(lambda n=node: f"says_id={wiped.id}" in n.log_text(), f"{node} names it")
        c.check_equal()


@case(short=True)
def test_the_others_remember_over_their_own_restarts():
    """All were down; the wiped one comes first, so that it would be met anew by all."""
    with Cluster() as c:
        leader = c.leader()
        wiped = c.others(leader)[0]
        with leader.client() as q:
            q.query("CREATE TABLE t(a)")
            q.query("INSERT INTO t VALUES (1)")
        c.check_equal()
        for node in c.nodes:
            node.kill()
        wipe(wiped)
        wiped.start(c.members, c.settings)
        wiped.should_run = False
        for node in c.others(wiped):
            node.start(c.members, c.settings)
        expect(wiped.wait_end_by_itself() != 0, f"{wiped} ended as if all were well")
        c.wait_serving()
        with c.client() as q:
            expect_equal(q.query("SELECT a FROM t", level="strong").rows, [(1,)], "what was there")


@case(short=True)
def test_a_damaged_book_is_refused_and_may_be_removed():
    with Cluster() as c:
        node = c.others(c.leader())[0]
        book = os.path.join(node.dir, "raft", "peers")
        node.stop()
        with open(book, "r+b") as f:
            f.seek(50)
            byte = f.read(1)
            f.seek(50)
            f.write(bytes([byte[0] ^ 1]))
        done = subprocess.run([os.path.join(BUILD, "lectern"), "check", node.dir],
                              capture_output=True, text=True, timeout=60, check=False)
        expect_equal(done.returncode, 1, f"check: {done.stdout}")
        expect("peers is damaged" in done.stdout and "remove this one" in done.stdout, done.stdout)
        node.start(c.members, c.settings)
        node.should_run = False
        expect_equal(node.wait_end_by_itself(), 1, "exit status")
        expect("peers is damaged" in node.log_text(), "it does not say what is damaged")
        os.remove(book)
        node.start(c.members, c.settings)
        c.wait_serving()
        c.check_equal()
