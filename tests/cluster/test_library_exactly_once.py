"""Exactly once through the client library: the short form of tests/faults/test_exactly_once.py."""

from tests.lib.cluster import Cluster, case
from tests.lib.exactly_once import trial


@case(seconds=120, weight=2)
def test_library_exactly_once():
    with Cluster() as c:
        trial(c, 5)
