"""Drivers of others through the loss of leaders, in each way, and again and again."""

import itertools
import os
import random
import sys

from tests.clients import failover, programs
from tests.lib.cluster import Cluster, case

LOSSES = 10 * int(os.environ.get("LECTERN_LONG", "1"))


def count_through(failures, behind=False):
    missing = programs.install(oldest=20)
    if missing is not None:
        print(f"skipped: {missing}", file=sys.stderr)
        return
    with Cluster(3, http=True) as c:
        leader = c.leader()
        survivors = c.others(leader)
        failover.count_through(c, failures, failover.DRIVERS,
                               survivors if behind else [leader, *survivors])


@case(seconds=240, weight=2)
def test_drivers_whose_node_falls_silent():
    count_through(["pause"])


@case(seconds=240, weight=2)
def test_drivers_whose_node_ends():
    count_through(["stop"])


@case(seconds=240, weight=2)
def test_drivers_behind_whose_node_the_leader_is_killed():
    count_through(["kill"], behind=True)


@case(seconds=240, weight=2)
def test_drivers_behind_whose_node_the_leader_ends():
    count_through(["stop"], behind=True)


@case(seconds=120 * LOSSES, weight=2)
def test_drivers_through_many_losses():
    order = random.Random(os.environ.get("LECTERN_SEED", "5"))
    ways = list(itertools.islice(itertools.cycle(failover.FAILURES), LOSSES))
    order.shuffle(ways)
    count_through(ways)
