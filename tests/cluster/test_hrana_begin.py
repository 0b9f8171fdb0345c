"""How BEGIN is taken: as SQLite does, or as one that waits for the writer at once."""

import contextlib
import threading

from tests.lib.cluster import PATIENCE, Cluster, case, expect, expect_equal
from tests.lib.dbapi import lectern
from tests.lib.hrana import Door, WebSocket, atomic, plain, stmt

PATH = "/v3/pipeline"
IMMEDIATE = {"headers": {"lectern-begin": "immediate"}}
DEFERRED = {"headers": {"lectern-begin": "deferred"}}


class Transaction:
    """Its statements, one request each, over a connection of its own. Rolled back at its end."""

    def __init__(self, node, begin="BEGIN", path=PATH, headers=None):
        self.door, self.path, self.headers, self.baton = Door(node), path, headers, None
        self.run(begin)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.request({"type": "close"})
        self.door.conn.close()

    def request(self, request):
        answer = self.door.post(self.path, {"baton": self.baton, "requests": [request]},
                                headers=self.headers)
        self.baton = answer["baton"]
        return answer["results"][0]

    def ask(self, sql, *args):
        return self.request({"type": "execute", "stmt": stmt(sql, *args)})

    def run(self, sql, *args):
        answer = self.ask(sql, *args)
        expect_equal(answer["type"], "ok", f"{sql}: {answer}")
        return [[plain(v) for v in row] for row in answer["response"]["result"]["rows"]]

    def run_later(self, *statements):
        """In a thread, whose end says that they were done."""
        done = threading.Thread(target=lambda: [self.run(sql) for sql in statements], daemon=True)
        done.start()
        return done


def write_between(c, **how):
    """A transaction that has read, and another one's write, in a thread."""
    one, other = Transaction(c.nodes[0], **how), Transaction(c.nodes[0], **DEFERRED)
    one.run("SELECT n FROM t")
    return one, other, other.run_later("UPDATE t SET n = n + 1", "COMMIT")


def expect_deferred(c, **how):
    """It can write only as long as nobody else has."""
    one, other, written = write_between(c, **how)
    with one, other:
        written.join()
        error = one.ask("UPDATE t SET n = n + 1")["error"]
        expect_equal(error["code"], "SQLITE_BUSY", "the code")
        expect("BEGIN IMMEDIATE" in error["message"], error["message"])


def expect_immediate(c, **how):
    """It has the writer: others wait for its end."""
    one, other, written = write_between(c, **how)
    with one, other:
        written.join(0.3)
        expect(written.is_alive(), "another one wrote")
        one.run("UPDATE t SET n = n + 1")
        one.run("COMMIT")
        written.join()


@case(seconds=90)
def test_begin_is_taken_as_the_request_or_else_the_node_says():
    for setting in ("deferred", "immediate"):
        with Cluster(1, http=True, http_begin=setting) as c:
            with c.client() as q:
                q.query("CREATE TABLE t(n)")
                q.query("INSERT INTO t VALUES (0)")
            by_itself = expect_deferred if setting == "deferred" else expect_immediate
            by_itself(c)
            by_itself(c, begin="begin deferred transaction;")
            expect_immediate(c, **IMMEDIATE)
            expect_immediate(c, path=PATH + "?begin=immediate")
            expect_deferred(c, **DEFERRED)
            expect_deferred(c, path=PATH + "?begin=deferred")


@case(seconds=90)
def test_programs_that_read_first_and_write_then_never_fail_with_begin_immediate():
    """Six at once, over HTTP and WebSockets, through all nodes; what only reads waits for none."""
    each, failures = 8, []

    def raise_it_over_http(node):
        for _ in range(each):
            with Transaction(node) as t:
                n = t.run("SELECT n FROM t")[0][0]
                t.run("UPDATE t SET n = ?", n + 1)
                t.run("COMMIT")

    def raise_it_over_a_websocket(node):
        with WebSocket(node, "hrana3") as socket:
            socket.call("open_stream", stream_id=1)
            for _ in range(each):
                socket.execute(1, "BEGIN")
                n = socket.rows(1, "SELECT n FROM t")[0][0]
                socket.execute(1, "UPDATE t SET n = ?", n + 1)
                socket.execute(1, "COMMIT")

    def program(raise_it, node):
        try:
            raise_it(node)
        except Exception as e:  # pylint: disable=broad-except
            failures.append(e)

    with Cluster(http=True, http_begin="immediate", election_timeout=3000 * PATIENCE,
                 heartbeat=300) as c:
        with c.client() as q:
            q.query("CREATE TABLE t(n)")
            q.query("INSERT INTO t VALUES (0)")
            programs = [threading.Thread(target=program, args=(how, node)) for node in c.nodes
                        for how in (raise_it_over_http, raise_it_over_a_websocket)]
            for p in programs:
                p.start()
            for p in programs:
                p.join()
            expect_equal(failures, [], "errors")
            expect_equal(q.query("SELECT n FROM t").rows, [(6 * each,)], "all were counted")
        for node in c.nodes:  # the writer is held, and nobody who only reads is
            with Transaction(node), Transaction(node, begin="BEGIN READONLY") as reader, \
                    Door(node) as door:
                expect_equal(len(reader.run("SELECT n FROM t")), 1, "rows of BEGIN READONLY")
                answer = door.pipeline({"type": "batch", "batch": atomic(
                    "SELECT n FROM t", begin="BEGIN DEFERRED")})
                expect_equal(answer["results"][0]["response"]["result"]["step_errors"], [None] * 4,
                             "a batch that only reads")


@case(short=True)
def test_begin_in_a_script_and_of_python():
    with Cluster(1, http=True, http_begin="immediate", transaction_idle_timeout=60000) as c:
        node = c.nodes[0]
        with Door(node) as door:
            door.execute("CREATE TABLE t(n)")
            door.execute("INSERT INTO t VALUES (0)")
        with Transaction(node, "SELECT 1") as t:
            t.request({"type": "sequence", "sql": "-- a script\nBEGIN; SELECT n FROM t;"})
            with Transaction(node, "SELECT 1") as other:
                later = other.run_later("UPDATE t SET n = n + 1")
                later.join(0.3)
                expect(later.is_alive(), "another one wrote")
                t.run("UPDATE t SET n = n + 1")
                t.run("COMMIT")
                later.join()
        with contextlib.closing(lectern.connect(f"http://127.0.0.1:{node.http_port}",
                                                isolation_level=None)) as db, Door(node) as door:
            db.execute("BEGIN DEFERRED")
            db.execute("SELECT n FROM t").fetchall()
            door.execute("UPDATE t SET n = n + 1")
            db.execute("ROLLBACK")


@case(short=True)
def test_a_wrong_word_for_begin_is_refused():
    with Cluster(1, http=True) as c:
        with Door(c.nodes[0]) as door:
            for path, headers in ((PATH, {"lectern-begin": "now"}), (PATH + "?begin=", None),
                                  (PATH + "?begin=" + 100 * "x", None),
                                  (PATH, {"lectern-begin": "immediate" + 100 * " " + "x"})):
                error = door.post(path, {"requests": []}, 400, headers)
                expect("is deferred or immediate" in error["message"], error)
            answer = door.post(PATH + "?begin=immediate&some=thing", {"requests": []})
            expect_equal(answer["results"], [], "another parameter is a driver's own")
