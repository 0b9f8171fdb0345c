"""Hostile and clumsy clients: each gets one clear error, and nobody else notices."""

import http.client
import os
import random
import re
import socket
import struct

from tests.lib import lectern_client as wire
from tests.lib.cluster import (PATIENCE, STEADY, Cluster, case, expect, expect_equal,
                               expect_error, free_port)
from tests.lib.lectern_client import BadFrame, Client, ConnectionLost, LecternError
from tests.lib.load import TABLE, Writers


def last_words(client):
    """Reads frames until the server closes; the last ERROR, or None."""
    error = None
    try:
        while True:
            f = client.read_frame(timeout=10 * PATIENCE)
            if f.type == wire.ERROR:
                error = wire.parse_error(f.body)
    except ConnectionLost as e:
        expect(not re.search("in time|timed out", str(e)), "neither an answer nor a close")
    return error


def raw(node, data, handshake=True):
    """A connection with DATA sent; the server may close while we still send."""
    client = Client("127.0.0.1", node.port, socket_timeout=10 * PATIENCE, handshake=handshake)
    try:
        client.send_raw(data)
    except ConnectionLost:
        pass
    return client


def hostile_bytes(rng):
    """(bytes, after a handshake?, names of the error that may come back)."""
    good = wire.query(1, "SELECT 1")
    yield bytes(rng.randrange(256) for _ in range(200)), False, ("PROTOCOL", "TOO_BIG")
    yield wire.hello(magic=0x12345678), False, ("PROTOCOL",)
    yield wire.hello(version=99), False, ("VERSION",)
    yield wire.hello(database="another"), False, ("NOT_FOUND",)
    yield wire.query(1, "SELECT 1"), False, ("PROTOCOL",)          # before HELLO
    yield struct.pack("<I", 8), True, ("PROTOCOL",)                # too short for a head
    yield struct.pack("<IBII", 0xffffffff, 2, 1, 1), True, ("TOO_BIG", "PROTOCOL")
    yield struct.pack("<IBII", wire.FRAME_MAX + 1, 2, 1, 1), True, ("TOO_BIG",)
    yield wire.frame(99, 1), True, ("PROTOCOL",)                   # no such type
    yield wire.frame(wire.DONE, 1), True, ("PROTOCOL",)            # the server's type
    yield wire.frame(wire.QUERY, 1), True, ("PROTOCOL",)           # no body
    yield wire.frame(wire.QUERY, 1, good[wire.HEAD:-1]), True, ("PROTOCOL",)
    yield wire.frame(wire.QUERY, 1, good[wire.HEAD:] + b"x"), True, ("PROTOCOL",)
    yield wire.frame(wire.STATUS, 1, b"x"), True, ("PROTOCOL",)
    yield wire.query(1, "SELECT 1", level=9), True, ("PROTOCOL",)
    yield wire.query(1, "SELECT 1", stream=0), True, ("PROTOCOL",)  # the connection's own stream
    yield wire.frame(wire.PING, 1, stream=1), True, ("PROTOCOL",)
    yield wire.frame(wire.PING, 1, b"x", stream=0), True, ("PROTOCOL",)
    yield wire.frame(wire.CREDIT, 0, b"123"), True, ("PROTOCOL",)
    lying = bytearray(good)
    struct.pack_into("<I", lying, wire.HEAD + 35, 0x7fffffff)      # length of the SQL
    yield bytes(lying), True, ("PROTOCOL",)
    lying = bytearray(wire.query(1, "SELECT ?", (1,)))
    struct.pack_into("<I", lying, len(lying) - 4 - 4 - 9, 1000)    # count of parameters
    yield bytes(lying), True, ("PROTOCOL",)
    lying = bytearray(wire.query(1, "SELECT ?", (1,)))
    lying[-9] = 77                                                 # type of the value
    yield bytes(lying), True, ("PROTOCOL",)
    lying = bytearray(good)
    struct.pack_into("<I", lying, wire.HEAD + 27, 2)               # count of statements
    yield bytes(lying), True, ("PROTOCOL",)
    yield wire.query(1, "SELECT 1", flags=0x8000), True, ("PROTOCOL",)
    yield wire.query(1, "COMMIT", flags=wire.RESOLVE), True, ("PROTOCOL",)  # without a number
    yield wire.query(1, "SELECT 1", number=wire.Number(bytes(16), 3, 3, 0)), True, ("PROTOCOL",)


@case(short=True, seconds=90)
def test_broken_frames_get_one_error_and_harm_nobody():
    rng = random.Random(7)
    with Cluster(**STEADY) as c, c.client() as q:
        q.query(TABLE)
        with Writers(c.nodes, 2) as w:
            for node in c.nodes:
                for i, (data, handshake, allowed) in enumerate(hostile_bytes(rng)):
                    client = raw(node, data, handshake)
                    error = last_words(client)
                    client.close()
                    expect(error is not None, f"{node}, case {i}: closed without a word")
                    expect(error.name in allowed, f"{node}, case {i}: {error}, wanted {allowed}")
                    expect(len(error.message) > 10, f"case {i}: no sentence: {error.message!r}")
            w.stop()
        expect_equal(dict(w.errors), {}, "errors of the other clients")
        c.check_equal()


@case(short=True)
def test_a_client_of_version_1_reads_why_it_is_refused():
    """Its heads had no stream: 9 bytes instead of 13, in both directions."""
    said = struct.pack("<IH", wire.MAGIC, 1) + wire.put_str("old") + wire.put_str("")
    with Cluster(1) as c, raw(c.node(1), struct.pack("<IBI", len(said) + 5, wire.HELLO, 0) + said,
                              handshake=False) as old:
        data = b""
        while chunk := old.sock.recv(4096):
            data += chunk
    length, kind, request = struct.unpack_from("<IBI", data)
    expect_equal((length, kind, request), (len(data) - 4, wire.ERROR, 0), "head")
    r = wire.Reader(data[9:])
    expect_equal([r.unpack(f) for f in "IiiQB"], [16, 15, -1, 0, 0], "VERSION")
    message = r.str()
    r.end()
    expect("version 1" in message and "speak 2" in message, f"no reason: {message}")


@case(seconds=90)
def test_mutated_frames_never_end_a_node():
    rng = random.Random(int(os.environ.get("LECTERN_SEED", "20")))
    seeds = [wire.hello(), wire.query(1, "SELECT ?1, :a", {"": 1, ":a": "text"}),
             wire.query(2, "INSERT INTO t VALUES (?)", (b"blob",)), wire.frame(wire.STATUS, 3),
             wire.frame(wire.CANCEL, 1)]
    with Cluster() as c, c.client() as q:
        q.query("CREATE TABLE t(a)")
        for i in range(400):
            data = bytearray(b"".join(rng.choices(seeds, k=3)))
            for _ in range(rng.randrange(1, 6)):
                data[rng.randrange(len(data))] = rng.choice((0, 1, 127, 255, rng.randrange(256)))
            try:
                client = raw(c.nodes[i % 3], bytes(data[:rng.randrange(len(data) + 1)]),
                             rng.random() < 0.7)
                if rng.random() < 0.5:
                    client.shutdown_write()
                if rng.random() < 0.2:
                    last_words_or_silence(client)
                client.close()
            except (ConnectionLost, LecternError, BadFrame, OSError):
                pass
        c.check_alive()
        q.query("INSERT INTO t VALUES (1)")
        c.check_equal()


def last_words_or_silence(client):
    try:
        while True:
            client.read_frame(timeout=0.2)
    except (ConnectionLost, BadFrame):
        pass


@case(seconds=90)
def test_half_open_and_silent_connections_are_harmless():
    with Cluster() as c, c.client() as q:
        q.query("CREATE TABLE t(a)")
        held = []
        for node in c.nodes:
            held.append(socket.create_connection(("127.0.0.1", node.port)))      # says nothing
            half = socket.create_connection(("127.0.0.1", node.port))
            half.sendall(wire.hello()[:7])                                       # half a HELLO
            held.append(half)
            slow = node.client()
            slow.send_raw(wire.query(1, "SELECT 1")[:20])                        # half a QUERY
            held.append(slow)
            # Asks for much and never reads: the server must not keep it all in memory.
            greedy = node.client()
            greedy.begin("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
                         "SELECT hex(zeroblob(10000)) FROM n")
            held.append(greedy)
            # Closes its sending side: it is answered, then closed.
            polite = node.client()
            request = polite.begin("SELECT 42")
            polite.shutdown_write()
            expect_equal(polite.finish(request).rows, [(42,)], "answer after a half-close")
            expect(polite.at_end(timeout=10 * PATIENCE), "not closed after the last answer")
            polite.close()
        for i in range(50):
            q.query("INSERT INTO t VALUES (?)", (i,))
        for node in c.nodes:
            with open(f"/proc/{node.process.pid}/status", encoding="utf-8") as f:
                resident = next(int(l.split()[1]) for l in f if l.startswith("VmRSS"))
            expect(resident < 400 * 1024 * PATIENCE, f"{node} uses {resident} KiB")
        for h in held:
            h.close()
        c.check_equal()


@case(seconds=90)
def test_oversized_requests_are_refused_and_the_connection_goes_on():
    with Cluster() as c:
        for node in c.nodes:
            with node.client() as q:
                q.query("CREATE TABLE IF NOT EXISTS t(a)")
                sql = "SELECT '" + "x" * (1 << 20) + "'"
                expect_error("TOO_BIG", lambda q=q, s=sql: q.query(s))
                expect_error("TOO_BIG", lambda q=q: q.query("SELECT 1", [1] * 32767))
                e = expect_error("MISUSE", lambda q=q: q.query("SELECT ?1", (1, 2, 3)))
                expect(len(e.message) > 10, "no sentence")
                expect_error("MISUSE", lambda q=q: q.query("SELECT :a", {":b": 1}))
                q.query("INSERT INTO t VALUES (?)", (b"z" * (8 << 20),))  # within the limits
                expect_equal(q.query("SELECT length(a) FROM t").rows, [(8 << 20,)], "large value")
                q.query("DELETE FROM t")
        c.check_equal()


@case(seconds=90)
def test_a_transaction_over_the_limit_fails_alone():
    sql = ("INSERT INTO big WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
           "LIMIT 4000) SELECT randomblob(4000) FROM n")  # 16 MB
    with Cluster(**STEADY, transaction_bytes="8MiB") as c, c.client() as q:
        q.query(TABLE)
        q.query("CREATE TABLE big(a)")
        with Writers(c.nodes, 2) as w:
            for _ in range(3):
                e = expect_error("FULL", lambda: q.query(sql))
                expect("transaction-bytes" in e.message, f"no reason: {e.message}")
                q.query("BEGIN")
                q.query("INSERT INTO big VALUES (1)")
                expect_error("FULL", lambda: q.query(sql))
                try:
                    q.query("ROLLBACK")
                except LecternError as error:  # SQLite may have rolled back by itself
                    expect("no transaction is active" in error.message, str(error))
            w.stop()
        expect_equal(dict(w.errors), {}, "errors of the other clients")
        expect_equal(q.query("SELECT count(*) FROM big").rows, [(0,)], "rows of refused ones")
        c.check_equal()


@case(seconds=90)
def test_a_full_queue_refuses_and_recovers():
    with Cluster(1, queue_length=8, transaction_idle_timeout=60000) as c, c.client() as holder:
        holder.query("CREATE TABLE t(a)")
        holder.query("BEGIN IMMEDIATE")
        holder.query("INSERT INTO t VALUES (0)")
        clients = [c.client() for _ in range(20)]
        asked = [(x, x.begin("INSERT INTO t VALUES (1)")) for x in clients[:8]]
        for _ in range(2):  # goes the same way: afterwards the eight have arrived
            holder.query("SELECT 1")
        asked += [(x, x.begin("INSERT INTO t VALUES (1)")) for x in clients[8:]]
        outcome = []
        for x, request in asked[8:]:
            e = expect_error("BUSY", lambda x=x, r=request: x.finish(r))
            expect(len(e.message) > 10, "no sentence")
        holder.query("COMMIT")
        for x, request in asked[:8]:
            outcome.append(x.finish(request).changes)
        expect_equal(outcome, [1] * 8, "those in the queue")
        for x in clients:
            x.query("INSERT INTO t VALUES (2)")
            x.close()
        expect_equal(holder.query("SELECT count(*) FROM t").rows, [(1 + 8 + 20,)], "rows")
        c.check_equal()


@case(short=True)
def test_http_at_the_native_port_is_told_where_http_is():
    with Cluster(1, http=True) as c:
        node = c.node(1)
        door = http.client.HTTPConnection("127.0.0.1", node.port, timeout=10 * PATIENCE)
        for method, body in (("GET", None), ("POST", b"{}"), ("POST", b"x" * (1 << 20)),
                             ("PUT", b""), ("OPTIONS", None), ("DELETE", None)):
            door.request(method, "/v2/pipeline", body)
            r = door.getresponse()
            text = r.read().decode()
            expect_equal((r.status, r.getheader("connection")), (400, "close"), method)
            expect("native protocol" in text and "--http-listen" in text
                   and f"http://127.0.0.1:{node.http_port}" in text, f"{method}: {text}")
        got = bytearray()
        with socket.create_connection(("127.0.0.1", node.port), timeout=10 * PATIENCE) as s:
            s.sendall(b"PRI * HT")
            while part := s.recv(4096):
                got += part
        expect(got.startswith(b"HTTP/1.1 400 "), f"HTTP/2: {bytes(got)}")
        with node.client() as q:
            q.query("SELECT 1")


@case(seconds=90)
def test_too_many_connections_are_refused_with_a_sentence():
    with Cluster(max_connections=20) as c:
        node, held, refused = c.node(1), [], []
        for _ in range(40):
            try:
                held.append(node.client())
            except LecternError as e:
                refused.append(e)
            except ConnectionLost:
                refused.append(None)
        expect(refused and all(e is not None and e.name == "BUSY" for e in refused),
               f"{len(held)} accepted, refused: {refused[:3]}")
        for h in held:
            h.close()

        def again():
            try:
                with node.client() as q:
                    return q.query("SELECT 1").rows == [(1,)]
            except (LecternError, ConnectionLost):
                return False
        c.wait(again, "new connections once others are gone")


@case(seconds=90)
def test_strangers_on_the_peer_port_are_harmless():
    rng = random.Random(3)
    with Cluster(**STEADY) as c, c.client() as q:
        q.query("CREATE TABLE t(a)")
        term = c.leader().row()["term"]
        for i in range(60):
            node = c.nodes[i % 3]
            with socket.create_connection(("127.0.0.1", node.peer_port), timeout=5) as s:
                data = rng.choice([bytes(rng.randrange(256) for _ in range(rng.randrange(300))),
                                   b"\xff" * 64, b"\0" * 64, wire.hello(),
                                   struct.pack("<QQ", 1, 0xffffffffffff) * 10, b""])
                try:
                    s.sendall(data)
                    if i % 2:
                        s.settimeout(0.2)
                        s.recv(1000)
                except OSError:
                    pass
            q.query("INSERT INTO t VALUES (?)", (i,))
        c.check_alive()
        expect_equal(c.leader().row()["term"], term, "strangers caused an election")
        c.check_equal()


@case()
def test_clients_of_a_dead_port_get_a_plain_error():
    try:
        Client("127.0.0.1", free_port(), socket_timeout=5)
        expect(False, "connected to nobody")
    except ConnectionLost as e:
        expect(not e.sent, "nothing can have been sent")
