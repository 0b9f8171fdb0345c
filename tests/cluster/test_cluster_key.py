"""The cluster's secret key, DIR/key: the same on all nodes, nobody else's to read, and back again
after whatever became of the file."""

import os
import stat

from tests.cluster.test_disk_errors import FaultyCluster
from tests.lib.cluster import case, expect, expect_equal


def path(node):
    return os.path.join(node.dir, "key")


def keys(node):
    """The keys in its file, the newest first; none: there is no file."""
    try:
        with open(path(node), encoding="ascii") as f:
            return f.read().splitlines()[1:]
    except FileNotFoundError:
        return []


@case(short=True, seconds=60)
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
