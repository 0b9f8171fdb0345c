"""Hrana 3 as Protobuf, for tests: what tests/lib/hrana.py says in JSON goes out as Protobuf, and
what comes is told in JSON's words, so that a test can be run in either form. Written after the
schema of the specification, field by field; standard library only."""

import base64
import struct

from tests.lib.cluster import expect, expect_equal
from tests.lib.hrana import Cursor, Door, WebSocket

# A message: its fields by tag: (name, type). [type]: it repeats.
SCHEMA = {
    "Null": {},
    "Value": {1: ("null", "Null"), 2: ("integer", "sint64"), 3: ("float", "double"),
              4: ("text", "string"), 5: ("blob", "bytes")},
    "NamedArg": {1: ("name", "string"), 2: ("value", "Value")},
    "Stmt": {1: ("sql", "string"), 2: ("sql_id", "int32"), 3: ("args", ["Value"]),
             4: ("named_args", ["NamedArg"]), 5: ("want_rows", "bool"),
             6: ("replication_index", "uint64")},
    "CondList": {1: ("conds", ["BatchCond"])},
    "BatchCond": {1: ("ok", "uint32"), 2: ("error", "uint32"), 3: ("not", "BatchCond"),
                  4: ("and", "CondList"), 5: ("or", "CondList"), 6: ("is_autocommit", "Null")},
    "BatchStep": {1: ("condition", "BatchCond"), 2: ("stmt", "Stmt")},
    "Batch": {1: ("steps", ["BatchStep"]), 2: ("replication_index", "uint64")},
    "Error": {1: ("message", "string"), 2: ("code", "string")},
    "Col": {1: ("name", "string"), 2: ("decltype", "string")},
    "Row": {1: ("values", ["Value"])},
    "StmtResult": {1: ("cols", ["Col"]), 2: ("rows", ["Row"]), 3: ("affected_row_count", "uint64"),
                   4: ("last_insert_rowid", "sint64"), 5: ("replication_index", "uint64"),
                   6: ("rows_read", "uint64"), 7: ("rows_written", "uint64"),
                   8: ("query_duration_ms", "double")},
    "ResultEntry": {1: ("key", "uint32"), 2: ("value", "StmtResult")},
    "ErrorEntry": {1: ("key", "uint32"), 2: ("value", "Error")},
    "BatchResult": {1: ("step_results", ["ResultEntry"]), 2: ("step_errors", ["ErrorEntry"])},
    "Param": {1: ("name", "string")},
    "DescribeResult": {1: ("params", ["Param"]), 2: ("cols", ["Col"]), 3: ("is_explain", "bool"),
                       4: ("is_readonly", "bool")},
    "StepBegin": {1: ("step", "uint32"), 2: ("cols", ["Col"])},
    "StepEnd": {1: ("affected_row_count", "uint64"), 2: ("last_insert_rowid", "sint64")},
    "StepError": {1: ("step", "uint32"), 2: ("error", "Error")},
    "CursorEntry": {1: ("step_begin", "StepBegin"), 2: ("step_end", "StepEnd"),
                    3: ("step_error", "StepError"), 4: ("row", "Row"), 5: ("error", "Error")},
    "ExecuteResp": {1: ("result", "StmtResult")},
    "BatchResp": {1: ("result", "BatchResult")},
    "DescribeResp": {1: ("result", "DescribeResult")},
    "AutocommitResp": {1: ("is_autocommit", "bool")},
    # hrana.http
    "PipelineReqBody": {1: ("baton", "string"), 2: ("requests", ["StreamRequest"])},
    "CursorReqBody": {1: ("baton", "string"), 2: ("batch", "Batch")},
    "StreamRequest": {1: ("close", "Null"), 2: ("execute", "StreamExecute"),
                      3: ("batch", "StreamBatch"), 4: ("sequence", "StreamSql"),
                      5: ("describe", "StreamSql"), 6: ("store_sql", "StoreSql"),
                      7: ("close_sql", "StoreSql"), 8: ("get_autocommit", "Null")},
    "StreamExecute": {1: ("stmt", "Stmt")},
    "StreamBatch": {1: ("batch", "Batch")},
    "StreamSql": {1: ("sql", "string"), 2: ("sql_id", "int32"), 3: ("replication_index", "uint64")},
    "StoreSql": {1: ("sql_id", "int32"), 2: ("sql", "string")},
    "PipelineRespBody": {1: ("baton", "string"), 2: ("base_url", "string"),
                         3: ("results", ["StreamResult"])},
    "CursorRespBody": {1: ("baton", "string"), 2: ("base_url", "string")},
    "StreamResult": {1: ("ok", "StreamResponse"), 2: ("error", "Error")},
    "StreamResponse": {1: ("close", "Null"), 2: ("execute", "ExecuteResp"),
                       3: ("batch", "BatchResp"), 4: ("sequence", "Null"),
                       5: ("describe", "DescribeResp"), 6: ("store_sql", "Null"),
                       7: ("close_sql", "Null"), 8: ("get_autocommit", "AutocommitResp")},
    # hrana.ws
    "ClientMsg": {1: ("hello", "Hello"), 2: ("request", "RequestMsg")},
    "Hello": {1: ("jwt", "string")},
    "RequestMsg": {1: ("request_id", "int32"), 2: ("open_stream", "StreamId"),
                   3: ("close_stream", "StreamId"), 4: ("execute", "Execute"),
                   5: ("batch", "BatchReq"), 6: ("open_cursor", "OpenCursor"),
                   7: ("close_cursor", "CursorId"), 8: ("fetch_cursor", "FetchCursor"),
                   9: ("sequence", "Sql"), 10: ("describe", "Sql"), 11: ("store_sql", "StoreSql"),
                   12: ("close_sql", "StoreSql"), 13: ("get_autocommit", "StreamId")},
    "StreamId": {1: ("stream_id", "int32")},
    "Execute": {1: ("stream_id", "int32"), 2: ("stmt", "Stmt")},
    "BatchReq": {1: ("stream_id", "int32"), 2: ("batch", "Batch")},
    "OpenCursor": {1: ("stream_id", "int32"), 2: ("cursor_id", "int32"), 3: ("batch", "Batch")},
    "CursorId": {1: ("cursor_id", "int32")},
    "FetchCursor": {1: ("cursor_id", "int32"), 2: ("max_count", "uint32")},
    "Sql": {1: ("stream_id", "int32"), 2: ("sql", "string"), 3: ("sql_id", "int32"),
            4: ("replication_index", "uint64")},
    "ServerMsg": {1: ("hello_ok", "Null"), 2: ("hello_error", "HelloError"),
                  3: ("response_ok", "ResponseOk"), 4: ("response_error", "ResponseError")},
    "HelloError": {1: ("error", "Error")},
    "ResponseError": {1: ("request_id", "int32"), 2: ("error", "Error")},
    "ResponseOk": {1: ("request_id", "int32"), 2: ("open_stream", "Null"),
                   3: ("close_stream", "Null"), 4: ("execute", "ExecuteResp"),
                   5: ("batch", "BatchResp"), 6: ("open_cursor", "Null"),
                   7: ("close_cursor", "Null"), 8: ("fetch_cursor", "Fetched"),
                   9: ("sequence", "Null"), 10: ("describe", "DescribeResp"),
                   11: ("store_sql", "Null"), 12: ("close_sql", "Null"),
                   13: ("get_autocommit", "AutocommitResp")},
    "Fetched": {1: ("entries", ["CursorEntry"]), 2: ("done", "bool")},
}

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


# --- bytes ----------------------------------------------------------------------------------------


def varint(v):
    out = b""
    v &= (1 << 64) - 1
    while v > 127:
        out += bytes([v & 127 | 128])
        v >>= 7
    return out + bytes([v])


def field(tag, wire, payload):
    """PAYLOAD as it stands behind the tag; of BYTES without its length."""
    return varint(tag << 3 | wire) + (varint(len(payload)) if wire == BYTES else b"") + payload


def encode_scalar(tag, kind, v):
    if kind == "string":
        return field(tag, BYTES, v.encode())
    if kind == "bytes":
        return field(tag, BYTES, v)
    if kind == "double":
        return field(tag, FIXED64, struct.pack("<d", v))
    if kind == "sint64":
        v = v << 1 ^ v >> 63
    return field(tag, VARINT, varint(int(v)))


def encode(message, values):
    out = b""
    for tag, (name, kind) in SCHEMA[message].items():
        if values.get(name) is None:
            continue
        for v in values[name] if isinstance(kind, list) else [values[name]]:
            one = kind[0] if isinstance(kind, list) else kind
            if one in SCHEMA:
                out += field(tag, BYTES, encode(one, v))
            else:
                out += encode_scalar(tag, one, v)
    return out


def read_varint(data, at):
    v = shift = 0
    while True:
        v |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            expect(shift == 7 or data[at - 1] != 0, "a varint is as short as it can be")
            return v, at


def decode_scalar(kind, v):
    if kind == "string":
        return v.decode()
    if kind == "double":
        return struct.unpack("<d", v)[0]
    if kind == "sint64":
        return v >> 1 ^ -(v & 1)
    if kind == "int32":
        return v - (1 << 64) if v >> 63 else v
    return bool(v) if kind == "bool" else v


def decode(message, data):
    """Refuses what is not in the schema: a node sends no more."""
    fields = SCHEMA[message]
    out = {name: [] for name, kind in fields.values() if isinstance(kind, list)}
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        name, kind = fields[key >> 3]
        one = kind[0] if isinstance(kind, list) else kind
        wanted = (BYTES if one in SCHEMA or one in ("string", "bytes") else
                  FIXED64 if one == "double" else VARINT)
        expect_equal(key & 7, wanted, f"the wire type of {message}.{name}")
        if wanted == VARINT:
            v, at = read_varint(data, at)
        else:
            n, at = read_varint(data, at) if wanted == BYTES else (8, at)
            v = data[at:at + n]
            expect_equal(len(v), n, f"the length of {message}.{name}")
            at += n
        v = decode(one, v) if one in SCHEMA else decode_scalar(one, v)
        if isinstance(kind, list):
            out[name].append(v)
        else:
            expect(name not in out, f"{message}.{name} comes once")
            out[name] = v
    return out


# --- JSON's words ---------------------------------------------------------------------------------


def value_out(v):
    kind = v["type"]
    if kind == "null":
        return {"null": {}}
    if kind == "integer":
        return {"integer": int(v["value"])}
    if kind == "blob":
        text = v["base64"]
        return {"blob": base64.b64decode(text + "=" * (-len(text) % 4))}
    return {kind: v["value"]}


def value_in(v):
    (kind, x), = v.items()
    if kind == "null":
        return {"type": "null"}
    if kind == "integer":
        return {"type": "integer", "value": str(x)}
    if kind == "blob":
        return {"type": "blob", "base64": base64.b64encode(x).decode().rstrip("=")}
    return {"type": kind, "value": x}


def stmt_out(s):
    return {**s, "args": [value_out(v) for v in s.get("args", ())],
            "named_args": [{**a, "value": value_out(a["value"])}
                           for a in s.get("named_args", ())]}


def condition_out(c):
    kind = c["type"]
    if kind in ("ok", "error"):
        return {kind: c["step"]}
    if kind == "not":
        return {kind: condition_out(c["cond"])}
    if kind == "is_autocommit":
        return {kind: {}}
    return {kind: {"conds": [condition_out(part) for part in c["conds"]]}}


def batch_out(b):
    return {**b, "steps": [{"condition": s.get("condition") and condition_out(s["condition"]),
                            "stmt": stmt_out(s["stmt"])} for s in b["steps"]]}


def request_out(q):
    inner = {k: v for k, v in q.items() if k != "type"}
    if "stmt" in inner:
        inner["stmt"] = stmt_out(inner["stmt"])
    if "batch" in inner:
        inner["batch"] = batch_out(inner["batch"])
    return {q["type"]: inner}


def message_out(m):
    if m["type"] == "hello":
        return {"hello": {"jwt": m.get("jwt")}}
    return {"request": {"request_id": m["request_id"], **request_out(m["request"])}}


def columns_in(cols):
    return [{"name": c.get("name"), "decltype": c.get("decltype")} for c in cols]


def number_in(v):
    return None if v is None else str(v)


def result_in(r):
    return {"cols": columns_in(r["cols"]),
            "rows": [[value_in(v) for v in row["values"]] for row in r["rows"]],
            "affected_row_count": r["affected_row_count"],
            "last_insert_rowid": number_in(r.get("last_insert_rowid")),
            "replication_index": number_in(r.get("replication_index")),
            "rows_read": r["rows_read"], "rows_written": r["rows_written"],
            "query_duration_ms": r.get("query_duration_ms", 0)}


def batch_in(r):
    """Lists that end with the last step that was run: the number of steps is not told."""
    results = {e["key"]: result_in(e["value"]) for e in r["step_results"]}
    errors = {e["key"]: e["value"] for e in r["step_errors"]}
    expect(not results.keys() & errors.keys(), "a step has a result or an error")
    n = max([-1, *results, *errors]) + 1
    return {"step_results": [results.get(i) for i in range(n)],
            "step_errors": [errors.get(i) for i in range(n)]}


def entry_in(e):
    (kind, v), = e.items()
    if kind == "step_begin":
        return {"type": kind, "step": v["step"], "cols": columns_in(v["cols"])}
    if kind == "step_end":
        return {"type": kind, "affected_row_count": v["affected_row_count"],
                "last_insert_rowid": number_in(v.get("last_insert_rowid"))}
    if kind == "row":
        return {"type": kind, "row": [value_in(x) for x in v["values"]]}
    if kind == "error":
        return {"type": kind, "error": v}
    return {"type": kind, **v}


def response_in(kind, v):
    if kind == "execute":
        return {"type": kind, "result": result_in(v["result"])}
    if kind == "batch":
        return {"type": kind, "result": batch_in(v["result"])}
    if kind == "describe":
        d = v["result"]
        return {"type": kind, "result": {**d, "cols": columns_in(d["cols"]),
                                         "params": [{"name": p.get("name")} for p in d["params"]]}}
    if kind == "fetch_cursor":
        return {"type": kind, "entries": [entry_in(e) for e in v["entries"]], "done": v["done"]}
    return {"type": kind, **v}


def pipeline_in(body):
    results = []
    for r in body["results"]:
        (kind, v), = r.items()
        if kind == "ok":
            (response, inner), = v.items()
            results.append({"type": kind, "response": response_in(response, inner)})
        else:
            results.append({"type": kind, "error": v})
    return {"results": results, "baton": body.get("baton"), "base_url": body.get("base_url")}


def message_in(m):
    (kind, v), = m.items()
    if kind == "response_ok":
        (response, inner), = ((k, x) for k, x in v.items() if k != "request_id")
        return {"type": kind, "request_id": v["request_id"],
                "response": response_in(response, inner)}
    return {"type": kind, **v}


# --- clients --------------------------------------------------------------------------------------

TYPE = "application/x-protobuf"


class ProtobufDoor(Door):
    """Its pipelines are Protobuf; errors of HTTP are JSON in all forms."""

    def post_bytes(self, path, body, status=200):
        r = self.ask("POST", path, body, {"Content-Type": TYPE})
        data = r.read()
        expect_equal(r.status, status, f"the status of POST {path}, which said {data[:500]}")
        expect_equal(r.headers["Content-Type"], TYPE if status == 200 else "application/json",
                     "the answer's type")
        return data

    def pipeline(self, *requests, baton=None, status=200):
        if status != 200:
            return self.post("/v3-protobuf/pipeline", self.encode(requests, baton), status)
        return self.pipeline_bytes(self.encode(requests, baton))

    def pipeline_bytes(self, body):
        data = self.post_bytes("/v3-protobuf/pipeline", body)
        return pipeline_in(decode("PipelineRespBody", data))

    @staticmethod
    def encode(requests, baton=None):
        return encode("PipelineReqBody",
                      {"baton": baton, "requests": [request_out(q) for q in requests]})


class ProtobufCursor(Cursor):
    """POST /v3-protobuf/cursor: messages with their length before them."""

    path = "/v3-protobuf/cursor"

    def encode(self, wanted, baton):
        return encode("CursorReqBody", {"baton": baton, "batch": batch_out(wanted)})

    def read_piece(self):
        """The bytes of the next message; None: it is the end."""
        n = shift = 0
        while True:
            byte = self.response.read(1)
            if not byte:
                expect_equal(shift, 0, "an answer ends behind a message")
                return None
            n |= (byte[0] & 127) << shift
            shift += 7
            if byte[0] < 128:
                break
        data = self.response.read(n)
        expect_equal(len(data), n, "the bytes of an entry")
        return data

    def read_head(self):
        expect_equal(self.response.headers["Content-Type"], TYPE, "the answer's type")
        head = decode("CursorRespBody", self.read_piece())
        return {"baton": head.get("baton"), "base_url": head.get("base_url")}

    def __iter__(self):
        for data in iter(self.read_piece, None):
            yield entry_in(decode("CursorEntry", data))


class ProtobufWebSocket(WebSocket):
    """Binary messages; the subprotocol is hrana3-protobuf."""

    opcode = 2

    def __init__(self, node, *protocols, **more):
        super().__init__(node, *(protocols or ("hrana3-protobuf",)), **more)
        expect_equal(self.protocol, "hrana3-protobuf", "the subprotocol")

    def encode(self, message):
        return encode("ClientMsg", message_out(message))

    def decode(self, data, opcode):
        expect_equal(opcode, 2, "the kind of a message")
        return message_in(decode("ServerMsg", data))
