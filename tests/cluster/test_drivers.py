"""Drivers and ORMs of others, unmodified, at the HTTP door: at the leader and at a follower.

They come from the npm registry (tests/clients); without one, these tests say so and pass.
"""

import sys

from tests.clients import programs
from tests.lib.cluster import Cluster, case


def run_everywhere(name, scheme="http"):
    """The program NAME at a follower, then at the leader of a cluster of its own."""
    missing = programs.install()
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
def test_drizzle():
    run_everywhere("drizzle.mjs")


@case(seconds=360)
def test_kysely():
    run_everywhere("kysely.mjs")


@case(seconds=360)
def test_prisma():
    run_everywhere("prisma.mjs")
