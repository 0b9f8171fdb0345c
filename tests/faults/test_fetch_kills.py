"""kill -9, pauses and restarts of either side of a fetch: LECTERN_KILLS of them (200)."""

import os

os.environ.setdefault("LECTERN_KILLS", "200")

from tests.cluster import test_catchup  # pylint: disable=wrong-import-position
from tests.lib.cluster import case      # pylint: disable=wrong-import-position


@case(seconds=1800, weight=2)
def test_200_kills_of_either_side_of_a_fetch():
    test_catchup.test_kill_either_side_of_a_fetch_and_it_goes_on()
