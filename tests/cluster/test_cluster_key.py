"""The cluster's secret key, DIR/key: the same on all nodes, nobody else's to read, and back again
after whatever became of the file."""

import os
import stat

from tests.cluster.test_disk_errors import FaultyCluster
from tests.lib.cluster import Cluster, case, expect, expect_equal
from tests.lib.hrana import Door


def path(node):
    return os.path.join(node.dir, "key")


def keys(node):
    """The keys in its file, the newest first; none: there is no file."""
    try:
        with open(path(node), encoding="ascii") as f:
            return f.read().splitlines()[1:]
    except FileNotFoundError:
        return []


@case(seconds=60)
def test_the_key_is_the_same_everywhere_and_comes_back():
    with FaultyCluster(repair=0) as c:
        victim, other = c.others(c.leader())
        c.wait(lambda: all(keys(n) for n in c.nodes) and len({keys(n)[0] for n in c.nodes}) == 1,
               "all have the same key")
        key = keys(victim)[0]
        expect(len(key) == 64 and int(key, 16) >= 0, f"32 bytes: {key!r}")
        for node in c.nodes:
            expect_equal(stat.S_IMODE(os.stat(path(node)).st_mode), 0o600, f"its mode at {node}")
            expect(key not in node.log_text(), f"the log of {node} tells the key")

        victim.stop()
        os.remove(path(victim))
        victim.fail(("ENOSPC", "wn", "key*"))
        c.restart(victim)
        other.stop()
        with open(path(other), "w", encoding="ascii") as f:
            f.write("# Lectern: half a ")
        c.restart(other)
        c.wait(lambda: "the cluster's key is not saved" in victim.log_text(),
               "the disk has no room")
        expect_equal(keys(victim), [], "no file, rather than a wrong one")
        c.wait(lambda: (keys(other) or [""])[0] == key, "a damaged file is replaced")
        expect('key is damaged": nothing is to be done' in other.log_text(), "it says so")
        victim.heal()
        c.wait(lambda: (keys(victim) or [""])[0] == key, "what could not be saved is saved later")
        expect_equal(sorted(n for n in os.listdir(victim.dir) if n.startswith("key")), ["key"],
                     "nothing is left over")


def test_a_node_without_the_key_is_not_ready():
    """A baton that it signed would be good nowhere else."""
    with Cluster(3, http=True) as c:
        with c.client() as q:
            q.query("CREATE TABLE t(a)")
        c.wait_equal()
        c.stop()
        first = c.nodes[0]
        os.remove(path(first))
        c.restart(first)

        def told():
            try:
                with Door(first) as door:
                    r = door.ask("GET", "/readyz?noleader")
                    return r.status, r.read().decode()
            except OSError:
                return 0, ""
        c.wait(lambda: told()[0] != 0, "it answers")
        expect_equal(told(), (503, "not ready: this node has not heard the cluster's key yet\n"),
                     "alone")
        for node in c.nodes[1:]:
            c.restart(node)
        c.wait_serving()
        expect_equal(told(), (200, "ready\n"), "with the others")
