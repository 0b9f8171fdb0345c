"""Drivers and ORMs of others, unmodified, at the HTTP door: at the leader and at a follower.

They come from the npm registry (tests/clients); without one, these tests say so and pass.
"""

import json
import sys

from tests.clients import programs
from tests.lib.cluster import Cluster, case, expect, expect_equal


def run_everywhere(name, scheme="http", oldest=18):
    """The program NAME at a follower, then at the leader of a cluster of its own."""
    missing = programs.install(oldest)
    if missing is not None:
        print(f"skipped: {missing}", file=sys.stderr)
        return
    with Cluster(3, http=True) as c:
        leader = c.leader()
        for node in (c.others(leader)[0], leader):
            with programs.Program(name, f"{scheme}://127.0.0.1:{node.http_port}") as p:
                p.result()
        c.check_equal()


@case(seconds=360)
def test_libsql_client():
    run_everywhere("libsql_client.mjs")


@case(seconds=360)
def test_libsql_client_over_websockets():
    run_everywhere("libsql_client.mjs", "ws")


@case(seconds=360)
def test_drizzle_over_websockets():
    run_everywhere("drizzle.mjs", "ws")


@case(seconds=360)
def test_drizzle():
    run_everywhere("drizzle.mjs")


@case(seconds=360)
def test_kysely():
    run_everywhere("kysely.mjs")


@case(seconds=360)
def test_prisma():
    run_everywhere("prisma.mjs", oldest=20)


@case(seconds=360)
def test_libsql_in_rust():
    run_everywhere("libsql_rust.mjs")


@case(seconds=360)
def test_serverless():
    run_everywhere("serverless.mjs")


@case(seconds=360)
def test_knex():
    run_everywhere("knex.mjs")


# --- through the loss of a leader -----------------------------------------------------------------


def rows(node, table="work"):
    return node.read(f"SELECT count(*) FROM {table}")[0][0]


def count_through_a_kill(driver, talks_to_leader, scheme="http"):
    """counter.mjs works while the leader is killed; then what it was told is what is there."""
    missing = programs.install()
    if missing is not None:
        print(f"skipped: {missing}", file=sys.stderr)
        return
    with Cluster(3, http=True) as c:
        leader = c.leader()
        with c.client() as db:
            db.query("CREATE TABLE work(id TEXT PRIMARY KEY)")
            db.query("CREATE TABLE part(work TEXT NOT NULL UNIQUE REFERENCES work(id))")
            db.query("CREATE TABLE counter(n INTEGER)")
            db.query("INSERT INTO counter VALUES (0)")
        survivor, other = c.others(leader)
        nodes = (leader, survivor, other) if talks_to_leader else (survivor, other)
        c.wait_equal()
        with programs.Program("counter.mjs", driver,
                              *(f"{scheme}://127.0.0.1:{n.http_port}" for n in nodes)) as p:
            c.wait(lambda: rows(survivor) > 50, "work is done")
            leader.kill()
            c.wait(lambda: c.leader_now(), "another leader")
            before = rows(survivor)
            c.wait(lambda: rows(survivor) > before + 50, "work is done by the others")
            c.restart(leader)
            p.stop()
            told = json.loads(p.result())
        print(f"{driver}, {scheme}, {'at the leader' if talks_to_leader else 'at a survivor'}: "
              f"{len(told['done'])} done, {len(told['doubtful'])} in doubt, longest "
              f"{told['longest']} ms, errors {json.dumps(told['errors'], indent=1)}")
        c.check_equal()
        check_work(survivor, set(told["done"]), told["done"], set(told["doubtful"]))
        # Knex keeps its streams, and takes them to the leader: base_url says where it is.
        if not talks_to_leader and driver != "knex":
            expect_equal(told["doubtful"], [], "a node that lives asks again by itself")


def check_work(node, done, acknowledged, doubtful):
    expect_equal(len(done), len(acknowledged), "ids that were acknowledged")
    found = {r[0] for r in node.read("SELECT id FROM work")}
    expect(done <= found, lambda: f"acknowledged and lost: {sorted(done - found)}")
    expect(found <= done | doubtful, lambda: f"nobody asked for {sorted(found - done - doubtful)}")
    expect_equal({r[0] for r in node.read("SELECT work FROM part")}, found, "parts")
    expect_equal(node.read("SELECT n FROM counter"), [(len(found),)], "the counter")


@case(seconds=360)
def test_batches_through_a_kill_of_the_leader_behind():
    count_through_a_kill("batch", talks_to_leader=False)


@case(seconds=360)
def test_batches_through_a_kill_of_the_node():
    count_through_a_kill("batch", talks_to_leader=True)


@case(seconds=360)
def test_transactions_through_a_kill_of_the_leader_behind():
    count_through_a_kill("transaction", talks_to_leader=False)


@case(seconds=360)
def test_transactions_through_a_kill_of_the_node():
    count_through_a_kill("transaction", talks_to_leader=True)


@case(seconds=360)
def test_websockets_through_a_kill_of_the_leader_behind():
    count_through_a_kill("transaction", talks_to_leader=False, scheme="ws")


@case(seconds=360)
def test_websockets_through_a_kill_of_the_node():
    count_through_a_kill("batch", talks_to_leader=True, scheme="ws")


@case(seconds=360)
def test_serverless_through_a_kill_of_the_leader_behind():
    count_through_a_kill("serverless", talks_to_leader=False)


@case(seconds=360)
def test_kysely_through_a_kill_of_the_leader_behind():
    count_through_a_kill("kysely", talks_to_leader=False)


@case(seconds=360)
def test_knex_through_a_kill_of_the_leader_behind():
    count_through_a_kill("knex", talks_to_leader=False)


@case(seconds=360)
def test_prisma_through_a_kill_of_the_leader_behind():
    count_through_a_kill("prisma", talks_to_leader=False)


@case(seconds=360)
def test_drizzle_through_a_kill_of_the_leader_behind():
    count_through_a_kill("drizzle", talks_to_leader=False)
