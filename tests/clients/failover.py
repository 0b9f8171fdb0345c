"""Programs of others' drivers through the loss of leaders: what they were told is what is there.

    count_through(["kill"])

counter.mjs works with each driver, all beside each other, at the first of the nodes that they are
given, and goes to the next one when that is lost. A leader is killed, paused or ended in good
order; the others go on; it comes back. In the end each row that was acknowledged is there once,
what is in doubt at most once, nothing else, and no error was seen after which a program cannot go
on.
"""

import contextlib
import json
import sys

from tests.clients import programs
from tests.lib.cluster import STEADY, Cluster, expect, expect_equal

# Drivers of the npm registry, and how they reach the node.
DRIVERS = (("batch", "http"), ("batch", "ws"), ("transaction", "http"), ("transaction", "ws"),
           ("drizzle", "http"), ("kysely", "http"), ("prisma", "http"), ("knex", "http"),
           ("sequelize", "http"), ("serverless", "http"), ("rust", "http"))
# How a leader is lost, and how it comes back.
FAILURES = {
    "kill": (lambda node: node.kill(), lambda c, node: c.restart(node)),
    "pause": (lambda node: node.pause(), lambda c, node: node.resume()),
    "stop": (lambda node: node.stop(), lambda c, node: c.restart(node)),
}
# Pieces of work of each program before a leader is lost, and behind that.
SOME = 10
# A program at a node that is paused gives it up by itself; behind other nodes it waits for them.
GIVE_UP_MS, PATIENT_MS = 2500, 30000


def done(node):
    """The rows of each program, by its name."""
    return dict(node.read("SELECT name, n FROM counter"))


def make_tables(c, names):
    with c.client() as db:
        db.query("CREATE TABLE work(id TEXT PRIMARY KEY)")
        db.query("CREATE TABLE part(work TEXT NOT NULL UNIQUE REFERENCES work(id))")
        db.query("CREATE TABLE counter(name TEXT PRIMARY KEY, n INTEGER NOT NULL)")
        for name in names:
            db.query("INSERT INTO counter VALUES (?, 0)", (name,))
    c.wait_equal()


def wait_some(c, started, node, what):
    """Until each program has done some more work, as NODE sees it."""
    since = done(node)

    def all_did():
        for program in started.values():
            program.expect_running()
        now = done(node)
        return all(now[name] >= since[name] + SOME for name in started)
    c.wait(all_did, f"{what}: all go on from {since}", 60)


def lose_a_leader(c, started, failure):
    lose, come_back = FAILURES[failure]
    leader = c.leader()
    survivors = c.others(leader)
    lose(leader)
    c.wait(lambda: any((x.status() or {}).get("role") == "leader" for x in survivors),
           f"another leader after a {failure}")
    wait_some(c, started, survivors[0], f"{failure} of {leader}")
    come_back(c, leader)


def count_through(failures, behind=False):
    """All drivers, at the leader, or at a node that lives and BEHIND which the leader is lost,
    again and again: each name in FAILURES is one way."""
    if not programs.are_here(oldest=20):
        return
    with Cluster(3, **STEADY, http=True) as c:  # the leader to lose is the one that leads now
        leader = c.leader()
        survivors = c.others(leader)
        work_through(c, failures, survivors if behind else [leader, *survivors])


def work_through(c, failures, nodes):
    """The programs work at the first of NODES to begin with."""
    names = {f"{driver}-{scheme}": (driver, scheme) for driver, scheme in DRIVERS}
    make_tables(c, names)
    behind = c.leader() not in nodes
    all_end_well = set(failures) == {"stop"}
    timeout = PATIENT_MS if behind or all_end_well else GIVE_UP_MS
    with contextlib.ExitStack() as stack:
        started = {}
        for name, (driver, scheme) in names.items():
            urls = (f"{scheme}://127.0.0.1:{n.http_port}" for n in nodes)
            started[name] = stack.enter_context(programs.Program(
                "counter.mjs", driver, name, timeout, *urls))
        wait_some(c, started, nodes[0], "all begin")
        for failure in failures:
            lose_a_leader(c, started, failure)
            c.wait_serving()
        for program in started.values():
            program.stop()
        told = {name: json.loads(p.result().splitlines()[-1]) for name, p in started.items()}
    c.check_equal()
    for name, said in told.items():
        print(f"{name}: {len(said['done'])} done, {len(said['doubtful'])} in doubt, longest "
              f"{said['longest']} ms, errors {json.dumps(said['errors'], indent=1)}",
              file=sys.stderr)
        check_work(nodes[0], name, said)
        if behind or (all_end_well and name.endswith("-http")):
            expect_equal(said["doubtful"], [], f"{name}: in doubt, though its node was there to "
                         "ask again, or to say that it ends")


def check_work(node, name, said):
    acknowledged, doubtful = set(said["done"]), set(said["doubtful"])
    expect_equal(said["unexpected"], [], f"{name}: errors that no program can answer")
    expect_equal(len(acknowledged), len(said["done"]), f"{name}: ids that were acknowledged")
    mine = f"{name}-*"
    found = {r[0] for r in node.read("SELECT id FROM work WHERE id GLOB ?", mine)}
    lost, invented = acknowledged - found, found - acknowledged - doubtful
    expect(not lost, f"{name}: acknowledged and lost: {sorted(lost)}")
    expect(not invented, f"{name}: nobody asked for {sorted(invented)}")
    parts = {r[0] for r in node.read("SELECT work FROM part WHERE work GLOB ?", mine)}
    expect_equal(parts, found, f"{name}: parts")
    expect_equal(done(node)[name], len(found), f"{name}: the counter")
