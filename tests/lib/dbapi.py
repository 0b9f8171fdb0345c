"""client/python as the tests take it: from the source, whatever else is installed."""

import os
import sys

from tests.lib.cluster import ROOT, expect

sys.path.insert(0, os.path.join(ROOT, "client", "python"))
import lectern  # noqa: E402  pylint: disable=wrong-import-position


def fails(kind, action, says=""):
    """The exception of exactly the class KIND that ACTION must raise."""
    try:
        result = action()
    except lectern.Error as e:
        expect(type(e) is kind and says in str(e), f"wanted {kind.__name__} {says!r}, got {e!r}")
        return e
    raise AssertionError(f"wanted {kind.__name__}, got {result!r}")
