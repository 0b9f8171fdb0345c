"""kill -9 at random moments, again and again, while one kind of upkeep never rests.

LECTERN_KILLS kills over each kind (200); LECTERN_SEED is the plan. The settings make the kind so
frequent that most kills fall into it; at the end the nodes' files must show that it happened.
Loops over fetching are in test_fetch_kills.py.
"""

import os
import random
import time

from tests.lib.cluster import Cluster, case, expect
from tests.lib.load import TABLE, Writers

SEED = int(os.environ.get("LECTERN_SEED", str(int(time.time()))))
KILLS = int(os.environ.get("LECTERN_KILLS", "200"))


def more(c, w, n, seconds=60.0):
    goal = w.acknowledged + n
    c.wait(lambda: w.acknowledged >= goal or w.crashed, f"{n} more acknowledgements", seconds)


def kill_one(c, rng):
    """Kills one node, sometimes all of them, and starts it again at once."""
    victims = c.nodes if not rng.randrange(12) else [rng.choice(c.nodes)]
    for node in victims:
        node.kill()
    for node in victims:
        c.restart(node)
    return len(victims)


def restarts(node):
    """How often the WAL was begun anew: the number of the newest record in `position`."""
    with open(os.path.join(node.dir, "position"), "rb") as f:
        data = f.read()
    return max(int.from_bytes(data[at + 16:at + 24], "little") for at in (0, 4096))


def copied_bytes(node):
    """The size of main.db itself: it grows by checkpoints only."""
    return os.path.getsize(node.database) - 4096


def cuts(node):
    """1 when the log no longer begins with its first entry."""
    names = [n for n in os.listdir(os.path.join(node.dir, "raft")) if n.endswith(".seg")]
    return int(bool(names) and min(int(n.split("-")[0]) for n in names) > 1)


def kill_loop(happened, **settings):
    """HAPPENED(node): what must be above 0 on every node in the end."""
    rng = random.Random(SEED)
    print("LECTERN_SEED =", SEED)
    with Cluster(**settings) as c:
        with c.client() as q:
            q.query(TABLE)
        kills = 0
        with Writers(c.nodes, 6, filler=600) as w:
            while kills < KILLS:
                for _ in range(5):
                    time.sleep(rng.uniform(0.0, 0.4))  # a random moment, not a wait for something
                    kills += kill_one(c, rng)
                more(c, w, 30)
            c.wait_serving(60)
            more(c, w, 300)
            w.stop()
        position = c.check_equal(60)
        for node in c.nodes:
            w.check(node)
        counted = {n.id: happened(n) for n in c.nodes}
        print(f"{kills} kills, {w.acknowledged} acknowledged, {dict(w.errors)}, {position}, "
              f"counted {counted}")
        expect(all(n > 0 for n in counted.values()), f"it did not happen everywhere: {counted}")


@case(seconds=1200, weight=2)
def test_kills_over_writes():
    kill_loop(lambda node: node.status()["seq"])


@case(seconds=1200, weight=2)
def test_kills_over_checkpoints():
    kill_loop(copied_bytes, wal_checkpoint="8KiB", wal_restart="64MiB")


@case(seconds=1200, weight=2)
def test_kills_over_wal_restarts():
    kill_loop(restarts, wal_checkpoint="8KiB", wal_restart="32KiB")


@case(seconds=1200, weight=2)
def test_kills_over_snapshots():
    kill_loop(cuts, log_keep="256KiB", wal_checkpoint="64KiB", wal_restart="256KiB")
