#!/usr/bin/env python3
"""The HTTP door beside the native protocol, at the leader, in one run: part of `make bench`.

The same one-row INSERTs and reads by key, with 1, 8 and 64 keep-alive connections: over the native
protocol by our load generator, over HTTP by wrk as Hrana pipelines (execute, close). The two of a
pair follow each other, the rounds repeat, and ratios are taken within a pair.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)

# pylint: disable=wrong-import-position
from tests.bench.run import (CLIENTS, ROWS_READ, TABLE, machine, measure,  # noqa: E402
                             pairs_report)
from tests.lib.cluster import Cluster, Failure  # noqa: E402

# The same statements as tests/bench/bench.c sends.
INSERT = "INSERT INTO bench(client, n, text) VALUES (?, ?, ?)"
SELECT = "SELECT client, n, text FROM bench WHERE id = ?"
LUA = """
wrk.method = "POST"
local head = '{"requests":[{"type":"execute","stmt":{"sql":"%(sql)s","args":['
local tail = ']}},{"type":"close"}]}'
local n = 0
request = function()
    n = n + 1
    return wrk.format(nil, "/v2/pipeline", nil, head .. %(args)s .. tail)
end
response = function(status, headers, body)
    if status ~= 200 or body:find('"type":"error"', 1, true) then
        io.stderr:write("answered ", status, " ", body, "\\n")
        os.exit(1)
    end
end
"""
INTEGER = """'{"type":"integer","value":"' .. %s .. '"}'"""
SCRIPTS = {
    "insert": {"sql": INSERT, "args": INTEGER % "1" + " .. ',' .. " + INTEGER % "n" +
               """ .. ',{"type":"text","value":"' .. string.rep("x", 100) .. '"}'"""},
    "select": {"sql": SELECT, "args": INTEGER % f"math.random({ROWS_READ})"},
}
UNITS = {"us": 1, "ms": 1000, "s": 1000000}


def wrk(script, port, connections, seconds):
    """One run: requests a second, and the latencies' median in microseconds."""
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", "-s",
         script, f"http://127.0.0.1:{port}/v2/pipeline"],
        check=False, capture_output=True, text=True)
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", done.stdout)
    median = re.search(r"50%\s+([0-9.]+)(us|ms|s)", done.stdout)
    if done.returncode != 0 or rate is None or median is None or "Non-2xx" in done.stdout or \
            "Socket errors" in done.stdout:
        raise Failure(f"wrk: {done.stdout}{done.stderr}")
    return {"rate": float(rate[1]), "p50_us": float(median[1]) * UNITS[median[2]]}


def one_round(build, cluster, directory, seconds):
    """Pairs (native, HTTP)."""
    result, leader = {}, cluster.leader()
    for what, parts in SCRIPTS.items():
        script = os.path.join(directory, what + ".lua")
        with open(script, "w", encoding="utf-8") as f:
            f.write(LUA % parts)
        for n in CLIENTS:
            native = measure(build, "--seconds", seconds, "--clients", n, what, leader.address)
            result[f"{what}, {n} connection{'s' * (n > 1)}"] = (
                native, wrk(script, leader.http_port, n, seconds))
    if cluster.leader() is not leader:
        raise Failure("the leader changed during the round: its numbers mean nothing")
    return result


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("--build", default="build/release")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    given = options.parse_args()
    build = os.path.join(ROOT, given.build)
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing: deploy/install-deps.sh --bench")
    directory = os.path.join(build, "bench-data")
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    print(f"{machine()}; {given.rounds} rounds of {given.seconds:g} s for each measurement")
    try:
        with Cluster(3, http=True, build=build, directory=directory, election_timeout=1000,
                     heartbeat=100) as c:
            with c.client() as q:
                q.query(TABLE)
                q.query("INSERT INTO bench(client, n, text) WITH RECURSIVE i(n) AS (SELECT 1 UNION "
                        "ALL SELECT n + 1 FROM i LIMIT ?) SELECT 0, n, 'read me' FROM i",
                        (ROWS_READ,))
            rounds = []
            for i in range(given.rounds):
                rounds.append(one_round(build, c, directory, given.seconds))
                print(f"round {i + 1}: " + ", ".join(
                    f"{name} {pair[1]['rate'] / pair[0]['rate']:.2f}"
                    for name, pair in rounds[-1].items()))
            pairs_report(rounds, "the rate over HTTP to the native protocol's", ("native", "HTTP"),
                         (("rate", "/s"), ("p50_us", " p50")))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
