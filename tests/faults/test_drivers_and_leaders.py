"""Drivers of others through the loss of leaders, in each way, and again and again."""

import itertools
import os
import random

from tests.clients import failover
from tests.lib.cluster import case

LOSSES = 10 * int(os.environ.get("LECTERN_LONG", "1"))


@case(seconds=240, weight=2)
def test_drivers_whose_node_falls_silent():
    failover.count_through(["pause"])


@case(seconds=240, weight=2)
def test_drivers_whose_node_ends():
    failover.count_through(["stop"])


@case(seconds=240, weight=2)
def test_drivers_behind_whose_node_the_leader_is_killed():
    failover.count_through(["kill"], behind=True)


@case(seconds=240, weight=2)
def test_drivers_behind_whose_node_the_leader_ends():
    failover.count_through(["stop"], behind=True)


@case(seconds=120 * LOSSES, weight=2)
def test_drivers_through_many_losses():
    order = random.Random(os.environ.get("LECTERN_SEED", "5"))
    ways = list(itertools.islice(itertools.cycle(failover.FAILURES), LOSSES))
    order.shuffle(ways)
    failover.count_through(ways)
