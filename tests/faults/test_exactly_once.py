"""A hundred leaders killed, paused and stopped under the load of the client library."""

import os

from tests.lib.cluster import Cluster, case
from tests.lib.exactly_once import trial

LONG = int(os.environ.get("LECTERN_LONG", "1"))


@case(seconds=1500, weight=2)
def test_exactly_once():
    with Cluster() as c:
        trial(c, 100 * LONG, show=lambda text: print(text, flush=True))
