"""What HTTP clients make a node hold: one limit for all of them, waiting-bytes."""

import http.client
import json
import socket

from tests.cluster.test_hostile_streams import measured, peak_mib
from tests.lib.cluster import case, expect, expect_equal, wait_for

LIMIT_MIB = 128
ROWS = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 8000) " \
       "SELECT i, hex(zeroblob(500)) FROM n"


def pipeline(node, *statements, timeout=30):
    c = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=timeout)
    requests = [{"type": "execute", "stmt": {"sql": sql}} for sql in statements]
    c.request("POST", "/v2/pipeline", json.dumps({"requests": [*requests, {"type": "close"}]}))
    answer = c.getresponse()
    body = json.loads(answer.read())
    c.close()
    return answer.status, body


def is_served(node):
    status, body = pipeline(node, "SELECT 6 * 7")
    expect_equal(status, 200, str(body))
    expect_equal(body["results"][0]["response"]["result"]["rows"][0][0]["value"], "42", str(body))


def is_refused(s):
    """Whether the socket S has the answer 503 by now."""
    try:
        return s.recv(12, socket.MSG_PEEK | socket.MSG_DONTWAIT).endswith(b"503")
    except OSError:
        return False


@case()
def test_bodies_that_never_end_have_one_limit():
    """As trees of small values they are eight times as long in memory as on the wire."""
    with measured(1, http=True, waiting_bytes=f"{LIMIT_MIB}MiB") as c:
        node = c.nodes[0]
        before, opened = peak_mib(node), []
        head = b"POST /v2/pipeline HTTP/1.1\r\nhost: x\r\ncontent-length: 16000000\r\n\r\n" \
               b'{"requests":[' + b"1," * 600000
        try:
            for _ in range(30):
                s = socket.create_connection(("127.0.0.1", node.http_port), timeout=10)
                opened.append(s)
                try:
                    s.sendall(head)
                except OSError:  # the node has answered, and reads no more
                    pass
            wait_for(lambda: sum(map(is_refused, opened)) > 5, "more than 5 of 30 are refused")
            is_served(node)
            took = peak_mib(node) - before
            expect(took < 3 * LIMIT_MIB, f"{took} MiB with a limit of {LIMIT_MIB}")
        finally:
            for s in opened:
                s.close()
        is_served(node)


@case()
def test_answers_that_are_not_complete_have_one_limit():
    """Each has its rows, and waits for its last statement; the limit of one answer is 10 MiB."""
    with measured(1, http=True, waiting_bytes=f"{LIMIT_MIB}MiB",
                  transaction_idle_timeout=60000) as c:
        node = c.nodes[0]
        with node.client() as holder:
            holder.query("CREATE TABLE t(a)")
            holder.query("BEGIN IMMEDIATE")
            body = json.dumps({"requests": [{"type": "execute", "stmt": {"sql": sql}} for sql in
                                            (ROWS, "INSERT INTO t VALUES (1)")]}).encode()
            head = b"POST /v2/pipeline HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
            before, opened = peak_mib(node), []
            try:
                for _ in range(60):
                    s = socket.create_connection(("127.0.0.1", node.http_port), timeout=30)
                    opened.append(s)
                    s.sendall(head % len(body) + body)
                is_served(node)
                holder.query("ROLLBACK")
                busy = 0
                for s in opened:
                    answer = http.client.HTTPResponse(s)
                    answer.begin()
                    results = json.loads(answer.read())["results"]
                    busy += results[0].get("error", {}).get("code") == "SQLITE_BUSY"
                    expect_equal(results[1]["type"], "ok", "the INSERT")
            finally:
                for s in opened:
                    s.close()
            took = peak_mib(node) - before
            expect(took < 2 * LIMIT_MIB, f"{took} MiB with a limit of {LIMIT_MIB}")
            expect(busy > 0, "none of 60 times 9 MiB was refused")
            # Ten of them have room; those that are refused make it for those that are not.
            expect(60 - busy >= 7, f"{busy} of 60 were refused")
            expect_equal(holder.query("SELECT count(*) FROM t").rows, [(60,)], "the INSERTs")
