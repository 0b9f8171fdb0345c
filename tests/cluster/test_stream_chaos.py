"""Hundreds of streams that do anything at any moment while leaders die; then nothing is left of
them: the room is empty, every node serves, the writers agree. A node that stops counts what waits,
and must find nothing (node_close)."""

import random
import threading
import time

from tests.lib import lectern_client as wire
from tests.lib.cluster import PATIENCE, Cluster, case, expect, expect_equal, wait_for

SECONDS = 8
ROOM = 50_000_000  # one request; the nodes have 128 MiB

STATEMENTS = (
    ("BEGIN", 0), ("BEGIN IMMEDIATE", 0), ("COMMIT", 0), ("ROLLBACK", 0), ("SAVEPOINT a", 0),
    ("RELEASE a", 0), ("INSERT INTO t VALUES (length(?))", 10),
    ("INSERT INTO t VALUES (length(?))", 300_000), ("INSERT INTO t VALUES (length(?))", 5_000_000),
    ("SELECT length(?)", 2_000_000), ("UPDATE t SET a = length(?) WHERE rowid < 5", 10),
    ("INSERT INTO t VALUES (1) RETURNING zeroblob(400000), length(?)", 10),
    ("INSERT INTO t SELECT value FROM json_each('[1,2,3,4,5,6,7,8,9]')"
     " RETURNING zeroblob(300000)", 0),
    ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000)"
     " SELECT i, zeroblob(1000) FROM n", 0),
    ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000000)"
     " SELECT count(*) FROM n", 0),
    ("SELECT nothing", 0), ("PRAGMA foreign_keys = OFF", 0), ("", 0),
)
FLAGS = (0, 0, 0, wire.INSIDE, wire.FOREIGN_KEYS_OFF, wire.AGAIN)


class Hostile(threading.Thread):
    """One connection at a time, to any node, with forty streams."""

    def __init__(self, cluster, seed):
        super().__init__(daemon=True)
        self.cluster, self.random = cluster, random.Random(seed)
        self.end = False
        self.connections = self.frames = 0
        self.failure = None

    def run(self):
        try:
            while not self.end:
                self.use(self.random.choice(self.cluster.nodes))
        except BaseException as e:  # pylint: disable=broad-except
            self.failure = e
            raise

    def use(self, node):
        try:
            q = node.client(socket_timeout=1.0)
        except (wire.ConnectionLost, wire.LecternError):
            time.sleep(0.05)  # it is dead now
            return
        self.connections += 1
        try:
            self.misuse(q)
        except (wire.ConnectionLost, wire.LecternError):
            pass
        finally:
            q.close()

    def misuse(self, q):
        streams = [q.stream() for _ in range(40)]
        takes = self.random.choice((0, 0.3, 1))
        for _ in range(self.random.randrange(20, 400)):
            if self.end:
                return
            self.act(q, self.random.choice(streams))
            if self.random.random() < takes:
                self.take(q)
        if self.random.random() < 0.3:
            try:
                q.shutdown_write()
            except OSError as e:  # its node is dead
                raise wire.ConnectionLost(str(e)) from e
            self.take(q, 200)

    def act(self, q, stream):
        r = self.random
        kind = r.random()
        self.frames += 1
        if kind < 0.70:
            sql, size = r.choice(STATEMENTS)
            number = stream.next_number() if r.random() < 0.3 else None
            flags = r.choice(FLAGS)
            stream.begin(sql, (bytes(size),) if "?" in sql else (), flags=flags, number=number,
                         level=r.choice(tuple(wire.LEVELS)), timeout_ms=r.choice((0, 50, 2000)),
                         min_seq=0)
        elif kind < 0.75:
            stream.begin_batch([("INSERT INTO t VALUES (?)", (1,))] * r.randrange(1, 9))
        elif kind < 0.85:
            stream.cancel(r.randrange(1, stream.request + 2))
        elif kind < 0.92:
            stream.close_stream()
        elif kind < 0.96:
            q.send_raw(wire.credit(stream.number, r.choice((1, 100_000, 1_000_000))))
        elif kind < 0.98:
            keep = r.randrange(1, 5)
            stream.begin("SELECT 1 -- " + "x" * 100_000, keep=keep)
            stream.begin("", keep=keep)
            q.forget(keep)
        else:
            half = wire.query(1, "SELECT ?", (bytes(1_000_000),), stream=stream.number)
            q.send_raw(half[:r.randrange(1, len(half))])
            raise wire.ConnectionLost("in the middle of a frame")

    def take(self, q, frames=20):
        """Reads what is there, as it is."""
        for _ in range(frames):
            try:
                f = q.read_frame(timeout=0.002)
            except wire.ConnectionLost as e:
                if "timed out" in str(e) or "in time" in str(e):
                    return
                raise
            if f.type == wire.ROWS and self.random.random() < 0.8:
                q.send_raw(wire.credit(f.stream, wire.HEAD + len(f.body)))


def kill_leaders(c, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(seconds / 4)
        victim = c.leader()
        victim.kill()
        c.restart(victim)


def serves(node):
    """All of its room is there, and the writer's."""
    try:
        with node.client() as q:
            rows = q.query("SELECT length(?)", (bytes(ROOM),), level="strong").rows
            q.query("INSERT INTO t VALUES (length(?))", (bytes(1_000_000),), timeout_ms=5000)
        return rows == [(ROOM,)]
    except (wire.LecternError, wire.ConnectionLost):
        return False


@case(short=True, seconds=120, weight=2)
def test_after_chaos_nothing_waits():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    with Cluster(waiting_bytes="128MiB", transaction_idle_timeout=2000) as c:
        with c.client() as q:
            q.query("CREATE TABLE t(a)")
        hostile = [Hostile(c, seed + i) for i in range(8)]
        for h in hostile:
            h.start()
        kill_leaders(c, SECONDS)
        for h in hostile:
            h.end = True
        for h in hostile:
            h.join(60 * PATIENCE)
            expect(not h.is_alive() and h.failure is None, f"a client ended with {h.failure}")
        expect(sum(h.connections for h in hostile) > 20, "few connections")
        for node in c.nodes:
            c.wait(lambda node=node: serves(node), f"{node} serves", 30)
        c.check_equal()
        with c.client() as q:
            wait_for(lambda: q.query("INSERT INTO t VALUES (1)").changes == 1, "a write")
            expect_equal(q.query("SELECT 1").rows, [(1,)], "a read")
