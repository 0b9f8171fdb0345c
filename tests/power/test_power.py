"""Power cuts over every sync boundary of a run: `make power`.

A single node runs under recorder.c, so that all its writes, syncs and renames are known; around
each sync the disk is rebuilt as a power cut would leave it (nothing unsynced, everything, or some
sectors), a node is started on it, and everything that was acknowledged before must be there,
nothing torn, and the database intact. LECTERN_SEED picks the sectors; LECTERN_LONG=1 takes every
boundary, otherwise a sample.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from tests.lib.cluster import BUILD, PATIENCE, Failure, Node, case, expect, free_port, wait_for
from tests.lib.lectern_client import ConnectionLost, LecternError
from tests.power import replay

SEED = int(os.environ.get("LECTERN_SEED", str(int(time.time()))))
LONG = os.environ.get("LECTERN_LONG", "0") != "0"
SAMPLE = 24
SETTINGS = {"election-timeout": 300, "heartbeat": 50, "wal-checkpoint": "64KiB",
            "wal-restart": "256KiB", "log-keep": "1MiB", "log-level": "info"}
HEALED = "hashes unusable|all pages are read|startup (rebuild|fetch)"
TABLE = "CREATE TABLE t(id INTEGER PRIMARY KEY, payload BLOB, version INTEGER NOT NULL)"


class RecordedNode(Node):
    """A node on a directory of its own; with TRACE, everything it writes is written down."""

    def __init__(self, directory, trace=None):
        super().__init__(1, directory, directory + ".log", free_port(), free_port(), BUILD)
        self.trace = trace

    def command(self, cluster, settings):
        command = super().command(cluster, settings)
        if self.trace is None:
            return command
        return ["env", f"LD_PRELOAD={os.path.join(BUILD, 'power_recorder.so')}",
                f"POWER_DIR={self.dir}", f"POWER_TRACE={self.trace}", *command]

    def run(self):
        self.start(f"1=127.0.0.1:{self.peer_port}", SETTINGS)

        def serves():
            if not self.running:
                raise Failure(f"the node did not start: {self.log_text()[-2000:]}")
            try:
                with self.client(socket_timeout=2.0 * PATIENCE) as c:
                    c.query("SELECT 1", level="strong", timeout_ms=2000)
                return True
            except (ConnectionLost, LecternError):
                return False
        wait_for(serves, "the node serves", 20)


class Work:
    """Writes of a known kind; `acked` is [(ns, id, version)] by the time of the acknowledgement."""

    def __init__(self, rng):
        self.rng, self.acked, self.newest, self.next = rng, [], {}, 1

    def note(self, ids, version):
        now = time.monotonic_ns()
        self.acked.extend((now, i, version) for i in ids)
        for i in ids:
            self.newest[i] = version

    def some(self, client, n):
        rng = self.rng
        for _ in range(n):
            kind = rng.choice(["insert", "insert", "many", "update"])
            if kind == "update" and self.newest:
                i = rng.choice(list(self.newest))
                version = self.newest[i] + 1
                client.query("UPDATE t SET version = ?, payload = randomblob(?) WHERE id = ?",
                             (version, rng.randint(0, 3000), i))
                self.note([i], version)
                continue
            ids = range(self.next, self.next + (rng.randint(2, 60) if kind == "many" else 1))
            self.next = ids.stop
            values = ", ".join(f"({i}, randomblob({rng.randint(0, 2000)}), 1)" for i in ids)
            client.query(f"INSERT INTO t VALUES {values}")
            self.note(ids, 1)


def record(base, rng):
    """Runs the work under the recorder, with a clean restart and a kill -9 in it."""
    node = RecordedNode(os.path.join(base, "node"), os.path.join(base, "trace"))
    os.makedirs(node.dir)
    work = Work(rng)
    for end in ("stop", "kill", "stop"):
        node.run()
        with node.client() as c:
            c.query(TABLE.replace("TABLE", "TABLE IF NOT EXISTS"))
            work.some(c, 120)
            if end == "kill":
                c.query("VACUUM")
            work.some(c, 40)
        if end == "stop":
            node.stop()
        else:
            node.kill()
    return node, work


def check_image(node, work, now_ns, what):
    """Starts NODE on its image: all that was acknowledged before NOW_NS is there."""
    must = {}
    for ns, i, version in work.acked:
        if ns < now_ns:
            must[i] = version
    try:
        node.run()
        with node.client() as c:
            if must:
                found = dict(c.query("SELECT id, version FROM t", level="strong").rows)
                lost = {i: v for i, v in must.items() if found.get(i, 0) < v}
                expect(not lost, lambda: f"{what}: acknowledged and gone: {sorted(lost)[:5]}")
        node.stop()
        # A node can mend much by itself: that must not hide what a sync too few would lose.
        mended = [l for l in node.log_text().splitlines() if re.search(HEALED, l)]
        expect(not mended, lambda: f"{what}: it had to be mended: {mended[:2]}")
        check = node.read("PRAGMA integrity_check")
        expect(check == [("ok",)], f"{what}: {check}")
    except (Failure, LecternError, ConnectionLost) as e:
        kept = f"{os.path.dirname(node.dir)}.failed"
        shutil.copytree(os.path.dirname(node.dir), kept, dirs_exist_ok=True)
        raise Failure(f"{what} (LECTERN_SEED={SEED}, kept in {kept}): {e}\n"
                      f"{node.log_text()[-3000:]}") from None
    finally:
        if node.running:
            node.process.send_signal(signal.SIGKILL)
            node.process.wait()
        for path in (node.dir, node.log):
            subprocess.run(["rm", "-rf", path], check=False)


def cut_everywhere(base, recorded, work, rng):
    trace = os.path.join(base, "trace")
    total = replay.boundaries(trace)
    chosen = set(range(total)) if LONG else set(rng.sample(range(total), min(SAMPLE, total)))
    disk = replay.Disk(recorded.dir)
    node = RecordedNode(os.path.join(base, "image"))
    seen = images = 0
    for op, inode, ns, a, b, data in replay.records(trace):
        if op == replay.SYNC_END:
            if seen in chosen:
                # Before and after the sync's return: an acknowledgement may rest on it only after.
                for how in ("none", "some", "all") if LONG else (rng.choice(["none", "some"]),):
                    disk.write_image(node.dir, how, rng)
                    check_image(node, work, ns, f"before sync {seen} of {total}, {how}")
                    images += 1
            seen += 1
        disk.step(op, inode, a, b, data)
    disk.write_image(node.dir, "none", rng)
    check_image(node, work, time.monotonic_ns(), "at the end")
    print(f"{images + 1} images of {total} sync boundaries", file=sys.stderr)


@case(seconds=3600 if LONG else 120)
def test_a_power_cut_at_any_sync_boundary_loses_nothing():
    rng = random.Random(SEED)
    print("LECTERN_SEED =", SEED)
    base = tempfile.mkdtemp(prefix="lectern-power-")
    try:
        node, work = record(base, rng)
        cut_everywhere(base, node, work, rng)
    finally:
        shutil.rmtree(base, ignore_errors=True)
