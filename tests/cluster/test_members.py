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
