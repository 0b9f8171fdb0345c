#!/usr/bin/env python3
"""Three nodes beside local SQLite, on this machine, in one run: `make bench`.

--library measures what the client library costs instead: the same requests through lectern_step
and lectern_start and over the bare protocol, in turn; the ratio is the library's rate to that.

Measures one-row INSERTs, each a transaction of its own that a majority has synced when it is
acknowledged, for 1, 8 and 64 clients; local SQLite in WAL mode with synchronous=FULL and NORMAL on
the same disk; and reads of one row by key. The measurements of one round follow each other, the
rounds repeat, and ratios are taken within a round: a machine that is slow for a while slows both.

The load generator and the three nodes share the processors: `cpu` is what the generator took.
"""

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)

# pylint: disable=wrong-import-position
from tests.lib.cluster import Cluster, Failure  # noqa: E402

CLIENTS = (1, 8, 64)
READ_LEVELS = ("any", "session", "strong")
TABLE = "CREATE TABLE bench(id INTEGER PRIMARY KEY, client INT, n INT, text TEXT)"
ROWS_READ = 10000
FULL, NORMAL = "local SQLite, synchronous=FULL", "local SQLite, synchronous=NORMAL"


def measure(build, *arguments, program="bench"):
    """One run of the load generator: {name: number}."""
    done = subprocess.run([os.path.join(build, program), *map(str, arguments)], check=False,
                          capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"{program} {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return {k: float(v) for k, v in (word.split("=") for word in done.stdout.split())}


def one_round(build, cluster, directory, seconds, reads):
    result = {}
    for name, sync in ((FULL, "full"), (NORMAL, "normal")):
        path = os.path.join(directory, f"local-{sync}.db")
        result[name] = measure(build, "--seconds", seconds, "--sync", sync, "sqlite", path)
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(path + suffix):
                os.remove(path + suffix)
    leader = cluster.leader()
    for n in CLIENTS:
        result[f"Lectern INSERT, {n} clients"] = measure(
            build, "--seconds", seconds, "--clients", n, "insert", leader.address)
    if reads:
        follower = cluster.others(leader)[0]
        for level in READ_LEVELS:
            result[f"Lectern SELECT at a follower, {level}, 64 clients"] = measure(
                build, "--seconds", seconds, "--clients", 64, "--level", level, "select",
                follower.address)
    if cluster.leader() is not leader:
        raise Failure("the leader changed during the round: its numbers mean nothing")
    return result


def library_round(build, cluster, seconds):
    """Pairs (bare protocol, library) of the same requests; the bare one asks the leader."""
    result, leader = {}, cluster.leader()
    url = f"lectern://{cluster.addresses()}/?timeout=60000"
    for what in ("insert", "select"):
        for n, how in ((1, "--step"), (1, None), (64, None)):
            flags = ["--seconds", seconds, "--clients", n]
            bare = measure(build, *flags, what, leader.address)
            name = f"{what}, {n} session{'s' * (n > 1)}, lectern_{'step' if how else 'start'}"
            result[name] = (bare, measure(build, *flags, *([how] if how else []), what, url,
                                          program="bench-library"))
    if cluster.leader() is not leader:
        raise Failure("the leader changed during the round: its numbers mean nothing")
    return result


def pairs_report(rounds, what, sides, keys):
    """Of rounds of pairs. WHAT is compared, its SIDES' names, KEYS: (key, what its title adds)."""
    width = max(map(len, rounds[0]))
    columns = [(side, key, sides[side] + follows) for key, follows in keys for side in (0, 1)]
    widths = [max(8, len(title)) for _, _, title in columns]
    print(f"\nmedian of {len(rounds)} rounds; ratio: {what} in the same round "
          "(lowest..highest)\n")
    print(f"{'':{width}}  " + "".join(f"{title:>{w}}  " for (_, _, title), w in
                                      zip(columns, widths)) + "ratio")
    for name in rounds[0]:
        numbers = (statistics.median(r[name][side][key] for r in rounds)
                   for side, key, _ in columns)
        ratios = [r[name][1]["rate"] / r[name][0]["rate"] for r in rounds]
        print(f"{name:{width}}  " + "".join(
            f"{n:{w}.{2 if key == 'cpu' else 0}f}  " for n, (_, key, _), w in
            zip(numbers, columns, widths)) + f"{statistics.median(ratios):.2f} "
            f"({min(ratios):.2f}..{max(ratios):.2f})")


def library_report(rounds):
    pairs_report(rounds, "the library's rate to the bare protocol's", ("bare", "lib"),
                 (("rate", "/s"), ("p50_us", " p50"), ("cpu", " cpu")))


def machine():
    model = next((l.split(":", 1)[1].strip() for l in open("/proc/cpuinfo", encoding="utf-8")
                  if l.startswith("model name")), platform.machine())
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}"


def report(rounds):
    width = max(map(len, rounds[0]))
    print(f"\nmedian of {len(rounds)} rounds; x FULL: ratio to local SQLite FULL in the same round "
          "(lowest..highest)\n")
    print(f"{'':{width}}  {'ops/s':>8}  {'p50 us':>7}  {'p99 us':>7}  {'cpu':>4}  x FULL")
    for name in rounds[0]:
        def median(key, name=name):
            return statistics.median(r[name][key] for r in rounds)
        ratios = [r[name]["rate"] / r[FULL]["rate"] for r in rounds]
        print(f"{name:{width}}  {median('rate'):8.0f}  {median('p50_us'):7.0f}  "
              f"{median('p99_us'):7.0f}  {median('cpu'):4.2f}  {statistics.median(ratios):.2f} "
              f"({min(ratios):.2f}..{max(ratios):.2f})")


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("--build", default="build/release")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    options.add_argument("--no-reads", action="store_true")
    options.add_argument("--library", action="store_true")
    given = options.parse_args()
    build = os.path.join(ROOT, given.build)
    # Beside the build, not in /tmp: that may be memory, where a sync costs nothing.
    directory = os.path.join(build, "bench-data")
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    print(f"{machine()}; {given.rounds} rounds of {given.seconds:g} s for each measurement")
    rounds = []
    try:
        with Cluster(3, build=build, directory=directory, election_timeout=1000,
                     heartbeat=100) as c:
            with c.client() as q:
                q.query(TABLE)
                q.query("INSERT INTO bench(client, n, text) WITH RECURSIVE i(n) AS (SELECT 1 UNION "
                        "ALL SELECT n + 1 FROM i LIMIT ?) SELECT 0, n, 'read me' FROM i",
                        (ROWS_READ,))
            c.wait_equal()
            for _ in range(given.rounds if given.library else 0):
                rounds.append(library_round(build, c, given.seconds))
            for i in range(0 if given.library else given.rounds):
                rounds.append(one_round(build, c, directory, given.seconds, not given.no_reads))
                print(f"round {i + 1}: " + ", ".join(
                    f"{name} {r['rate']:.0f}/s" for name, r in rounds[-1].items()), flush=True)
            c.check_equal(seconds=60)
            print("afterwards the three databases are equal")
        (library_report if given.library else report)(rounds)
    except Failure as e:
        print(f"bench failed: {e}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
