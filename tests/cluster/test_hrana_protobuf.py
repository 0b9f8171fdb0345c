"""Hrana 3 as Protobuf: the same answers as in JSON, over HTTP and WebSockets; and bytes that are
none."""

import random
import select
import socket

from tests.cluster.test_hostile_streams import measured, peak_mib
from tests.lib.cluster import Cluster, case, expect, expect_equal, wait_for
from tests.lib.hrana import Closed, Cursor, Door, WebSocket, atomic, batch, rows_of, stmt
from tests.lib.hrana_protobuf import (BYTES, FIXED32, FIXED64, VARINT, ProtobufCursor, ProtobufDoor,
                                      ProtobufWebSocket, encode, field, varint)

MANY = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {}) "
VALUES = [None, 0, -1, 1, 127, 128, 2**53 + 1, 2**63 - 1, -2**63, 0.0, -0.5, 1e300, "", "x",
          "ä\U0001f600\0z", "long " * 60, b"", b"\0\xff", bytes(range(256)) * 3]


def each_node(c):
    leader = c.leader()
    return [leader, c.others(leader)[0]]


# --- the same in both forms -----------------------------------------------------------------------


def random_condition(rng, own, depth=0):
    kind = rng.choice(["ok", "error", "is_autocommit", "not", "and", "or"])
    if own == 0 and kind in ("ok", "error"):
        kind = "is_autocommit"
    if kind in ("ok", "error"):
        return {"type": kind, "step": rng.randrange(own)}
    if kind == "is_autocommit" or depth == 4:
        return {"type": "is_autocommit"}
    if kind == "not":
        return {"type": kind, "cond": random_condition(rng, own, depth + 1)}
    return {"type": kind, "conds": [random_condition(rng, own, depth + 1)
                                    for _ in range(rng.randrange(4))]}


def random_stmt(rng):
    k = rng.randint(1, 12)
    some = [rng.choice(VALUES) for _ in range(3)]
    named = [{"name": rng.choice(["", ":"]) + name, "value": stmt("", v)["args"][0]}
             for name, v in zip("abc", some)]
    return rng.choice([
        stmt("SELECT ?, ?, ?", *some),
        stmt("SELECT typeof(?1), quote(?2), ?3 AS \"a name\"", *some),
        {"sql": "SELECT :a, :b, :c", "named_args": named},
        stmt("INSERT INTO t VALUES (?, ?)", k, some[0]),
        stmt("INSERT INTO t(v) VALUES (?) RETURNING id, v", some[1], want_rows=rng.random() < .7),
        stmt("UPDATE t SET v = ? WHERE id > ?", some[2], k),
        stmt("DELETE FROM t WHERE id = ?", k),
        stmt("SELECT id, v, 9e999, cast(x'ff41c3' AS text) FROM t WHERE id < ? ORDER BY id", k),
        stmt("INSERT INTO nowhere VALUES (?)", k),
        stmt("SELECT 1; SELECT 2"), stmt("SELECT ?", 1, 2), stmt(""), stmt("nonsense ä"),
        {"sql_id": rng.randint(1, 3), "args": []},
    ])


def random_batch(rng):
    steps = [random_stmt(rng) for _ in range(rng.randrange(7))]
    return batch(*((random_condition(rng, i), s) if rng.random() < .5 else s
                   for i, s in enumerate(steps)))


def random_request(rng):
    text = rng.choice(["SELECT v, id + 1 FROM t WHERE id = :x OR id = ?", "EXPLAIN SELECT 1",
                       "DELETE FROM t", "nonsense", ""])
    return rng.choice([
        lambda: {"type": "execute", "stmt": random_stmt(rng)},
        lambda: {"type": "batch", "batch": random_batch(rng)},
        lambda: {"type": "sequence", "sql": "INSERT INTO t(v) VALUES (7); ;" + text},
        lambda: {"type": "describe", "sql": text},
        lambda: {"type": "describe", "sql_id": rng.randint(1, 3)},
        lambda: {"type": "store_sql", "sql_id": rng.randint(1, 3), "sql": text},
        lambda: {"type": "close_sql", "sql_id": rng.randint(1, 3)},
        lambda: {"type": "get_autocommit"},
    ])()


def comparable(answer):
    """Without what says when it was and how long, and without the steps at the end that were not
    run, of which Protobuf does not tell how many they are."""
    if isinstance(answer, list):
        return [comparable(a) for a in answer]
    if not isinstance(answer, dict):
        return answer
    out = {k: comparable(v) for k, v in answer.items()
           if k not in ("replication_index", "query_duration_ms")}
    while out.get("step_results") and not (out["step_results"][-1] or out["step_errors"][-1]):
        out["step_results"].pop()
        out["step_errors"].pop()
    if "step_results" in out:
        n = len(out["step_results"])
        out["step_errors"] = out["step_errors"][:n] + [None] * (n - len(out["step_errors"]))
    return out


def socket_answers(ws, requests):
    """Of the same requests, in a stream of a WebSocket."""
    ws.call("open_stream", stream_id=5)
    for i in (1, 2, 3):
        ws.call("close_sql", sql_id=i)
    out = []
    for q in requests:
        more = {k: v for k, v in q.items() if k != "type"}
        if q["type"] == "store_sql":
            ws.call("close_sql", sql_id=q["sql_id"])
        if q["type"] not in ("store_sql", "close_sql"):
            more["stream_id"] = 5
        out.append(ws.answer(ws.request(q["type"], **more)))
        out[-1].pop("request_id")
    ws.call("close_stream", stream_id=5)
    return out


@case(seconds=120)
def test_the_same_answers_in_both_forms():
    rng = random.Random(11)
    begin, end = ({"type": "execute", "stmt": stmt(s)} for s in ("BEGIN IMMEDIATE", "ROLLBACK"))
    with Cluster(http=True, election_timeout=3000) as c:
        with Door(c.leader()) as door:
            door.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v VARCHAR(9))")
        for node in each_node(c):
            with Door(node) as door, ProtobufDoor(node) as other, \
                    WebSocket(node, "hrana3") as ws, ProtobufWebSocket(node) as other_ws:
                kinds = set()
                for turn in range(40):
                    requests = [begin, *(random_request(rng) for _ in range(rng.randint(1, 5))),
                                end]
                    said = [comparable(d.pipeline(*requests, {"type": "close"}))
                            for d in (door, other)]
                    expect_equal(said[0], said[1], f"turn {turn} at {node}: {requests}")
                    kinds |= {r["error"]["code"] if r["type"] == "error" else r["response"]["type"]
                              for r in said[0]["results"]}
                    heard = [comparable(socket_answers(w, requests)) for w in (ws, other_ws)]
                    expect_equal(heard[0], heard[1], f"WebSockets, turn {turn}: {requests}")
                    wanted = batch("BEGIN IMMEDIATE", *random_batch_steps(rng), "ROLLBACK")
                    entries = []
                    for kind in (Cursor, ProtobufCursor):
                        with kind(node, wanted) as cursor:
                            expect(cursor.head["baton"], "a baton")
                            entries.append(cursor.all())
                    expect_equal(entries[0], entries[1], f"cursors, turn {turn}: {wanted}")
                expect({"execute", "batch", "sequence", "describe", "store_sql", "close_sql",
                        "get_autocommit", "close", "SQL_NOT_FOUND"} <= kinds, f"all kinds: {kinds}")


def random_batch_steps(rng):
    return [random_stmt(rng) for _ in range(rng.randrange(5))]


# --- what is Protobuf's own -----------------------------------------------------------------------


@case(short=True)
def test_streams_and_cursors():
    with Cluster(http=True, election_timeout=3000) as c:
        for i, node in enumerate(each_node(c)):
            with ProtobufDoor(node) as door, ProtobufWebSocket(node) as ws:
                r = door.ask("GET", "/v3-protobuf")
                r.read()
                expect_equal(r.status, 200, "GET /v3-protobuf")
                door.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v)")
                a = door.pipeline(*({"type": "execute", "stmt": stmt(s)} for s in (
                    "BEGIN", f"INSERT INTO t VALUES ({i}, 'x')")))
                expect(a["baton"], "a transaction is open")
                with ProtobufCursor(node, batch(MANY.format(30000) + "SELECT i, 'row' FROM c"),
                                    baton=a["baton"]) as cursor:
                    entries = cursor.all()
                expect_equal([e["type"] for e in (*entries[:2], entries[-1])],
                             ["step_begin", "row", "step_end"], "entries")
                expect_equal(len(entries), 30002, "rows that stream")
                a = door.pipeline({"type": "execute", "stmt": stmt("COMMIT")}, {"type": "close"},
                                  baton=cursor.head["baton"])
                expect_equal([r["type"] for r in a["results"]], ["ok", "ok"], "the stream goes on")
                expect_equal(a["baton"], None, "of a closed stream")
                ws.call("open_stream", stream_id=-7)
                got = ws.execute(-7, "SELECT count(*) FROM t WHERE id = ?", i)
                expect_equal(rows_of(got), [(1,)], "over a WebSocket")
                ws.call("open_cursor", stream_id=-7, cursor_id=-1, batch=atomic(
                    MANY.format(300) + "SELECT i FROM c", begin="BEGIN"))
                got = ws.call("fetch_cursor", cursor_id=-1, max_count=2)
                expect_equal(([e["type"] for e in got["entries"]], got["done"]),
                             (["step_begin", "step_end"], False), "some entries")
                rest = []
                while not got["done"]:
                    got = ws.call("fetch_cursor", cursor_id=-1, max_count=100)
                    rest += got["entries"]
                expect_equal([e["type"] for e in rest].count("row"), 300, "its rows")
                ws.call("close_cursor", cursor_id=-1)
                ws.call("close_stream", stream_id=-7)
                ws.send({"type": "hello", "jwt": "again"})
                expect_equal(ws.hear(), {"type": "hello_ok"}, "a second hello")


SELECT = encode("Stmt", {"sql": "SELECT 7"})
EXECUTE = field(2, BYTES, field(1, BYTES, SELECT))
DEEP = b""
for _ in range(3000):
    DEEP = field(3, BYTES, DEEP)


def step(condition):
    """A pipeline of a batch whose second step has CONDITION."""
    steps = [field(2, BYTES, SELECT), field(1, BYTES, condition) + field(2, BYTES, SELECT)]
    wanted = b"".join(field(1, BYTES, s) for s in steps)
    return field(2, BYTES, field(3, BYTES, field(1, BYTES, wanted)))


def execute(extra):
    """A pipeline of one statement, EXTRA behind its text."""
    return field(2, BYTES, field(2, BYTES, field(1, BYTES, SELECT + extra)))


# Bytes of a pipeline, and what is said of them.
REFUSED = [
    (b"\0", "a field has the tag 0"),
    (b"\xff", "ends within the tag"),
    (b"\xff" * 40, "tag"),
    (b"GET / HTTP/1.1", "is broken"),
    (b'{"requests":[]}', "is broken"),
    (varint(9 << 3 | 3), "field 9 is broken"),
    (field(1, BYTES, b"\xff"), "baton: must be UTF-8"),
    (varint(2 << 3 | BYTES) + varint(1000) + EXECUTE, "requests: cannot be read"),
    (varint(2 << 3 | BYTES) + b"\xff" * 9 + b"\1", "requests: cannot be read"),
    (field(2, VARINT, varint(1)), "requests: has the wire type 0, and must have 2"),
    (field(2, BYTES, b""), "requests[0]: holds no type of a request"),
    (field(2, BYTES, field(9, BYTES, b"")), "requests[0]: holds no type of a request"),
    (field(2, BYTES, EXECUTE + EXECUTE), "requests[0].execute: comes twice"),
    (field(2, BYTES, field(2, BYTES, b"")), "requests[0].execute.stmt: is missing"),
    (field(2, BYTES, field(3, BYTES, b"")), "requests[0].batch.batch: is missing"),
    (field(2, BYTES, field(4, BYTES, b"")), "requests[0].sequence: has neither sql nor sql_id"),
    (execute(field(2, VARINT, b"\1")), "requests[0].execute.stmt: has both sql and sql_id"),
    (execute(field(1, VARINT, b"\1")), "requests[0].execute.stmt.sql: has the wire type 0"),
    (execute(field(3, BYTES, b"")), "requests[0].execute.stmt.args[0]: holds no type of a value"),
    (execute(field(3, BYTES, field(4, BYTES, b"\xc3"))), "args[0].text: must be UTF-8"),
    (execute(field(3, BYTES, field(3, BYTES, bytes(8)))), "args[0].float: has the wire type 2"),
    (execute(field(3, BYTES, field(2, VARINT, b"\xff" * 10 + b"\1"))), "varint overflow"),
    (execute(field(4, BYTES, field(1, BYTES, b"a"))), "named_args[0].value: is missing"),
    (execute(field(2, VARINT, varint(1 << 40))), "varint overflow"),
    (step(b""), "steps[1].condition: holds no type of a condition"),
    (step(field(1, VARINT, b"\1")),
     "steps[1].condition.step_ok: must be that of a step before this one, 1"),
    (step(field(4, BYTES, field(1, BYTES, field(2, VARINT, b"\7")))),
     "condition.and.conds[0].step_error: must be that of a step before this one, 1"),
    (step(field(3, BYTES, field(6, BYTES, b"")) * 2), "condition.not: comes twice"),
]
# Those that look odd, and mean SELECT 7.
TAKEN = [
    execute(field(15, BYTES, b"?") + field(1000, VARINT, b"\x80\1") + field(16, FIXED64, bytes(8)) +
            field(17, FIXED32, bytes(4))),
    execute(field(1, BYTES, b"SELECT 8") + field(1, BYTES, b"SELECT 7")),
    execute(field(5, VARINT, b"\0") + field(5, VARINT, b"\x81\x80\x80\x80\0")),
    field(2, BYTES, field(1, BYTES, b"") + EXECUTE),
    b"\x92\x80\0" + varint(len(EXECUTE)) + EXECUTE,
]


@case(short=True)
def test_bytes_that_are_none():
    rng = random.Random(5)
    with Cluster(1, http=True) as c, ProtobufDoor(c.leader()) as door:
        node = c.leader()
        for body, why in REFUSED:
            error = door.post("/v3-protobuf/pipeline", body, 400)
            expect(why in error["message"], f"{body[:80]} was to be refused: {why}; it is {error}")
            expect_equal(error["code"], "HRANA_PROTO_ERROR", "the code")
        error = door.post("/v3-protobuf/pipeline", step(DEEP), 413)
        expect("nests deeper than 64" in error["message"], f"conditions: {error}")
        error = door.post("/v3-protobuf/cursor", b"", 400)
        expect("batch: is missing" in error["message"], f"an empty cursor: {error}")
        steps = field(1, BYTES, field(2, BYTES, SELECT)) * 10001
        error = door.post("/v3-protobuf/cursor", field(2, BYTES, steps), 413)
        expect("has 10001 steps" in error["message"], f"many steps: {error}")
        for many, why in ((execute(b"\x1a\2\n\0" * 2000000), "too many fields"),
                          (execute(b"\x1a\2\n\0" * 3900000), "of memory"),
                          (b"\x48\1" * 7900000, "too many fields"),
                          (b"\x12\2\n\0" * 1000000, "too many fields")):
            error = door.post("/v3-protobuf/pipeline", many, 413)
            expect(why in error["message"], f"{many[:8]}...: {error}")
        for body in TAKEN:
            a = door.pipeline_bytes(body)
            expect_equal([rows_of(r["response"]["result"]) for r in a["results"]], [[(7,)]],
                         f"{body}")
        expect_equal(door.pipeline_bytes(b"")["results"], [], "no requests")
        error = door.pipeline({"type": "get_autocommit"}, baton="foreign", status=400)
        expect(error["code"].startswith("BATON"), f"a foreign baton: {error}")
        whole = door.encode([{"type": "batch", "batch": atomic(stmt("SELECT ?", "x"))}])
        for _ in range(300):
            body = bytearray(whole[:rng.randint(0, len(whole))] if rng.random() < .3 else whole)
            for _ in range(rng.randint(1, 4)):
                if body:
                    body[rng.randrange(len(body))] = rng.choice([0, 1, 2, 10, 18, 127, 128, 255])
            r = door.ask("POST", "/v3-protobuf/pipeline", bytes(body))
            r.read()
            expect(r.status in (200, 400, 413), f"{r.status} for {bytes(body)}")
        hello = encode("ClientMsg", {"hello": {}})
        for message, opcode, code, why in ((b"{}", 1, 1003, "binary frames"),
                                           (b"", 2, 1007, "no type of a message"),
                                           (field(2, BYTES, b"\x08\1"), 2, 1007, "no type of"),
                                           (b"\xff", 2, 1007, "the tag of a field")):
            with ProtobufWebSocket(node, hello=False) as ws:
                ws.send_raw(hello, 2)
                expect_equal(ws.hear(), {"type": "hello_ok"}, "hello")
                ws.send_raw(message, opcode)
                closed = ws.hear_close()[1]
                expect(isinstance(closed, Closed) and closed.code == code and why in closed.reason,
                       f"{message} in a frame of kind {opcode}: {closed}")
        with WebSocket(node, "hrana3") as ws:
            ws.send_raw(hello, 2)
            expect_equal(ws.hear_close()[1].code, 1003, "Protobuf where JSON is spoken")
        with ProtobufWebSocket(node) as ws:
            ws.call("open_stream", stream_id=0)
            expect_equal(ws.rows(0, "SELECT 1"), [(1,)], "the node is well")
        expect_equal(door.rows("SELECT 1"), [(1,)], "and the connection")


def at_least(n, sockets):
    """Those that have something to read, if they are N; or None."""
    readable = select.select(sockets, [], [], 0)[0]
    return readable if len(readable) >= n else None


@case()
def test_bodies_that_grow_when_they_are_read():
    """An argument has four bytes on the wire and ten times as many in memory: these are counted in
    waiting-bytes, also while the request waits for others."""
    body = b"".join(field(2, BYTES, field(2, BYTES, field(1, BYTES, s))) for s in (
        encode("Stmt", {"sql": "BEGIN IMMEDIATE"}), SELECT + b"\x1a\2\n\0" * 300000))
    body += field(2, BYTES, field(1, BYTES, b""))  # close
    head = f"POST /v3-protobuf/pipeline HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with measured(1, http=True, waiting_bytes="128MiB", transaction_idle_timeout=60000
                  ) as c, ProtobufDoor(c.leader()) as door:
        node, opened = c.leader(), []
        held = door.pipeline({"type": "execute", "stmt": stmt("BEGIN IMMEDIATE")})["baton"]
        before = peak_mib(node)
        try:
            for _ in range(40):
                s = socket.create_connection(("127.0.0.1", node.http_port), timeout=10)
                opened.append(s)
                s.sendall(head.encode() + body)
            # Six have room.
            answered = wait_for(lambda: at_least(34, opened), "34 answers of 40")
            for s in answered:
                expect_equal(s.recv(12), b"HTTP/1.1 503", "an answer while others wait")
            took = peak_mib(node) - before
            expect(took < 3 * 128, f"{took} MiB with a limit of 128")
            door.pipeline({"type": "execute", "stmt": stmt("ROLLBACK")}, baton=held)
        finally:
            for s in opened:
                s.close()
        expect_equal(door.rows("SELECT 7"), [(7,)], "the node is well")
