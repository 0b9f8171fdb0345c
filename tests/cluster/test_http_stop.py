"""A node that is told to stop: says so to load balancers, answers what it has taken, and sends its
HTTP clients away without breaking anything."""

import http.client
import socket
import threading
import time

from tests.lib.cluster import PATIENCE, Cluster, case, expect, expect_equal, wait_for
from tests.lib.hrana import Closed, Cursor, Door, WebSocket, batch, stmt
from tests.lib.lectern_client import ConnectionLost, LecternError
from tests.lib.metrics import scrape, value

WRITERS = 6
SLOW = ("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 500000) "
        "SELECT count(*) FROM c")
# More than lies between the node and a client that does not read.
LARGE = "SELECT hex(zeroblob(500000)) FROM json_each('[1,2,3,4,5,6,7,8,9,10,11,12]')"


class Writer(threading.Thread):
    """Writes rows one by one through NODE until that sends it away."""

    def __init__(self, node, number):
        super().__init__(daemon=True)
        self.node, self.number = node, number
        self.done, self.broken, self.end = [], [], None

    def run(self):
        with Door(self.node) as door:
            i = 0
            while self.end is None:
                i += 1
                row = f"{self.node.id}-{self.number}-{i}"
                body = {"baton": None, "requests": [
                    {"type": "execute", "stmt": stmt("INSERT INTO t VALUES (?)", row)},
                    {"type": "close"}]}
                try:
                    r = door.ask("POST", "/v2/pipeline", body)
                    text = r.read()
                except ConnectionRefusedError:
                    self.end = "refused"
                except (OSError, http.client.HTTPException) as e:
                    self.broken.append(f"{row}: {e!r}")
                    self.end = "broken"
                else:
                    if r.status == 503:
                        self.end = "503"
                        if r.getheader("connection") != "close":
                            self.broken.append(f"{row}: 503 without `connection: close`")
                    elif r.status != 200 or b'"type":"ok"' not in text:
                        self.broken.append(f"{row}: {r.status} {text}")
                    else:
                        self.done.append(row)


class Reader(threading.Thread):
    """A read over the native protocol."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.client, self.answer = node.client(), None

    def run(self):
        try:
            self.answer = self.client.query(SLOW).rows
        except (ConnectionLost, LecternError) as e:
            self.answer = repr(e)
        self.client.close()


class Prober(threading.Thread):
    """Asks /readyz as a load balancer does, until nobody is there."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.node, self.heard = node, []

    def run(self):
        while True:
            try:
                with Door(self.node, timeout=5) as door:
                    r = door.ask("GET", "/readyz?noleader")
                    self.heard.append((r.status, r.read().decode().strip()))
            except OSError:
                return
            time.sleep(0.001)


def reads(node):
    """How many were answered, or are under way."""
    found = scrape(node)
    return value(found, "lectern_readers_busy") + sum(
        value(found, "lectern_requests_total", door=d, kind="read") for d in ("native", "http"))


def stop_under(c, node):
    """Stops NODE while clients of all kinds use it; returns the writers and the prober."""
    writers = [Writer(node, i) for i in range(WRITERS)]
    prober, native = Prober(node), Reader(node)
    with WebSocket(node, "hrana2") as idle, WebSocket(node, "hrana2") as busy, \
            Door(node) as slow, Cursor(node, batch(LARGE)) as cursor:
        busy.call("open_stream", stream_id=1)
        for t in [*writers, prober]:
            t.start()
        wait_for(lambda: all(w.done or w.end for w in writers), "all write")
        before = reads(node)
        asked = busy.request("execute", stream_id=1, stmt=stmt(SLOW))
        slow.conn.request("POST", "/v2/pipeline",
                          '{"requests":[{"type":"execute","stmt":{"sql":"%s"}}]}' % SLOW)
        native.start()
        wait_for(lambda: reads(node) >= before + 3, f"{node} has taken them")
        node.terminate()
        # It goes on for the cursor's sake, for some seconds.
        wait_for(lambda: 503 in [status for status, _ in prober.heard] or not prober.is_alive(),
                 "a balancer hears of it")
        expect_equal(cursor.all()[-1]["type"], "step_end", "the end of rows under way")
        answers, end = idle.hear_close()
        expect_equal((answers, end.code), ([], 1001), "how an idle WebSocket ends")
        expect_equal(busy.answer(asked)["type"], "response_ok", "what was under way on a WebSocket")
        try:
            raise AssertionError(f"a WebSocket goes on: {busy.hear()}")
        except Closed as e:
            expect_equal(e.code, 1001, "how a WebSocket ends behind its answers")
        r = slow.conn.getresponse()
        expect_equal((r.status, r.getheader("connection")), (200, "close"), "a read under way")
        expect(b"500000" in r.read(), "its answer")
        native.join(30 * PATIENCE)
        expect_equal(native.answer, [(500000,)], "a read under way over the native protocol")
    expect_equal(node.wait_end(), 0, "the exit status")
    for t in [*writers, prober]:
        t.join(30 * PATIENCE)
    return writers, prober


@case()
def test_a_node_that_stops_breaks_nothing():
    with Cluster(n=3, http=True) as c:
        leader = c.leader()
        with Door(leader) as door:
            door.execute("CREATE TABLE t (a TEXT)")
        done = []
        for node in (c.others(leader)[0], leader):  # the second hands over first
            writers, prober = stop_under(c, node)
            broken = [b for w in writers for b in w.broken]
            expect_equal(broken, [], f"requests that {node} took, and did not answer")
            done += [row for w in writers for row in w.done]
            statuses = [s for s, _ in prober.heard]
            first = statuses.index(503) if 503 in statuses else len(statuses)
            expect(first < len(statuses), f"/readyz never said 503 while {node} stopped")
            expect_equal(set(prober.heard[first:]), {(503, "not ready: this node is stopping")},
                         f"/readyz from the stop of {node} on")
            print(f"{node}: {sum(len(w.done) for w in writers)} writes, ends "
                  f"{sorted(w.end for w in writers)}, {len(statuses) - first} times 503")
            c.restart(node)
            c.wait_serving()
        with Door(c.leader()) as door:
            rows = [r[0] for r in door.rows("SELECT a FROM t")]
        expect_equal(len(rows), len(set(rows)), "rows, each once")
        expect(set(done) <= set(rows), lambda: f"lost: {sorted(set(done) - set(rows))[:5]}")
        expect_equal(len(rows) - len(done), 0, "rows of writes that were not answered")


def asks_as_it_closes(c, node):
    """Stops NODE; the status of a request on a connection that was idle until no other is taken."""
    with Door(node) as idle:
        idle.rows("SELECT 1")
        node.terminate()

        def is_deaf():
            try:
                with socket.create_connection(("127.0.0.1", node.http_port)):
                    return False
            except ConnectionRefusedError:
                return True
        c.wait(is_deaf, f"{node} takes no connection")
        try:
            status = idle.ask("POST", "/v2/pipeline", {"requests": []}).status
        except (OSError, http.client.HTTPException):
            status = None
    node.wait_end()
    c.restart(node)
    c.wait_serving()
    return status


@case()
def test_a_client_between_two_requests_is_told():
    """Its request is on its way as the node closes: it hears that it was not run. There is a
    quarter of a second for that, and this machine may be busy: one of five is enough."""
    with Cluster(n=3, http=True) as c:
        node = c.others(c.leader())[0]
        expect(any(asks_as_it_closes(c, node) == 503 for _ in range(5)), "nobody was told")


@case()
def test_a_transaction_whose_client_is_refused_keeps_nobody_waiting():
    with Cluster(n=3, http=True, transaction_idle_timeout=60000) as c:
        leader = c.leader()
        node, other = c.others(leader)
        with Door(node) as held, Door(node) as waiting, Door(other) as door:
            door.execute("CREATE TABLE t (a TEXT)")
            held.pipeline({"type": "execute", "stmt": stmt("BEGIN IMMEDIATE")})
            waiting.conn.request("POST", "/v2/pipeline", '{"requests":[{"type":"execute","stmt":'
                                 '{"sql":"INSERT INTO t VALUES (1)"}}]}')
            wait_for(lambda: value(scrape(leader), "lectern_write_queue") == 1, "it waits")
            began = time.monotonic()
            node.stop()
            took = time.monotonic() - began
            r = waiting.conn.getresponse()
            expect(r.status == 200 and b'"affected_row_count":1' in r.read(), "a write that waited")
            expect(took < 20 * PATIENCE, f"the stop took {took:.1f} s")
        c.restart(node)
        c.wait_serving()
