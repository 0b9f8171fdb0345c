"""A year's database in ten minutes: 4 GB (LECTERN_GB), and what a node needs for it.

Memory is asserted (resident size, its peak in each phase); times are printed, for BENCHMARKS.md.
"""

import os
import re
import time

from tests.lib.cluster import Cluster, case, expect, expect_equal

GIGABYTES = float(os.environ.get("LECTERN_GB", "4"))
RESIDENT_MAX = 100 << 20
ROW, ROWS = 4000, 2000  # bytes of a row, rows of a transaction
INSERT = ("INSERT INTO big(payload) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
          f"LIMIT {ROWS}) SELECT randomblob({ROW}) FROM n")


class Memory:
    """The peak of each node's resident size, phase by phase."""

    def __init__(self, cluster):
        self.cluster, self.peaks = cluster, {}
        self.reset()

    def reset(self):
        for node in self.cluster.nodes:
            if node.running:
                with open(f"/proc/{node.process.pid}/clear_refs", "w", encoding="ascii") as f:
                    f.write("5")  # VmHWM begins anew

    def note(self, phase):
        peaks = []
        for node in self.cluster.nodes:
            if not node.running:
                continue
            with open(f"/proc/{node.process.pid}/status", encoding="ascii") as f:
                peaks.append(int(re.search(r"VmHWM:\s+(\d+) kB", f.read()).group(1)) << 10)
        self.peaks[phase] = max(peaks)
        print(f"{phase:28} peak resident {max(peaks) / 1e6:6.1f} MB", flush=True)
        self.reset()


def fill(cluster):
    began = time.monotonic()
    done = 0
    with cluster.client(socket_timeout=120.0) as q:
        while done < GIGABYTES * (1 << 30):
            q.query(INSERT)
            done += ROW * ROWS
    seconds = time.monotonic() - began
    print(f"{done / 1e9:.2f} GB loaded in {seconds:.0f} s, {done / seconds / 1e6:.0f} MB/s",
          flush=True)


def scan(cluster):
    for node in cluster.nodes:
        with node.client(socket_timeout=600.0) as q:
            began = time.monotonic()
            rows = q.query("SELECT count(*), sum(length(payload)) FROM big", level="any").rows
            print(f"full scan on {node}: {time.monotonic() - began:.1f} s, {rows}", flush=True)


def restart_all(cluster):
    for node in cluster.nodes:
        node.kill()
    began = time.monotonic()
    cluster.start()
    print(f"after kill -9 of all: serving again in {time.monotonic() - began:.2f} s", flush=True)


def catch_up(cluster):
    late = cluster.others(cluster.leader())[0]
    late.kill()
    for name in ("main.db", "main.db-wal", "main.db-shm", "position", "hashes"):
        if os.path.exists(os.path.join(late.dir, name)):
            os.remove(os.path.join(late.dir, name))
    began = time.monotonic()
    cluster.restart(late)
    with cluster.client(socket_timeout=120.0) as q:
        while (late.status() or {}).get("state") != "ok":
            q.query("UPDATE big SET payload = randomblob(4000) WHERE rowid = "
                    "(SELECT abs(random()) % max(rowid) + 1 FROM big)")
            expect(time.monotonic() - began < 900, f"{late} does not come back")
            time.sleep(0.02)
    print(f"a node without its database has it again after {time.monotonic() - began:.1f} s",
          flush=True)


@case(seconds=3600, weight=2)
def test_four_gigabytes_in_a_hundred_megabytes():
    with Cluster(election_timeout=1000, heartbeat=100) as c:
        memory = Memory(c)
        with c.client() as q:
            q.query("CREATE TABLE big(payload BLOB)")
        fill(c)
        memory.note("loading")
        scan(c)
        memory.note("full scans")
        restart_all(c)
        memory.note("start after kill -9")
        with c.client(socket_timeout=120.0) as q:
            for _ in range(2000):
                q.query("UPDATE big SET payload = randomblob(4000) WHERE rowid = "
                        "(SELECT abs(random()) % max(rowid) + 1 FROM big)")
        memory.note("random updates")
        catch_up(c)
        memory.note("catching up")
        position = c.wait_equal(120)
        for node in c.nodes:
            cuts = [int(ms) for ms in re.findall(r"cut index=.*sync_ms=(\d+)", node.log_text())]
            print(f"{node}: {len(cuts)} snapshots, of {sorted(cuts)[len(cuts) // 2]} ms in the "
                  f"middle, {max(cuts)} at most", flush=True)
        checks = [n.read("SELECT count(*) FROM big")[0][0] for n in c.nodes]
        expect_equal(len(set(checks)), 1, f"rows of the nodes at {position}")
        over = {k: v for k, v in memory.peaks.items() if v > RESIDENT_MAX}
        expect(not over, f"above {RESIDENT_MAX >> 20} MiB: {over}")
