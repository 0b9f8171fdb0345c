"""Fifty restarts inside one process, two for each fetch: nothing is left behind."""

import os

from tests.cluster.test_restarts import restarts_leak_nothing
from tests.lib.cluster import case

LONG = int(os.environ.get("LECTERN_LONG", "1"))


@case(seconds=400 * LONG)
def test_fifty_restarts_inside_the_process():
    restarts_leak_nothing(25 * LONG)
