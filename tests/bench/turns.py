#!/usr/bin/env python3
"""The longest turn of a node's loop - in which nobody else is served, and no heartbeat is sent -
while one client asks for much over HTTP: long answers, long requests, very many requests.

    python3 tests/bench/turns.py --build build/release --build OTHER --rounds 5

Milliseconds of the processor, not of the clock (tests/bench/turns/turns.c). Of several builds each
round measures all, one after the other.
"""

import argparse
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)

# pylint: disable=wrong-import-position
from tests.lib.cluster import Cluster, expect  # noqa: E402
from tests.lib.hrana import WebSocket, batch, stmt  # noqa: E402
from tests.lib.hrana_protobuf import BYTES, field  # noqa: E402

ROWS = 150000
SELECT = "SELECT id, id * 7, 'some text of a row ' || id, id / 3.0 FROM n LIMIT {}"
TURN = struct.Struct("QQ")


def post(path, body, status=200):
    def ask(node):
        door = HTTPConnection("127.0.0.1", node.http_port, timeout=120)
        door.request("POST", path, body)
        answer = door.getresponse()
        text = answer.read()
        door.close()
        expect(answer.status == status, lambda: f"{path}: {answer.status} {text[:200]}")
    return ask


def pipeline(*requests):
    return json.dumps({"requests": [*requests, {"type": "close"}]})


def execute(sql, *args):
    return {"type": "execute", "stmt": stmt(sql, *args)}


def socket(request):
    def ask(node):
        with WebSocket(node, "hrana2") as ws:
            ws.call("open_stream", stream_id=1)
            ws.call(stream_id=1, **{"kind" if k == "type" else k: v for k, v in request.items()})
    return ask


def protobuf(sql):
    statement = field(1, BYTES, sql.encode())
    return field(2, BYTES, field(2, BYTES, field(1, BYTES, statement)))


def cases():
    many = {"type": "batch", "batch": batch(*[stmt("SELECT 1", *[None] * 1000)] * 450)}
    return {
        "an answer of 9.8 MB, JSON": post("/v2/pipeline", pipeline(execute(SELECT.format(60000)))),
        "an answer of 6.9 MB, Protobuf": post("/v3-protobuf/pipeline",
                                              protobuf(SELECT.format(130000))),
        "an answer of 9.8 MB, `/v1/execute`": post(
            "/v1/execute", json.dumps({"stmt": {"sql": SELECT.format(60000)}})),
        "an answer of 8.5 MB, `POST /`": post(
            "/", json.dumps({"statements": [SELECT.format(150000)]})),
        "an answer of 9.8 MB, WebSocket": socket(execute(SELECT.format(60000))),
        "one value of 6 MB": post("/v2/pipeline", pipeline(execute("SELECT zeroblob(6000000)"))),
        "130,000 `get_autocommit`, JSON": post(
            "/v3/pipeline", '{"requests":[' + ",".join(['{"type":"get_autocommit"}'] * 130000) +
            "]}"),
        "600,000 `get_autocommit`, Protobuf": post("/v3-protobuf/pipeline",
                                                   b"\x12\x02\x42\x00" * 600000),
        "a batch of 7 MB, JSON": post("/v2/pipeline", pipeline(many)),
        "a batch of 7 MB, WebSocket": socket(many),
        "a text of 16 MB, JSON": post("/v2/pipeline", pipeline(
            execute("SELECT length(?)", "x" * 16000000))),
    }


def longest(path, node, ask):
    """Milliseconds."""
    with open(path, "r+b") as f:
        f.write(bytes(os.path.getsize(path)))
    ask(node)
    time.sleep(0.3)  # what is given back behind the answer counts, too
    with open(path, "rb") as f:
        ns, turns = map(max, zip(*TURN.iter_unpack(f.read())))
    expect(turns > 0, "no turn was measured: how does this libuv wait?")
    return ns / 1e6


def measure(builds, rounds, directory):
    library = os.path.join(directory, "turns.so")
    source = os.path.join(ROOT, "tests/bench/turns/turns.c")
    subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror",
                    "-fPIC", "-shared", "-o", library, source], check=True)
    clusters, found = [], {}
    try:
        for i, build in enumerate(builds):
            path = os.path.join(directory, f"turns{i}")
            with open(path, "wb") as f:
                f.write(bytes(64 * TURN.size))
            os.environ.update(LD_PRELOAD=library, TURNS=path)
            clusters.append((path, Cluster(1, http=True, build=os.path.abspath(build))))
            del os.environ["LD_PRELOAD"]
            with clusters[-1][1].client() as c:
                c.query("CREATE TABLE n(id INTEGER PRIMARY KEY)")
                c.query("INSERT INTO n WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 "
                        "FROM i LIMIT ?) SELECT n FROM i", (ROWS,))
        for name, ask in cases().items():
            for _ in range(rounds):
                for i, (path, cluster) in enumerate(clusters):
                    found.setdefault((name, i), []).append(longest(path, cluster.nodes[0], ask))
            print(f"| {name} | " + " | ".join(
                f"{statistics.median(found[name, i]):.1f} ({max(found[name, i]):.1f})"
                for i in range(len(clusters))) + " |", flush=True)
        for _, cluster in clusters:
            cluster.stop()
    finally:
        for _, cluster in clusters:
            cluster.remove()


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("--build", action="append")
    options.add_argument("--rounds", type=int, default=5)
    given = options.parse_args()
    builds = given.build or ["build/release"]
    print("| longest turn, ms of the processor: median (most) | " + " | ".join(builds) + " |")
    with tempfile.TemporaryDirectory(prefix="lectern-turns-") as directory:
        measure(builds, given.rounds, directory)


if __name__ == "__main__":
    main()
