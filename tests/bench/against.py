#!/usr/bin/env python3
"""What a change costs: a node of each of two builds, asked in turn; `against.py BUILD OTHER`.

Prints the processor time of the node for each request, which other work on the machine moves less
than the rate: the median of the rounds and the ratio within a round (OTHER's to BUILD's), and the
least of all rounds, which other work moves least. The order of the two changes with each round.
"""

import argparse
import os
import shutil
import statistics
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)

# pylint: disable=wrong-import-position
from tests.bench.run import ROWS_READ, TABLE, measure  # noqa: E402
from tests.lib.cluster import Cluster, Failure  # noqa: E402

WHAT = (("insert", 8), ("insert", 64), ("select", 8), ("select", 64))


def cpu_us(node):
    """Of all its threads, none of which ends while it is measured."""
    tasks, total = f"/proc/{node.process.pid}/task", 0
    for task in os.listdir(tasks):
        with open(f"{tasks}/{task}/schedstat", encoding="ascii") as f:
            total += int(f.read().split()[0])
    return total / 1000


def cost(build, node, what, clients, seconds):
    """Microseconds of the node's for each request."""
    before = cpu_us(node)
    got = measure(build, "--seconds", seconds, "--clients", clients, what, node.address)
    return (cpu_us(node) - before) / (got["rate"] * seconds)


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("build")
    options.add_argument("other")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    given = options.parse_args()
    builds = [os.path.join(ROOT, b) for b in (given.build, given.other)]
    rounds = []
    try:
        clusters = []
        for build in builds:
            directory = os.path.join(build, "bench-data")
            shutil.rmtree(directory, ignore_errors=True)
            os.makedirs(directory)
            clusters.append(Cluster(1, build=build, directory=directory))
        with clusters[0] as a, clusters[1] as b:
            for c in (a, b):
                with c.client() as q:
                    q.query(TABLE)
                    q.query("INSERT INTO bench(client, n, text) WITH RECURSIVE i(n) AS (SELECT 1 "
                            "UNION ALL SELECT n + 1 FROM i LIMIT ?) SELECT 0, n, 'x' FROM i",
                            (ROWS_READ,))
            for i in range(given.rounds):
                rounds.append({})
                for what, clients in WHAT:
                    pair = [0, 0]
                    for side in ((0, 1), (1, 0))[i % 2]:
                        pair[side] = cost(builds[0], (a, b)[side].nodes[0], what, clients,
                                          given.seconds)
                    rounds[-1][what, clients] = pair
    except Failure as e:
        print(f"bench failed: {e}", file=sys.stderr)
        return 1
    finally:
        for build in builds:
            shutil.rmtree(os.path.join(build, "bench-data"), ignore_errors=True)
    print(f"{given.rounds} rounds of {given.seconds:g} s; us of processor for a request: median of "
          "each, ratio (lowest..highest); least of each, their ratio")
    for what, clients in WHAT:
        pairs = [r[what, clients] for r in rounds]
        ratios = [other / one for one, other in pairs]
        us = [statistics.median(p[side] for p in pairs) for side in (0, 1)]
        least = [min(p[side] for p in pairs) for side in (0, 1)]
        print(f"{what}, {clients:2} clients  {us[0]:6.1f}  {us[1]:6.1f}  "
              f"{statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})  "
              f"{least[0]:6.1f}  {least[1]:6.1f}  {least[1] / least[0]:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
