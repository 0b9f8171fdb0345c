"""Members come and go: the commands, joining, replacing the dead, leaving, and a majority lost."""

import contextlib
import os
import random
import re
import shutil
import subprocess
import time

from tests.lib.cluster import (BUILD, PATIENCE, Cluster, Node, case, expect, expect_equal,
                               expect_error, free_port)
from tests.lib.lectern_client import ConnectionLost, LecternError
from tests.lib.load import TABLE, Writers

LECTERN = os.path.join(BUILD, "lectern")


class Joined(Node):
    """A node that joins: its id is in DIR/node once it has one."""

    def __init__(self, cluster, number, *flags, peer_port=None):
        directory = os.path.join(cluster.dir, f"node{number}")
        super().__init__(number, directory, directory + ".log", free_port(),
                         peer_port or free_port())
        self.flags = list(flags)

    def command(self, cluster, settings):
        flags = [f"--{name}={value}" for name, value in settings.items()]
        return [os.path.join(self.build, "lecternd"), "--data", self.dir, "--listen", self.address,
                "--peer-listen", f"127.0.0.1:{self.peer_port}", *self.flags, *flags]


def join(c, number, *flags, start=True, **options):
    """A new node, told to join C by any of its nodes."""
    node = Joined(c, number, "--join", c.addresses(), *flags, **options)
    c.nodes.append(node)
    if start:
        node.start(c.members, c.settings)
    return node


def cluster(c, *arguments, status=0, seconds=60):
    """`lectern cluster ...`: what it says; STATUS is its exit status."""
    done = subprocess.run([LECTERN, "cluster", "--connect", c.addresses(), *map(str, arguments)],
                          capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
                          timeout=seconds * PATIENCE)
    said = done.stdout + done.stderr
    expect_equal(done.returncode, status, f"lectern cluster {arguments}: {said!r}")
    return said.strip()


def members(c):
    """What the leader says: id -> member (voter, replica, spare)."""
    with c.client() as q:
        return {r["node"]: r["member"] for r in q.status()}


def wait_member(c, number, role, seconds=40.0):
    def has_role():
        try:
            return members(c).get(number) == role
        except (ConnectionLost, LecternError):
            return False
    c.wait(has_role, f"node {number} is a {role}", seconds)


def begin(c):
    with c.client() as q:
        q.query(TABLE)


@contextlib.contextmanager
def load(c):
    """Light writes while the members change; nothing acknowledged may be lost."""
    begin(c)
    with Writers(c.nodes[:3], 2) as w:
        c.wait(lambda: w.acknowledged > 50, "the load begins")
        yield w
        goal = w.acknowledged + 50
        c.wait(lambda: w.acknowledged >= goal or w.crashed, "the load goes on", 30)
        w.stop()
    position = c.check_equal()
    for node in c.nodes:
        if node.should_run:
            w.check(node)
    expect(position[0] > 0, "nothing was written")


@case(short=True, seconds=120)
def test_a_node_joins_and_is_promoted_when_it_has_caught_up():
    with Cluster() as c:
        with load(c):
            node = join(c, 4)
            wait_member(c, 4, "voter")
        text = open(os.path.join(node.dir, "node"), encoding="ascii").read()
        c.wait(lambda: "wish = none" in open(os.path.join(node.dir, "node"), encoding="ascii").read(),
               f"the wish is crossed out: {text}")
        said = cluster(c, "list")
        expect(len(said.splitlines()) == 5, said)
        # It goes on under its id, with --data alone.
        node.stop()
        node.flags = []
        c.restart(node)
        c.wait_serving()
        expect_equal(members(c)[4], "voter", "after a restart")
        # Demoted, it does not promote itself again, also not after a restart.
        if c.leader() is node:
            cluster(c, "transfer", 1)
        expect(re.search("node 4 is a replica now", cluster(c, "demote", 4)), "demote")
        node.stop()
        c.restart(node)
        c.wait_serving()
        time.sleep(1.5 * PATIENCE)  # three looks of the leader at its replicas
        expect_equal(members(c)[4], "replica", "after a demotion and a restart")
        c.check_equal()


@case(seconds=120)
def test_a_replica_stays_one_and_the_commands_change_it():
    with Cluster() as c:
        with load(c):
            node = join(c, 4, "--replica")
            wait_member(c, 4, "replica")
            c.wait(lambda: (node.status() or {}).get("state") == "ok", f"{node} is well")
            time.sleep(1.5 * PATIENCE)  # three looks of the leader at its replicas
            expect_equal(members(c)[4], "replica", "a replica that was not promoted")
            c.wait(lambda: "node 4 is a voter now" in try_cluster(c, "promote", 4), "promote")
            expect("already" in cluster(c, "promote", 4), "promoted twice")
            expect("node 4 leads now" in cluster(c, "transfer", 4), "transfer")
            expect_equal(c.leader(), node, "the leader")
            expect("leads now" in cluster(c, "transfer"), "transfer to anybody")
            expect(c.leader() is not node, "the leadership did not move")
            expect("node 4 is a replica now" in cluster(c, "demote", 4), "demote")
            expect("node 4 is removed" in cluster(c, "remove", 4), "remove")
            expect_equal(sorted(members(c)), [1, 2, 3], "members")
            # It learns of it, says so, and serves nothing.
            c.wait(lambda: "removed" in ((node.status() or {}).get("state") or ""),
                   f"{node} says that it was removed: {node.status()}")
            expect_error("STOPPED", lambda: node.client().query("SELECT 1", level="any"),
                         says="removed")
            node.should_run = False
            node.terminate()
            expect_equal(node.wait_end(), 0, "the removed node's exit status after SIGTERM")


def try_cluster(c, *arguments):
    """What a command says, whether it worked or not."""
    done = subprocess.run([LECTERN, "cluster", "--connect", c.addresses(), *map(str, arguments)],
                          capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
                          timeout=60 * PATIENCE)
    return done.stdout + done.stderr


@case(seconds=120)
def test_commands_say_what_is_wrong():
    with Cluster() as c:
        begin(c)
        said = cluster(c, "remove", 9, status=1)
        expect("not a member" in said, said)
        expect("not a member" in cluster(c, "transfer", 9, status=1), "transfer to nobody")
        expect("not a member" in cluster(c, "promote", 9, status=1), "promote nobody")
        expect("voter already" in cluster(c, "promote", 2), "promote a voter")
        taken = f"127.0.0.1:{c.node(2).peer_port}"
        said = cluster(c, "add", taken, status=1)
        expect("address of node 2" in said and "--replace 2" in said, said)
        free = f"127.0.0.1:{free_port()}"
        expect("node 4 is a replica now" in cluster(c, "add", free), "add")
        expect("node 4" in cluster(c, "add", free), "the same place again")
        said = cluster(c, "promote", 4, status=1)
        expect("cannot be reached" in said, said)
        expect("no voter" in cluster(c, "transfer", 4, status=1), "transfer to a replica")
        expect("node 4 is removed" in cluster(c, "remove", 4), "remove what never started")
        expect("node 5 is a replica now" in cluster(c, "add", free), "an id is never used again")
        cluster(c, "remove", 5)
        # A live voter must not go while another one is dead: the rest would have no majority.
        dead = c.others(c.leader())[0]
        dead.kill()
        live = next(x for x in c.others(c.leader()) if x is not dead)
        said = c.wait(lambda: (lambda s: s if "refused" in s else None)(
            try_cluster(c, "remove", live.id) if dead_is_noticed(c, dead) else ""),
            f"removing {live} is refused")
        expect("would have 2 voters" in said and "--force" in said, said)
        expect("refused" in cluster(c, "demote", live.id, status=1), "demote")
        # The dead one may go, and then nothing is left that could.
        expect(f"node {dead.id} is removed" in cluster(c, "remove", dead.id), "remove the dead one")
        for wrong in (["remove"], ["remove", "x"], ["remove", "1", "2"], ["add", "nowhere"],
                      ["nonsense"], [], ["list", "--timeout", "soon"]):
            done = subprocess.run([LECTERN, "cluster", "--connect", c.addresses(), *wrong],
                                  capture_output=True, text=True, check=False,
                                  stdin=subprocess.DEVNULL, timeout=20 * PATIENCE)
            expect_equal(done.returncode, 2, f"exit status of {wrong}: {done.stderr}")


def dead_is_noticed(c, node):
    with c.client() as q:
        return next(r for r in q.status() if r["node"] == node.id)["state"] == "unreachable"


@case(short=True, seconds=120)
def test_the_leader_is_removed_after_it_handed_over():
    with Cluster() as c:
        with load(c):
            join(c, 4)
            wait_member(c, 4, "voter")
            old = c.leader()
            expect(f"node {old.id} is removed" in cluster(c, "remove", old.id), "remove")
            expect(old.id not in members(c), "it is still a member")
            c.wait(lambda: "removed" in ((old.status() or {}).get("state") or ""),
                   f"{old} says that it was removed")
            expect(c.leader() is not old, "the removed one leads")
            old.stop()
        # It comes back: it is told, ends by itself, and served nothing.
        old.start(c.members, c.settings)
        old.should_run = False
        expect(old.wait_end_by_itself() != 0, "a removed node that came back ended with 0")
        expect("removed from the cluster" in old.log_text(), "its last word")


@case(seconds=120)
def test_a_dead_node_without_its_disk_is_replaced_by_one_command():
    for same_address in (True, False):
        with Cluster() as c:
            with load(c):
                dead = c.others(c.leader())[0]
                dead.kill()
                shutil.rmtree(dead.dir)
                port = dead.peer_port if same_address else None
                c.wait(lambda d=dead: dead_is_noticed(c, d), f"{dead} is missed")
                new = join(c, 4, "--replace", str(dead.id), peer_port=port)
                wait_member(c, 4, "voter")
                found = members(c)
                expect(dead.id not in found and len(found) == 3, f"members: {found}")
            expect(new.running, "the new node")


@case(seconds=120)
def test_a_live_node_is_not_replaced():
    with Cluster() as c:
        node = join(c, 4, "--replace", "2")
        node.should_run = False
        expect(node.wait_end_by_itself() != 0, "exit status")
        expect("node 2 is alive" in node.log_text(), "why")
        expect_equal(sorted(members(c)), [1, 2, 3], "members")
        node.flags[-1] = "9"
        node.start(c.members, c.settings)
        node.should_run = False
        expect(node.wait_end_by_itself() != 0, "exit status")
        expect("not a member" in node.log_text(), "why")


@case(short=True, seconds=120)
def test_a_wiped_voter_is_refused_under_its_old_id_and_served_nothing():
    with Cluster() as c:
        begin(c)
        with c.client() as q:
            q.query("INSERT INTO numbered(writer, number) VALUES (1, 1)")
        c.wait_equal()
        node = c.others(c.leader())[0]
        node.kill()
        shutil.rmtree(node.dir)
        for other in c.others(node):
            other.pause()  # nobody can refuse it yet
        node.start(c.members, c.settings)
        node.should_run = False
        answers = []

        def reads():
            try:
                with node.client(socket_timeout=3) as q:
                    answers.append(q.query("SELECT count(*) FROM sqlite_schema", level="any",
                                           timeout_ms=700).rows)
            except LecternError as e:
                answers.append(e.name)
                return True
            except ConnectionLost:
                pass
            return False
        c.wait(reads, "an answer, which is a refusal")
        expect_equal([a for a in answers if not isinstance(a, str)], [], "a wiped node served")
        for other in c.others(node):
            other.resume()
        expect(node.wait_end_by_itself() != 0, "exit status of the refused node")
        expect("files" in node.log_text().splitlines()[-1], node.log_text().splitlines()[-1])
        c.wait_serving()
        # The advice that it gives works.
        shutil.rmtree(node.dir)
        join(c, 4, "--replace", str(node.id), peer_port=node.peer_port)
        wait_member(c, 4, "voter")
        expect_equal(len(members(c)), 3, "members")
        c.check_equal()
