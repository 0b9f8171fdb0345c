"""A follower's connections to the leader: slow ones, those that come late, and those that lead to
somebody else."""

import contextlib
import socket
import struct
import threading
import time

from tests.cluster.test_hostile_streams import peak_mib
from tests.cluster.test_silent_leaders import RelayedCluster, hold_little
from tests.lib import lectern_client as wire
from tests.lib.cluster import (SANITIZED, STEADY, Cluster, case, expect, expect_equal,
                               expect_error, wait_for)
from tests.lib.hrana import Door


class Gate:
    """In front of PORT: passes bytes on at RATE a second, and none while it is shut."""

    def __init__(self, port):
        self.to, self.rate = port, 0
        self.open = threading.Event()
        self.open.set()
        self.answers = True  # else they are lost
        self.twist = None  # what becomes of them
        self.sockets = []
        self.listener = hold_little(socket.create_server(("127.0.0.1", 0)))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            a, _ = self.listener.accept()
            b = hold_little(socket.create_connection(("127.0.0.1", self.to)))
            self.sockets += [a, b]
            for x, y in ((a, b), (b, a)):
                threading.Thread(target=self.pass_on, args=(x, y, x is b), daemon=True).start()

    def cut(self):
        """The connections that are there end."""
        for s in self.sockets:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def pass_on(self, x, y, is_answer):
        try:
            while data := x.recv(65536):
                self.open.wait()
                if is_answer and self.twist:
                    data = self.twist(data)
                if self.answers or not is_answer:
                    y.sendall(data)
                if self.rate:
                    time.sleep(len(data) / self.rate)
        except OSError:
            pass
        for s in (x, y):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def gates(c):
    """Nobody has come to the relays yet: from now on they lead to gates."""
    for node in c.nodes:
        node.gate = Gate(node.port)
        node.relay.to = node.gate.port


@case(short=True)
def test_who_answers_at_the_leaders_address_and_is_another_gets_no_writes():
    with RelayedCluster() as c, Cluster(1, cluster_id=7) as other:
        leader = c.leader()
        node = c.others(leader)[0]
        for stranger in (other.nodes[0], c.others(leader)[1]):
            leader.relay.to = stranger.port
            with node.client() as q:
                expect_error("NO_LEADER", lambda q=q: q.query("CREATE TABLE t(a)", timeout_ms=500))
        leader.relay.to = leader.port
        with node.client() as q, other.client() as there:
            q.query("CREATE TABLE t(a)")
            expect_error("SQL", lambda: there.query("SELECT * FROM t"), says="no such table")
        expect("another node answers" in node.log_text(), "the log names it")


def done_for_description(data):
    """DONE where a DESCRIPTION came."""
    out, at = b"", 0
    while at + 13 <= len(data):
        length, kind, stream, request = struct.unpack_from("<IBII", data, at)
        one = data[at:at + 4 + length]
        if kind == wire.DESCRIPTION:
            one = wire.frame(wire.DONE, request, struct.pack("<QqqB", 1, 0, 0, 1), stream)
        out, at = out + one, at + 4 + length
    return out + data[at:]


@case(short=True)
def test_a_leader_that_answers_a_describe_with_done():
    """Its connection ends, and the transaction that lives there; the node that asked goes on."""
    with RelayedCluster(http=True) as c:
        leader = c.leader()
        node = c.others(leader)[0]
        gates(c)
        with node.client() as q, Door(node) as door:
            q.query("CREATE TABLE t(a)")
            leader.gate.twist = done_for_description
            q.query("BEGIN")
            expect_error("TXN_LOST", lambda: q.describe("SELECT * FROM t"))
            describe = {"type": "describe", "sql": "SELECT 1"}
            begin = {"type": "execute", "stmt": {"sql": "BEGIN"}}
            answer = door.pipeline(begin, describe, {"type": "close"})
            expect_equal(answer["results"][1]["error"]["code"], "TRANSACTION_CLOSED", "over HTTP")
            q.query("INSERT INTO t VALUES (1)")


@case(seconds=90)
def test_a_slow_way_to_the_leader_is_not_a_dead_one():
    """The PING waits behind 24 MB, of which 3 come a second."""
    with RelayedCluster(**STEADY) as c:
        leader = c.leader()
        node = c.others(leader)[0]
        gates(c)
        with node.client() as q:
            q.query("CREATE TABLE t(a)")
            leader.gate.rate = 3_000_000
            began = time.monotonic()
            q.query("INSERT INTO t VALUES (length(?))", (bytes(24_000_000),), timeout_ms=60000)
            expect(time.monotonic() - began > 5.5, "it was not slow")
            expect_equal(q.query("SELECT a FROM t").rows, [(24_000_000,)], "rows")
        expect("the leader is silent" not in node.log_text(), "the connection was given up")


@case(seconds=90)
def test_more_sessions_than_streams_wait_for_one_connection():
    """17,000 requests come before the leader has said WELCOME, and a connection has 16,000
    streams."""
    n = 17000
    with RelayedCluster(**STEADY, queue_length=n) as c:
        leader = c.leader()
        node = c.others(leader)[0]
        with leader.client() as q:
            q.query("CREATE TABLE t(a)")
        gates(c)
        leader.gate.open.clear()
        with node.client() as a, node.client() as b:
            for q in (a, b):
                q.send_raw(b"".join(wire.query(1, "UPDATE t SET a = 1", stream=i)
                                    for i in range(1, n // 2 + 1)))
            for q in (a, b):
                q.connection.ping()
            leader.gate.open.set()
            ends = {}
            for q in (a, b):
                for _ in range(n // 2):
                    f = q.read_frame()
                    end = "done" if f.type == wire.DONE else wire.parse_error(f.body).name
                    ends[end] = ends.get(end, 0) + 1
            expect_equal(ends, {"done": n}, "what became of them")


@case(seconds=90)
def test_what_waits_for_the_leader_counts_when_its_streams_are_closed():
    """Twenty times 20 MB are on their way to a leader that takes nothing."""
    with RelayedCluster(**STEADY, waiting_bytes="128MiB") as c:
        leader = c.leader()
        node = c.others(leader)[0]
        gates(c)
        with node.client() as q:
            q.query("CREATE TABLE t(a)")
            before = peak_mib(node)
            leader.gate.open.clear()
            with node.client() as hostile:
                for _ in range(20):
                    stream = hostile.stream()
                    stream.begin("INSERT INTO t VALUES (length(?))", (bytes(20_000_000),))
                    stream.close_stream()
                    hostile.connection.ping()
            more = peak_mib(node) - before
            expect(SANITIZED or more < 250, f"{more} MiB of 400 for streams that are closed")
            error = expect_error("BUSY", lambda: q.query("SELECT ?", (bytes(50_000_000),)))
            expect("waiting-bytes" in error.message, error.message)
            leader.gate.open.set()
            wait_for(lambda: q.query("SELECT count(*) FROM t", level="any").rows, "the node")
            wait_for(lambda: takes(q, 50_000_000), "all of the room again")


def takes(q, size):
    try:
        q.query("SELECT length(?)", (bytes(size),))
        return True
    except wire.LecternError as e:
        expect_equal(e.name, "BUSY", "why not")
        return False


@case(short=True)
def test_what_was_noted_of_a_write_in_doubt_is_told():
    """The first answer is lost, and the next one is settled: TOO_BIG, not UNKNOWN."""
    with RelayedCluster(answer_bytes="1MiB") as c:
        leader = c.leader()
        node = c.others(leader)[0]
        gates(c)
        with node.client() as q:
            q.query("CREATE TABLE t(a)")
            leader.gate.answers = False
            before = leader.row()["seq"]
            q.begin("INSERT INTO t VALUES (1), (2), (3) RETURNING zeroblob(900000)",
                    number=q.next_number(), flags=wire.AGAIN)
            wait_for(lambda: leader.row()["seq"] > before, "its failure is in the log")
            leader.gate.answers = True
            leader.gate.cut()
            error = expect_error("TOO_BIG", q.finish)
            expect(error.flags & wire.SETTLED, f"flags {error.flags}")
            expect_equal(q.query("SELECT count(*) FROM t").rows, [(0,)], "rows")
