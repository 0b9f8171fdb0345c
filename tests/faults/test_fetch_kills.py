"""kill -9 over catching up: of the node that fetches and of the one it fetches from, at random
moments of a fetch, while writes go on. Only kills that met a fetch under way count, LECTERN_KILLS
(200) of them; what each side was doing is read in the fetching node's log."""

import collections
import os
import random
import re
import time

from tests.cluster.test_catchup import SMALL, fatten, fetches, make, remove, serves
from tests.lib.cluster import Cluster, case, expect
from tests.lib.load import Writers

KILLS = int(os.environ.get("LECTERN_KILLS", "200"))
SEED = int(os.environ.get("LECTERN_SEED", str(int(time.time()))))
MEGABYTES = 60
# With the word that main.db.fetch is whole: beside it, a node refuses that file cut or gone.
LOST = remove("main.db", "main.db-wal", "main.db-shm", "main.db.fetched")
EVENT = re.compile(r" (?:fetch (begins|failed) from=(\d*)|fetch round=\d+ .*(differing|pinned)|"
                   r"replication fetch (begun|complete) |startup (installed) index)")
STEPS = ("begins", "begun", "differing", "pinned", "complete")  # in this order
WITHIN = STEPS[1:4]


class Watched:
    """The fetching node's log, since its last start."""

    def __init__(self, node):
        self.node, self.begin = node, 0

    def started(self):
        self.begin = os.path.getsize(self.node.log)

    def events(self):
        """[(one of STEPS, failed or installed; source or ""), ...]"""
        with open(self.node.log, "rb") as f:
            f.seek(self.begin)
            text = f.read().decode(errors="replace")
        return [(a or b or c or d, source) for a, source, b, c, d in EVENT.findall(text)]

    def source(self):
        """(The id of the node that it is fetching from at this moment, how far it is), or None."""
        found = None
        for name, source in self.events():
            if name == "begins":
                found = (int(source), name)
            elif name in ("failed", "installed"):
                found = None
            elif found is not None:
                found = (found[0], name)
        return found


def lose(victim, rng):
    """A stopped node loses its database; of what was fetched some, all or nothing is left."""
    LOST(victim)
    path = victim.database + ".fetch"
    kind = rng.randrange(4)
    if os.path.exists(path) and kind == 0:
        os.remove(path)
    elif os.path.exists(path) and kind == 1:
        os.truncate(path, os.path.getsize(path) * rng.randrange(100) // 100)


def restart(c, watched):
    """By its process alone: it may well be fetching for a long time."""
    watched.started()
    watched.node.start(c.members, c.settings)


class Kills:
    def __init__(self, c, victim, rng):
        self.c, self.victim, self.rng = c, victim, rng
        self.watched = Watched(victim)
        self.hits, self.missed = collections.Counter(), 0

    @property
    def count(self):
        return sum(self.hits.values())

    def under_way(self):
        """Waits for a fetch to reach a random step, or a random moment of it."""
        step = self.rng.choice(STEPS)
        self.c.wait(lambda: step in [e for e, _ in self.watched.events()] or serves(self.victim),
                    f"a fetch reaches {step}", 40)
        time.sleep(self.rng.random() ** 2 * self.rng.choice([0, 0.1, 0.4]))
        return self.watched.source()

    def kill_victim(self):
        self.victim.kill()
        at = self.watched.source()  # what it last said before it died
        if at is None:
            self.missed += 1
        else:
            self.hits["fetching node", at[1]] += 1
        if at is None or self.rng.randrange(8) == 0:
            lose(self.victim, self.rng)
        restart(self.c, self.watched)

    def kill_server(self, source):
        server, before = self.c.node(source), len(self.watched.events())
        at = self.watched.source()
        server.kill()
        # A hit: the fetch from it failed.
        self.c.wait(lambda: [e for e, _ in self.watched.events()[before:] if e not in WITHIN] or
                    serves(self.victim), "the fetching node goes on without its source", 40)
        after = [e for e, _ in self.watched.events()[before:] if e not in WITHIN]
        if at is not None and at[0] == source and after[:1] == ["failed"]:
            self.hits["source", at[1]] += 1
        else:
            self.missed += 1
        time.sleep(self.rng.random() * 0.3)
        self.c.restart(server)

    def one(self):
        at = self.under_way()
        if at is not None and at[1] != "complete" and self.rng.randrange(2):
            self.kill_server(at[0])
        else:
            self.kill_victim()


@case(seconds=1500, weight=2)
def test_200_kills_that_meet_a_fetch():
    rng = random.Random(SEED)
    print("LECTERN_SEED =", SEED)
    begun = time.monotonic()
    with Cluster(**SMALL) as c:
        make(c)
        fatten(c, MEGABYTES)
        victim = c.others(c.leader())[0]
        kills = Kills(c, victim, rng)
        with Writers(c.others(victim), 2, filler=2000, pause=0.02, first=5000) as w:
            victim.kill()
            lose(victim, rng)
            restart(c, kills.watched)
            while kills.count < KILLS:
                kills.one()
                if kills.count % 20 == 0:
                    print(f"{kills.count} hits, {kills.missed} missed, {w.acknowledged} writes, "
                          f"{fetches(victim)} fetched, {time.monotonic() - begun:.0f} s",
                          flush=True)
                expect(not w.crashed, lambda: w.crashed[0])
            c.wait(lambda: serves(victim), f"{victim} serves in the end", 60)
            c.wait_serving()
            seen = w.acknowledged
            c.wait(lambda: w.acknowledged > seen + 20, "writes go on")
            w.stop()
        c.check_equal(60)
        for node in c.nodes:
            w.check(node)
        print(f"{kills.count} kills that met a fetch, {kills.missed} others: {dict(kills.hits)}; "
              f"{fetches(victim)} databases fetched, {w.acknowledged} writes, "
              f"{time.monotonic() - begun:.0f} s")
        expect(len({who for who, _ in kills.hits}) == 2 or KILLS < 10, "one side was never killed")
