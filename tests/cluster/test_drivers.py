"""Drivers and ORMs of others, unmodified, at the HTTP door: at the leader and at a follower.

They come from the npm registry (tests/clients); without one, these tests say so and pass.
"""

from tests.clients import failover, programs
from tests.lib.cluster import PATIENCE, Cluster, case


def run_everywhere(name, *schemes, oldest=18, at_leader=True):
    """The program NAME at a follower, then at the leader of a cluster of its own."""
    if not programs.are_here(oldest):
        return
    with Cluster(3, http=True, election_timeout=3000) as c:  # none by accident, for seconds
        leader = c.leader()
        for node in (c.others(leader)[0], leader) if at_leader else c.others(leader)[:1]:
            for scheme in schemes or ("http",):
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
def test_hrana_client():
    run_everywhere("hrana_client.mjs", "http", "ws")


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


@case(seconds=360)
def test_sequelize():
    run_everywhere("sequelize.mjs")


@case(seconds=360)
def test_typeorm():
    run_everywhere("typeorm.mjs")


@case(seconds=360)
def test_mikroorm():
    run_everywhere("mikroorm.mjs")


@case(seconds=360)
def test_drizzle_kit():
    run_everywhere("drizzle_kit.mjs", at_leader=False)  # many programs, and slow ones


@case(seconds=360)
def test_drivers_that_read_first_and_write_then():
    if not programs.are_here(20):
        return
    with Cluster(3, http=True, http_begin="immediate", election_timeout=3000 * PATIENCE,
                 heartbeat=300) as c:
        c.wait_serving()
        urls = [f"http://127.0.0.1:{node.http_port}" for node in c.nodes]
        with programs.Program("read_then_write.mjs", *urls) as p:
            p.result()
        c.check_equal()


# --- through the loss of a leader: also tests/faults/test_drivers_and_leaders.py ------------------


@case(seconds=240, weight=2)
def test_drivers_whose_node_is_killed():
    failover.count_through(["kill"])


@case(seconds=240, weight=2)
def test_drivers_behind_whose_node_the_leader_falls_silent():
    failover.count_through(["pause"], behind=True)
