"""A leader that leads, and whose clients' port says nothing more: its followers must notice by
themselves, for Raft has no reason to elect another one."""

import socket
import threading
import time

from tests.lib.cluster import (PATIENCE, STEADY, Cluster, Node, case, expect, expect_equal,
                               expect_error, wait_for)
from tests.lib.hrana import Door, atomic
from tests.lib.lectern_client import AGAIN


def hold_little(s):
    """A path holds what is under way on it. Left alone, the kernel would let each socket of a relay
    hold up to 32 MB, as it sees fit: more than a slow path passes on before it counts as dead."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # accepted sockets inherit both
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    return s


class Relay:
    """Passes bytes on to PORT until it is told to be silent; then it only takes them."""

    def __init__(self, port):
        self.to = port
        self.silent = False
        self.listener = hold_little(socket.create_server(("127.0.0.1", 0)))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            a, _ = self.listener.accept()
            try:
                b = hold_little(socket.create_connection(("127.0.0.1", self.to)))
            except OSError:
                a.close()
                continue
            for x, y in ((a, b), (b, a)):
                threading.Thread(target=self.pass_on, args=(x, y), daemon=True).start()

    def pass_on(self, x, y):
        try:
            while data := x.recv(65536):
                if not self.silent:
                    y.sendall(data)
        except OSError:
            pass
        for s in (x, y):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class RelayedNode(Node):
    """The other nodes reach it through its relay; clients of the test do not."""

    def __init__(self, *args):
        super().__init__(*args)
        self.relay = Relay(self.port)

    def command(self, cluster, settings):
        return [*super().command(cluster, settings), "--advertise",
                f"127.0.0.1:{self.relay.port}"]


class RelayedCluster(Cluster):
    node_class = RelayedNode


@case(seconds=90)
def test_a_silent_leader_is_given_up_and_its_sessions_hear_it():
    with RelayedCluster(**STEADY) as c:
        leader = c.leader()
        node = c.others(leader)[0]
        with node.client() as a, leader.client() as there:
            plain, open_one, numbered = a, a.stream(), a.stream()
            plain.query("CREATE TABLE t(a)")
            open_one.query("BEGIN")
            open_one.query("INSERT INTO t VALUES (0)")
            open_one.query("ROLLBACK")
            open_one.query("BEGIN")
            number = numbered.next_number()
            leader.relay.silent = True
            began = time.monotonic()
            plain.begin("INSERT INTO t VALUES (1)")
            open_one.begin("INSERT INTO t VALUES (2)")
            expect_error("UNKNOWN", plain.finish)
            expect_error("TXN_LOST", open_one.finish)
            took = time.monotonic() - began
            expect(3.5 < took < 20 * PATIENCE, f"given up after {took:.1f} s: PING, and 4 s")
            expect("the leader is silent" in node.log_text(), "its log does not say why")
            # A new connection is as silent: in time, and what is numbered is never said not to be.
            numbered.begin("INSERT INTO t VALUES (3)", number=number, timeout_ms=3000)
            error = expect_error("NO_LEADER", numbered.finish)
            expect_equal(c.leader(), leader, "who leads")
            leader.relay.silent = False
            numbered.query("INSERT INTO t VALUES (3)", number=number, flags=AGAIN)
            plain.query("INSERT INTO t VALUES (4)")
            expect_equal(there.query("SELECT a FROM t ORDER BY a").rows, [(3,), (4,)], error)


@case(seconds=90)
def test_a_leader_that_was_replaced_because_it_is_silent_is_not_waited_for():
    """Only an answer that is on its way is, and what is numbered goes to the next leader."""
    with Cluster(http=True) as c:
        leader = c.leader()
        node = c.others(leader)[0]
        with Door(node) as door:
            door.execute("CREATE TABLE t(a)")
            leader.pause()
            door.execute("INSERT INTO t VALUES (1)")
            wait_for(lambda: "another node leads now, and the old leader is silent"
                     in node.log_text(), "why it gave up the old leader, in its log")
            leader.resume()
            expect_equal(door.rows("SELECT a FROM t"), [(1,)], "once")


def two_rows(door, i):
    """An atomic batch of two rows I. Returns the code of what failed, None: nothing."""
    steps = atomic(*(f"INSERT INTO b VALUES ({i})" for _ in range(2)), begin="BEGIN IMMEDIATE")
    answer = door.post("/v3/pipeline", {"baton": None, "requests": [
        {"type": "batch", "batch": steps}, {"type": "close"}]},
                       headers={"lectern-timeout": "20000"})
    result = answer["results"][0]["response"]["result"]
    failed = [e for e in result["step_errors"] if e is not None]
    if not failed:
        expect(all(r is not None for r in result["step_results"][:4]), f"{i}: {result}")
        return None
    expect(result["step_errors"][0] is not None and len(failed) == 1 and
           not any(result["step_results"]), f"{i}: told once, as the failure of BEGIN: {result}")
    return failed[0]["code"]


@case(seconds=90)
def test_an_atomic_batch_whose_leader_falls_silent_or_dies():
    """Each is done whole and once, or not at all; what is not known is said so."""
    with RelayedCluster(**STEADY, http=True) as c:
        leader = c.leader()
        node = c.others(leader)[0]
        with Door(node) as door:
            door.execute("CREATE TABLE b(i)")
            expect_equal(two_rows(door, 0), None, "before")
            leader.relay.silent = True
            said = {1: two_rows(door, 1)}
            expect_equal(said[1], "SQLITE_IOERR", "of a leader that says nothing")
            leader.relay.silent = False
            wait_for(lambda: door.rows("SELECT 1"), "the node")
        stop = threading.Event()

        def write():
            with Door(node) as door:
                while not stop.is_set():
                    i = len(said) + 1
                    said[i] = two_rows(door, i)
        writer = threading.Thread(target=write)
        writer.start()
        wait_for(lambda: len(said) > 20, "writes")
        leader.kill()
        at = len(said)
        wait_for(lambda: len(said) > at + 20, "writes at the next leader")
        stop.set()
        writer.join()
        with Door(node) as door:
            count = dict(door.rows("SELECT i, count(*) FROM b GROUP BY i"))
        expect_equal(count.pop(0), 2, "the first")
        for i, code in said.items():
            allowed = {None: (2,), "SQLITE_IOERR": (0, 2)}.get(code, (0,))
            expect(count.get(i, 0) in allowed, f"{i}: {code}, {count.get(i, 0)} rows")
