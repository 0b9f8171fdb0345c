"""Hrana over WebSockets: many streams of one socket, in order each, together all; and clients that
break the rules."""

import json
import socket
import threading
import time

from tests.cluster.test_catchup import flip_page, make, wait_fetched
from tests.cluster.test_log_cut import SMALL
from tests.lib import metrics
from tests.lib.cluster import (PATIENCE, SANITIZED, Cluster, Failure, case, expect, expect_equal,
                               wait_for)
from tests.lib.hrana import Closed, Door, WebSocket, arg, atomic, batch, ok, plain, rows_of, stmt

# AddressSanitizer keeps what was freed for a while.
QUARANTINE = (300 << 20) if SANITIZED else 0
ENDLESS = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c) SELECT i, 'row' FROM c"
SLOW = ("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {}) "
        "SELECT count(*) FROM c")


def each_node(c):
    leader = c.leader()
    return [leader, c.others(leader)[0]]


def read_by(node):
    """Bytes that its HTTP door has read, when these have become no more for a while but for our own
    question: what a sender is rid of may be in the kernel, which takes many megabytes."""
    def read():
        return metrics.value(metrics.scrape(node), "lectern_received_bytes_total", door="http")

    def rests():
        before = read()
        time.sleep(0.5)
        return read() - before < 1000 and before
    return wait_for(rests, "the node reads no more")


def with_table(c):
    with Door(c.leader()) as door:
        door.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")


@case(short=True)
def test_subprotocols():
    with Cluster(n=1, http=True) as c:
        node = c.leader()
        for asked, chosen in (((), ""), (("hrana2", "hrana1"), "hrana2"), (("hrana1",), "hrana1"),
                              (("hrana3", "hrana2"), "hrana3"),
                              (("other", "hrana1"), "hrana1")):
            with WebSocket(node, *asked, path="/any/path?x=1") as ws:
                expect_equal(ws.protocol, chosen, f"of {asked}")
                ws.call("open_stream", stream_id=1)
                expect_equal(ws.rows(1, "SELECT 1"), [(1,)], f"a statement over {asked}")
        with WebSocket(node, "other") as ws:
            expect_equal(ws.status, 400, "none that is spoken")
        with WebSocket(node, "hrana2", path="/?read=perhaps") as ws:
            expect_equal(ws.status, 400, "a wish that is none")
        with Door(node) as door:
            for path, status in (("/v2", 200), ("/v3", 200), ("/v3-protobuf", 200), ("/", 200)):
                r = door.ask("GET", path)
                r.read()
                expect_equal(r.status, status, f"GET {path}")


@case(short=True)
def test_requests_of_all_types():
    with Cluster(http=True) as c:
        with_table(c)
        for i, node in enumerate(each_node(c)):
            with WebSocket(node, "hrana3", path="/?read=session") as ws:
                ws.call("open_stream", stream_id=-7)
                got = ws.execute(-7, "INSERT INTO t VALUES (?, ?)", i + 1, b"\x00\xff")
                expect_equal((got["affected_row_count"], got["last_insert_rowid"]), (1, str(i + 1)),
                             "an INSERT")
                expect_equal(ws.rows(-7, "SELECT b, 1.5, NULL, 'x' FROM t WHERE a = ?", i + 1),
                             [(b"\x00\xff", 1.5, None, "x")], "a SELECT behind it")
                named = ws.call("execute", stream_id=-7, stmt={
                    "sql": "SELECT :x", "named_args": [{"name": "x", "value": arg(1 << 53)}]})
                expect_equal(rows_of(named["result"]), [(1 << 53,)], "a named argument")
                ws.call("store_sql", sql_id=3, sql="SELECT a FROM t WHERE a > ?")
                stored = ws.call("execute", stream_id=-7, stmt={"sql_id": 3, "args": [arg(0)]})
                expect_equal(len(stored["result"]["rows"]), i + 1, "a stored text")
                steps = ws.call("batch", stream_id=-7, batch={"steps": [
                    {"stmt": {"sql_id": 3, "args": [arg(0)]}}, {"stmt": stmt("SELECT x")},
                    {"stmt": {"sql_id": 4}, "condition": ok(0)}]})["result"]
                expect_equal([e and e["code"] for e in steps["step_errors"]],
                             [None, "SQL_INPUT_ERROR", "SQL_NOT_FOUND"], "errors of steps")
                done = ws.call("batch", stream_id=-7, batch=atomic(
                    stmt("UPDATE t SET b = 1 WHERE a = ?", i + 1), "SELECT 1"))["result"]
                expect_equal([r and r["affected_row_count"] for r in done["step_results"]],
                             [0, 1, 0, 0, None], "an atomic batch")
                ws.call("sequence", stream_id=-7, sql=f"UPDATE t SET b = 'x;y'; DELETE FROM t "
                                                     f"WHERE a = {i + 1}; INSERT INTO t "
                                                     f"VALUES ({i + 1}, 2)")
                described = ws.call("describe", stream_id=-7, sql_id=3)["result"]
                expect_equal((len(described["params"]), described["is_readonly"]), (1, True),
                             "a description")
                ws.call("close_sql", sql_id=3)
                ws.call("close_sql", sql_id=3)
                error = ws.fails("execute", stream_id=-7, stmt={"sql_id": 3})
                expect_equal(error["code"], "SQL_NOT_FOUND", "a text that was closed")
                expect_equal(ws.call("get_autocommit", stream_id=-7)["is_autocommit"], True, "auto")
                ws.execute(-7, "BEGIN")
                expect_equal(ws.call("get_autocommit", stream_id=-7)["is_autocommit"], False, "in")
                ws.call("close_stream", stream_id=-7)
                ws.send({"type": "hello", "jwt": "again"})
                expect_equal(ws.hear(), {"type": "hello_ok"}, "a second hello")


@case(short=True)
def test_pipelining():
    """All at once, before any answer: hello, a stream, its requests, its end."""
    with Cluster(http=True) as c:
        with_table(c)
        for node in each_node(c):
            with WebSocket(node, "hrana2", hello=False) as ws:
                wanted = [("open_stream", {"stream_id": 0}),
                          ("store_sql", {"sql_id": 1, "sql": "INSERT INTO t VALUES (?, 0)"})]
                for i in range(50):
                    wanted.append(("execute", {"stream_id": 0, "stmt": {
                        "sql_id": 1, "args": [arg(i)], "want_rows": False}}))
                wanted += [("close_sql", {"sql_id": 1}),
                           ("store_sql", {"sql_id": 1, "sql": "DELETE FROM t"}),
                           ("execute", {"stream_id": 0, "stmt": {"sql_id": 1, "want_rows": True}}),
                           ("close_stream", {"stream_id": 0}),
                           ("open_stream", {"stream_id": 0})]
                ws.send_all([{"type": "hello", "jwt": None}] + [
                    {"type": "request", "request_id": n, "request": {"type": kind, **more}}
                    for n, (kind, more) in enumerate(wanted)])
                expect_equal(ws.hear(), {"type": "hello_ok"}, "hello")
                results = [ws.answer(n) for n in range(len(wanted))]
                bad = [r for r in results if r["type"] != "response_ok"]
                expect_equal(bad, [], "errors")
                deleted = results[-3]["response"]["result"]["affected_row_count"]
                expect_equal(deleted, 50, "rows that the last statement saw")


@case(short=True)
def test_streams_do_not_wait_for_each_other():
    with Cluster(http=True, election_timeout=3000) as c:
        with_table(c)
        for i, node in enumerate(each_node(c)):
            with WebSocket(node, "hrana2") as ws:
                for stream in (1, 2, 3):
                    ws.call("open_stream", stream_id=stream)
                ws.execute(1, "BEGIN IMMEDIATE")
                ws.execute(1, "INSERT INTO t VALUES (?, 1)", i)
                slow = ws.request("execute", stream_id=2, stmt=stmt(SLOW.format(3000000)))
                waits = ws.request("execute", stream_id=3,
                                   stmt=stmt("INSERT INTO t VALUES (?, 3)", i))
                expect_equal(ws.rows(1, "SELECT count(*) FROM t WHERE a = ?", i), [(1,)], "its own")
                expect(waits not in ws.answers, "a write waits for the transaction")
                ws.execute(1, "ROLLBACK")
                expect_equal(ws.answer(waits)["type"], "response_ok", "the write that waited")
                expect_equal(rows_of(ws.answer(slow)["response"]["result"]), [(3000000,)], "slow")


@case(short=True)
def test_a_socket_that_ends_takes_its_transactions_along():
    with Cluster(http=True, transaction_idle_timeout=60000) as c:
        with_table(c)
        for node in each_node(c):
            for how in ("close", "break", "half"):
                ws = WebSocket(node, "hrana2")
                ws.call("open_stream", stream_id=1)
                ws.execute(1, "BEGIN IMMEDIATE")
                ws.execute(1, "INSERT INTO t VALUES (1, 1)")
                if how == "close":
                    ws.send_raw(b"\x03\xe8", 8)
                elif how == "half":
                    ws.sock.shutdown(socket.SHUT_WR)
                else:
                    ws.sock.close()
                with Door(node) as door:  # the writer is free at once, not after a time limit
                    begun = time.monotonic()
                    door.execute("INSERT INTO t VALUES (1, 2)")
                    expect(time.monotonic() - begun < 20 * PATIENCE, f"waited after {how}")
                    door.execute("DELETE FROM t")
                ws.sock.close()


@case(short=True)
def test_cursors():
    with Cluster(http=True) as c:
        with_table(c)
        for i, node in enumerate(each_node(c)):
            with WebSocket(node, "hrana3") as ws:
                ws.call("open_stream", stream_id=1)
                ws.call("open_cursor", stream_id=1, cursor_id=5, batch=batch(
                    stmt("INSERT INTO t VALUES (?, 1)", i), SLOW.format(5), "SELECT y"))
                entries, done = [], False
                while not done:
                    got = ws.call("fetch_cursor", cursor_id=5, max_count=2)
                    expect(len(got["entries"]) <= 2, "no more than asked")
                    entries += got["entries"]
                    done = got["done"]
                expect_equal([e["type"] for e in entries],
                             ["step_begin", "step_end", "step_begin", "row", "step_end",
                              "step_error"], "entries")
                got = ws.call("fetch_cursor", cursor_id=5, max_count=2)
                expect_equal((got["entries"], got["done"]), ([], True), "after the end")
                error = ws.fails("execute", stream_id=1, stmt=stmt("SELECT 1"))
                expect_equal(error["code"], "CURSOR_OPEN", "a request beside a cursor")
                ws.call("close_cursor", cursor_id=5)
                expect_equal(ws.rows(1, "SELECT count(*) FROM t WHERE a = ?", i), [(1,)], "after")
                # One without an end: closed in its middle, the stream goes on.
                for _ in range(20):
                    ws.call("open_cursor", stream_id=1, cursor_id=5, batch=batch(ENDLESS))
                    got = ws.call("fetch_cursor", cursor_id=5, max_count=1000)
                    expect(0 < len(got["entries"]) <= 1000 and not got["done"], "some of it")
                    ws.call("fetch_cursor", cursor_id=5, max_count=1 << 31)
                    ws.call("close_cursor", cursor_id=5)
                    expect_equal(ws.rows(1, "SELECT 1"), [(1,)], "the stream goes on")
                # All at once, and the stream closed below it.
                numbers = [ws.request("open_cursor", stream_id=1, cursor_id=6,
                                      batch=batch(ENDLESS)),
                           ws.request("fetch_cursor", cursor_id=6, max_count=10),
                           ws.request("fetch_cursor", cursor_id=6, max_count=100000),
                           ws.request("close_stream", stream_id=1),
                           ws.request("open_stream", stream_id=1),
                           ws.request("open_cursor", stream_id=1, cursor_id=6,
                                      batch=batch("SELECT 1"))]
                for n in numbers:
                    expect_equal(ws.answer(n)["type"], "response_ok", f"request {n} of {numbers}")


@case(seconds=60)
def test_a_cursor_that_nobody_fetches_from_costs_little():
    with Cluster(n=1, http=True) as c:
        node = c.leader()

        def resident():
            with open(f"/proc/{node.process.pid}/statm", encoding="ascii") as f:
                return int(f.read().split()[1]) * 4096
        with WebSocket(node, "hrana3") as ws:
            ws.call("open_stream", stream_id=0)
            before = resident()
            for i in range(8):
                ws.call("open_stream", stream_id=i + 1)
                ws.call("open_cursor", stream_id=i + 1, cursor_id=i, batch=batch(ENDLESS))
                ws.call("fetch_cursor", cursor_id=i, max_count=1)
            seen = 0
            while seen < 1000000:
                seen += len(ws.call("fetch_cursor", cursor_id=3, max_count=20000)["entries"])
            grown = resident() - before
            print(f"8 cursors, {seen} rows of one: memory grew by {grown >> 10} KiB")
            expect(grown < (24 << 20) + QUARANTINE, f"memory grew by {grown >> 10} KiB")


@case(short=True)
def test_clients_that_break_the_rules():
    hello = {"type": "hello", "jwt": None}

    def request(kind, **more):
        return {"type": "request", "request_id": 1, "request": {"type": kind, **more}}
    opened = request("open_stream", stream_id=1)
    cases = [
        ("bad JSON", [hello, opened, "{\"type\":"], 1007),
        ("no object", [hello, "[]"], 1007),
        ("an unknown message", [hello, {"type": "good-bye"}], 1007),
        ("an unknown request", [hello, request("explode")], 1007),
        ("a number that is none", [hello, request("open_stream", stream_id="x")], 1007),
        ("a request of a later version", [hello, request("get_autocommit", stream_id=1)], 1007),
        ("no hello", [opened], 1008),
        ("a stream that is not open", [hello, request("execute", stream_id=9,
                                                      stmt=stmt("SELECT 1"))], 1008),
        ("a stream twice", [hello, opened, opened], 1008),
        ("a closed stream", [hello, opened, request("close_stream", stream_id=1),
                             request("sequence", stream_id=1, sql="SELECT 1")], 1008),
        ("a stream closed twice", [hello, opened, request("close_stream", stream_id=1),
                                   request("close_stream", stream_id=1)], 1008),
        ("a text twice", [hello, request("store_sql", sql_id=1, sql="a"),
                          request("store_sql", sql_id=1, sql="a")], 1008),
        ("a binary message", [hello, b"\x01\x02"], 1003),
        ("text that is not UTF-8", [hello, (1, b"{\"type\":\"\xff\"}")], 1007),
        ("very deep", [hello, "[" * 100000], 1009),
    ]
    with Cluster(n=1, http=True) as c:
        node = c.leader()
        for what, messages, code in cases:
            with WebSocket(node, "hrana2", hello=False) as ws:
                for m in messages:
                    if isinstance(m, dict):
                        ws.send(m)
                    elif isinstance(m, tuple):
                        ws.send_raw(m[1], m[0])
                    else:
                        ws.send_raw(m, 1 if isinstance(m, str) else 2)
                _, end = ws.hear_close()
                expect_equal(end.code, code, f"the code after {what} ({end.reason})")
                expect(end.reason or "UTF-8" in what, f"a reason after {what}")
        for kind, more in (("fetch_cursor", {"max_count": 1}), ("close_cursor", {})):
            with WebSocket(node, "hrana3") as ws:
                ws.request(kind, cursor_id=4, **more)
                expect_equal(ws.hear_close()[1].code, 1008, f"{kind} of no cursor")
        with WebSocket(node, "hrana3") as ws:
            ws.call("open_stream", stream_id=1)
            ws.call("open_cursor", stream_id=1, cursor_id=1, batch=batch("SELECT 1"))
            ws.request("open_cursor", stream_id=1, cursor_id=2, batch=batch("SELECT 1"))
            expect_equal(ws.hear_close()[1].code, 1008, "a second cursor of a stream")
        with WebSocket(node, "hrana1") as ws:
            ws.send(hello)
            expect_equal(ws.hear_close()[1].code, 1008, "a second hello in hrana1")
        with Door(node) as door:
            expect_equal(door.rows("SELECT 1"), [(1,)], "others are served")


@case(short=True)
def test_too_many():
    with Cluster(n=1, http=True) as c:
        node = c.leader()
        with WebSocket(node, "hrana2") as ws:
            errors = []

            def listen():
                messages, end = ws.hear_close()
                errors.extend([m for m in messages if m["type"] == "response_error"])
                errors.append(end)
            thread = threading.Thread(target=listen)
            thread.start()
            try:
                for n in range(10000):
                    ws.request("open_stream", stream_id=n)
            except OSError:
                pass
            thread.join(30 * PATIENCE)
            expect(not thread.is_alive(), "the socket ends")
            end = errors.pop()
            expect_equal(end.code, 1008, f"of 10,000 streams: {end.reason}")
            expect_equal({e["error"]["code"] for e in errors}, {"STREAM_TOO_MANY"}, "the errors")
            expect_equal(len(errors), 4096, "streams that failed to open")
        with WebSocket(node, "hrana2") as ws:
            for n in range(4097):
                ws.request("open_stream", stream_id=n)
            expect_equal(ws.answer(4097)["error"]["code"], "STREAM_TOO_MANY", "one too many")
            error = ws.fails("execute", stream_id=4096, stmt=stmt("SELECT 1"))
            expect_equal(error["code"], "STREAM_NOT_OPEN", "a request of it")
            ws.call("close_stream", stream_id=4096)
            for n in range(10):
                ws.call("close_stream", stream_id=n)
            ws.call("open_stream", stream_id=4096)
            expect_equal(ws.rows(4096, "SELECT 1"), [(1,)], "after some were closed")
            for n in range(256):
                ws.call("store_sql", sql_id=n, sql="SELECT 1")
            error = ws.fails("store_sql", sql_id=256, sql="SELECT 1")
            expect_equal(error["code"], "SQL_STORE_TOO_MANY", "texts")


@case(seconds=60)
def test_a_client_that_sends_and_does_not_read():
    """It is not read from, either; then it reads, and all is there, in order."""
    with Cluster(n=1, http=True) as c:
        node = c.leader()
        many, first, long = 2000, 600, "x" * 20000
        with WebSocket(node, "hrana2", narrow=True) as ws:
            ws.call("open_stream", stream_id=0)
            sent = []

            def send(numbers, comment):
                for n in numbers:
                    ws.send({"type": "request", "request_id": 1000 + n, "request": {
                        "type": "execute", "stream_id": 0,
                        "stmt": stmt(f"SELECT {n}, hex(zeroblob(10000)) -- {comment}")}})
                    sent.append(n)
            send(range(first), "")

            def waiting():
                with Door(node) as door:
                    text = door.ask("GET", "/metrics").read().decode()
                line = [x for x in text.split("\n") if x.startswith("lectern_waiting_bytes ")][0]
                return float(line.split()[1])

            def full():
                before = waiting()
                time.sleep(0.3)
                return waiting() == before > 262144
            wait_for(full, "the node waits for its client")
            thread = threading.Thread(target=send, args=(range(first, many), long), daemon=True)
            thread.start()

            read = read_by(node)
            print(f"{len(sent)} of {many} requests sent, {read} bytes read, no answer read")
            expect(read < (many - first) * len(long), "the node reads no more than it answers")
            with Door(node) as door:
                expect_equal(door.rows("SELECT 1"), [(1,)], "others are served")
            for n in range(many):
                message = ws.hear()
                expect_equal(message["request_id"], 1000 + n, "the order of one stream's answers")
                expect_equal(plain(message["response"]["result"]["rows"][0][0]), n, "the answer")
            thread.join(10 * PATIENCE)


@case(seconds=60)
def test_requests_that_wait():
    """More than may be under way at once: they are read as those before them are answered. One of
    ten leaves a row, and has to wait for the disk."""
    many, long = 6000, "x" * 4000
    with Cluster(n=1, http=True, transaction_idle_timeout="60000") as c:
        with_table(c)
        node = c.leader()
        with WebSocket(node, "hrana2") as holder, WebSocket(node, "hrana2") as ws:
            holder.call("open_stream", stream_id=1)
            holder.execute(1, "BEGIN IMMEDIATE")
            sent = []

            def send():
                ws.send({"type": "request", "request_id": 0,
                         "request": {"type": "open_stream", "stream_id": 0}})
                for n in range(1, many):
                    ws.send({"type": "request", "request_id": n, "request": {
                        "type": "execute", "stream_id": 0,
                        "stmt": stmt(f"INSERT INTO t SELECT {n}, 0 WHERE {n} % 10 = 0 -- {long}")}})
                    sent.append(n)
            thread = threading.Thread(target=send, daemon=True)
            thread.start()

            wait_for(lambda: sent, "it begins to send")
            read = read_by(node)
            print(f"{len(sent)} of {many} requests sent, {read} bytes read")
            expect(read < many * len(long), "not all is read")
            expect_equal(holder.rows(1, "SELECT count(*) FROM t"), [(0,)], "another socket")
            holder.execute(1, "COMMIT")
            for n in range(many):
                message = ws.hear()
                expect_equal((message["type"], message["request_id"]), ("response_ok", n), "answer")
            thread.join(10 * PATIENCE)
            expect_equal(holder.rows(1, "SELECT count(*) FROM t"), [((many - 1) // 10,)], "rows")


@case(seconds=60)
def test_the_leader_dies_in_a_transaction():
    """Behind a follower a socket lives on: the transaction's error says that it is gone, and
    nothing of it is there. On the leader the socket ends."""
    with Cluster(http=True) as c:
        with_table(c)
        leader, follower = each_node(c)
        here, there = WebSocket(leader, "hrana3"), WebSocket(follower, "hrana3")
        there.call("open_stream", stream_id=1)
        there.execute(1, "BEGIN IMMEDIATE")
        there.execute(1, "INSERT INTO t VALUES (1, 1)")
        there.call("open_stream", stream_id=2)
        there.call("open_cursor", stream_id=2, cursor_id=1, batch=batch(ENDLESS))
        here.call("open_stream", stream_id=1)
        leader.kill()
        try:
            here.hear()
            raise Failure("a message from a dead node")
        except (Closed, OSError):
            here.sock.close()
        error = there.fails("execute", stream_id=1, stmt=stmt("INSERT INTO t VALUES (2, 2)"))
        expect_equal(error["code"], "TRANSACTION_CLOSED", "the transaction's error")
        expect_equal(there.call("get_autocommit", stream_id=1)["is_autocommit"], False,
                     "until the program ends it")
        there.execute(1, "ROLLBACK")
        expect(there.call("fetch_cursor", cursor_id=1, max_count=10)["entries"], "a local cursor")
        expect_equal(there.execute(1, "INSERT INTO t VALUES (3, 3)")["affected_row_count"], 1,
                     "a write once there is a leader again")
        expect_equal(there.rows(1, "SELECT a FROM t"), [(3,)], "what is there")
        there.sock.close()
        c.restart(leader)
        c.wait_serving()
        c.check_equal()


@case(short=True)
def test_a_node_that_stops_says_so():
    with Cluster(n=1, http=True) as c:
        node = c.leader()
        with WebSocket(node, "hrana3") as ws:
            ws.call("open_stream", stream_id=1)
            ws.execute(1, "BEGIN")
            ws.call("open_stream", stream_id=2)
            ws.call("open_cursor", stream_id=2, cursor_id=1, batch=batch(ENDLESS))
            node.terminate()
            _, end = ws.hear_close()
            expect_equal(end.code, 1001, f"a node that stops ({end.reason})")
        expect_equal(node.wait_end(), 0, "its exit status")


@case(short=True)
def test_a_driver_in_a_browser():
    """A page's origin decides, and what it sends is JSON as any other."""
    with Cluster(n=1, http=True) as c:
        node = c.leader()
        with WebSocket(node, "hrana2", hello=False) as ws:
            ws.send_raw(json.dumps({"jwt": "", "type": "hello"}))
            expect_equal(ws.hear()["type"], "hello_ok", "an empty token")


@case(short=True)
def test_fetching_is_use_of_a_transaction():
    """All rows are in one frame, long since made; its client takes them slowly."""
    rows = ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 30)"
            " SELECT i FROM n")
    # Far from what a machine may stand still: the node's patience, the leader's, our sleeps.
    with Cluster(http=True, transaction_idle_timeout=4500, election_timeout=3000) as c:
        with_table(c)
        sockets = [WebSocket(node, "hrana3") for node in each_node(c)]
        for ws in sockets:
            ws.call("open_stream", stream_id=1)
            ws.execute(1, "BEGIN")
            ws.call("open_cursor", stream_id=1, cursor_id=1, batch=batch(rows))
        for _ in range(6):
            time.sleep(0.9)
            for ws in sockets:
                some = ws.call("fetch_cursor", cursor_id=1, max_count=3)["entries"]
                expect_equal(len(some), 3, "entries")
        for ws in sockets:
            ws.call("close_cursor", cursor_id=1)
            ws.execute(1, "SELECT 1")
            expect_equal(ws.call("get_autocommit", stream_id=1)["is_autocommit"], False, "open")
            ws.sock.close()


@case(short=True)
def test_a_text_that_was_cut_within_a_character_harms_its_request_alone():
    """`"\\ud83d"`: JavaScript's strings can be so, and its JSON, too. Not so U+FFFD or `?`: that
    would be another text."""
    with Cluster(1, http=True) as c, WebSocket(c.nodes[0], "hrana2") as ws:
        for stream in (1, 2):
            ws.call("open_stream", stream_id=stream)
        ws.execute(1, "CREATE TABLE t(a)")
        ws.execute(1, "BEGIN IMMEDIATE")
        for text in ("\ud83d", "x" * 100000 + "\ude00", "\ud83d" + "x" * 100000):
            error = ws.fails("execute", stream_id=2, stmt=stmt("INSERT INTO t VALUES (?)", text))
            expect_equal(error["code"], "HRANA_PROTO_ERROR", f"{error}")
            expect("surrogate" in error["message"], f"what is wrong: {error}")
        ws.execute(1, "INSERT INTO t VALUES (?)", "\U0001f600")
        ws.execute(1, "COMMIT")
        expect_equal(ws.rows(2, "SELECT a FROM t"), [("\U0001f600",)], "what was done")


@case(seconds=60)
def test_a_node_that_fetches_its_database_reads_on():
    with Cluster(http=True, **SMALL) as c:
        make(c)
        c.wait_equal()
        victim = c.others(c.leader())[0]
        for node in c.others(victim):
            node.pause()  # it looks for one to fetch from until they go on
        flip_page(victim)
        wait_for(lambda: " node held " in victim.log_text(), f"{victim} has no database")
        with WebSocket(victim, "hrana3") as ws:
            ws.call("open_stream", stream_id=1)
            for text in ("short", "x" * 100000, "short", "x" * 100000, "short"):
                error = ws.fails("execute", stream_id=1, stmt=stmt("SELECT ?", text))
                expect_equal(error["code"], "SQLITE_BUSY", f"a node that fetches: {error}")
        for node in c.others(victim):
            node.resume()
        wait_fetched(c, victim, 0)
        c.wait_equal()


@case(short=True)
def test_an_error_that_is_longer_than_answers_may_be():
    """Escaped it is six times as long: it is told with its beginning."""
    text = "SELECT [" + "\x01" * 40000 + "]"
    with Cluster(1, http=True, http_answer_bytes=100000) as c:
        for protocol in ("hrana3", "hrana2"):
            with WebSocket(c.nodes[0], protocol) as ws:
                ws.call("open_stream", stream_id=1)
                for error in (ws.fails("execute", stream_id=1, stmt=stmt(text)),
                              ws.fails("sequence", stream_id=1, sql=text),
                              ws.fails("describe", stream_id=1, sql=text)):
                    expect("no such column" in error["message"], f"the reason: {error}")
                expect_equal(ws.rows(1, "SELECT 1"), [(1,)], "the stream goes on")
