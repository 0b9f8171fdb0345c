"""The rules of docs/PROTOCOL.md, part A, by a client that was written from the page alone."""

import time

from tests.lib import lectern_client as wire
from tests.lib.cluster import PATIENCE, Cluster, case, expect, expect_equal, expect_error
from tests.lib.lectern_client import ConnectionLost, Number

NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?) "


@case(short=True)
def test_the_examples_of_the_page():
    wire.test_codecs()


@case(short=True)
def test_ping_is_answered_beside_a_running_request():
    with Cluster() as c:
        leader = c.leader()
        for node in c.nodes:
            with node.client() as q:
                q.query("SELECT 1")
                endless = q.begin(NUMBERS + "SELECT count(*) FROM n", (10**12,))
                pong = q.connection.ping()
                expect_equal((pong.leader_id, pong.serves), (leader.id, 1), "PONG")
                expect(pong.seq >= q.connection.welcome_seq, "WELCOME's seq is newer")
                q.cancel(endless)
                expect_error("CANCELLED", q.finish)


@case(short=True)
def test_a_batch_is_done_whole_or_not_at_all():
    with Cluster() as c:
        for node in c.nodes:
            with node.client() as q:
                q.query("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, a UNIQUE)")
                q.query("DELETE FROM t")
                results = q.batch([("INSERT INTO t(a) VALUES (?)", (1,)),
                                   ("INSERT INTO t(a) VALUES (:a), ('b') RETURNING a", {":a": 2}),
                                   ("SELECT last_insert_rowid(), count(*) FROM t",),
                                   ("-- nothing",)])
                expect_equal([r.rows for r in results], [[], [(2,), ("b",)], [(3, 3)], []], "rows")
                expect_equal([r.changes for r in results], [1, 2, 0, 0], "changes of each")
                expect_equal(results[2].columns, ["last_insert_rowid()", "count(*)"], "columns")
                expect_equal(q.last_insert_rowid, 3, "last_insert_rowid")
                e = expect_error("SQL", lambda q=q: q.batch([("DELETE FROM t",),
                                                             ("INSERT INTO t(a) VALUES (9)",),
                                                             ("INSERT INTO t(a) VALUES (9)",)]))
                expect_equal(e.statement, 2, "which failed")
                for control in ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT s", "VACUUM"):
                    e = expect_error("FORBIDDEN", lambda q=q, s=control: q.batch(
                        [("DELETE FROM t",), (s,)]))
                    expect_equal(e.statement, 1, f"which failed, {control}")
                q.query("BEGIN")
                q.query("INSERT INTO t(a) VALUES ('in')")
                expect_error("SQL", lambda q=q: q.batch([("DELETE FROM t",), ("no SQL",)]))
                expect(q.in_transaction, "a batch that failed ended the transaction around it")
                q.batch([("UPDATE t SET a = 'out' WHERE a = 'in'",)])
                q.query("COMMIT")
                expect_equal(q.query("SELECT a FROM t ORDER BY id").rows,
                             [(1,), (2,), ("b",), ("out",)], "what is left")
        c.check_equal()


@case(short=True)
def test_a_batch_of_short_statements_can_be_stopped():
    """10,000 statements of 1 MB each: none runs long enough to be interrupted by itself."""
    with Cluster(1) as c, c.client() as q, c.client() as other:
        q.query("CREATE TABLE t(a)")
        q.query("INSERT INTO t VALUES (1) -- " + "x" * 1000000, keep=2)
        many = [("", (), 2)] * 10000
        began = time.monotonic()
        expect_error("TIMEOUT", lambda: q.batch(many, timeout_ms=500))
        request = q.begin_batch(many)
        time.sleep(0.2)  # it runs, or is on its way: both ways CANCEL ends it
        q.cancel(request)
        other.query("INSERT INTO t VALUES (2)")
        expect_error("CANCELLED", q.finish_batch)
        expect(time.monotonic() - began < 5 * PATIENCE, "a batch held the lane")
        expect_equal(q.query("SELECT a FROM t").rows, [(1,), (2,)], "rows")


@case(short=True)
def test_what_describe_says():
    with Cluster() as c:
        with c.client() as q:
            q.query("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT)")
            seq = q.seq
        for node in c.nodes:
            with node.client(seq=seq) as q:
                d = q.describe("SELECT id, name, 1 + 1 AS two FROM t WHERE id = ?2 OR name = :n; x")
                expect_equal(d.columns, [("id", "INTEGER"), ("name", "TEXT"), ("two", "")],
                             "columns")
                expect_equal((d.params, d.flags), (["", "?2", ":n"], wire.READONLY), "parameters")
                expect_equal(d.used, len("SELECT id, name, 1 + 1 AS two FROM t WHERE id = ?2 "
                                         "OR name = :n;"), "used")
                d = q.describe("INSERT INTO t VALUES (@a, $b) RETURNING id")
                expect_equal((d.flags, d.params, d.columns),
                             (0, ["@a", "$b"], [("id", "INTEGER")]), "a write")
                expect_equal(q.describe("DELETE FROM t").columns, [], "no result")
                expect(q.describe("EXPLAIN DELETE FROM t").flags & wire.EXPLAIN, "EXPLAIN")
                d = q.describe("  -- a comment\n")
                expect(d.flags & wire.EMPTY and not d.columns, "nothing")
                expect_error("SQL", lambda q=q: q.describe("SELECT nothing FROM nowhere"))
                expect_error("FORBIDDEN", lambda q=q: q.describe("ATTACH 'x' AS y"))
                expect_equal(q.query("SELECT count(*) FROM t").rows, [(0,)], "it ran")


@case(short=True)
def test_a_description_is_of_the_schema_of_now():
    with Cluster(1) as c, c.client() as q:
        q.query("CREATE TABLE t(a INTEGER PRIMARY KEY)")
        expect_equal(len(q.describe("SELECT * FROM t").columns), 1, "before")
        q.query("ALTER TABLE t ADD COLUMN b")
        expect_equal(len(q.describe("SELECT * FROM t").columns), 2, "after")
        # Compiled into nothing by a connection that knows of no foreign key.
        expect_equal(q.query("PRAGMA foreign_key_check").rows, [], "no key")
        q.query("CREATE TABLE child(id INTEGER PRIMARY KEY, p REFERENCES t(a))")
        q.query("PRAGMA foreign_keys = OFF")
        q.query("INSERT INTO child VALUES (1, 99)")
        expect_equal(q.query("PRAGMA foreign_key_check").rows, [("child", 1, "t", 0)], "broken")


@case(short=True)
def test_kept_statements_belong_to_the_connection():
    with Cluster(1) as c, c.client() as q:
        q.query("CREATE TABLE t(a)")
        keep = q.keep()
        q.query("INSERT INTO t VALUES (?)", (1,), keep=keep)
        other = q.stream()
        for i in (2, 3):
            other.query("", (i,), keep=keep)
        q.batch([("", (4,), keep), ("SELECT 1", (), 77), ("", (), 77)])
        expect_equal(other.query("SELECT group_concat(a) FROM t").rows, [("1,2,3,4",)], "rows")
        with c.client() as stranger:
            expect_error("NOT_FOUND", lambda: stranger.query("", (5,), keep=keep))
        late = other.begin("", (5,), keep=keep)
        q.forget(keep)
        other.finish(late)
        expect_error("NOT_FOUND", lambda: other.query("", (6,), keep=keep))
        q.query("INSERT INTO t VALUES (?)", (6,), keep=77)  # another text under that number
        other.query("", (7,), keep=77)
        # Also a statement that fails is kept: the next one may do better.
        expect_error("SQL", lambda: q.query("SELECT * FROM later", keep=5))
        q.query("CREATE TABLE later(x)")
        expect_equal(q.query("", keep=5).rows, [], "a table that came later")
        for i in range(4094 - 2):
            q.begin("SELECT 1", keep=1000 + i)
            if i % 32 == 31:
                while q.waiting:
                    q.finish()
        while q.waiting:
            q.finish()
        for i in range(4):
            try:
                q.query("SELECT 2", keep=10000 + i)
            except wire.LecternError as e:
                expect_equal(e.name, "TOO_BIG", "error")
                break
        else:
            expect(False, "there is no limit")
        expect_equal(q.query("", keep=1000).rows, [(1,)], "an older one")


@case(short=True)
def test_a_numbered_write_is_done_once():
    with Cluster() as c, c.client() as q:
        q.query("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
        number = q.next_number()
        first = q.query("INSERT INTO t(a) VALUES (?) RETURNING id", (1,), number=number)
        for node in c.nodes:
            with node.client() as again:
                got = again.query("INSERT INTO t(a) VALUES (?) RETURNING id", (1,), number=number)
                expect_equal((got.rows, got.changes, got.last_insert_rowid),
                             (first.rows, 1, 1), f"the first answer, from {node}")
        number = q.next_number()
        batch = [("INSERT INTO t(a) VALUES (2), (3)",), ("SELECT count(*) FROM t",)]
        answers = [[(r.rows, r.changes, r.last_insert_rowid) for r in q.batch(batch, number=number)]
                   for _ in range(3)]
        expect_equal(answers, [answers[0]] * 3, "a batch")
        # Rows that are too many to be kept: the write is done, and that is all one hears.
        number = q.next_number()
        large = "INSERT INTO t(a) VALUES (hex(zeroblob(4000))) RETURNING a"
        q.query(large, number=number)
        expect_error("ROWS_LOST", lambda: q.query(large, number=number))
        # What was acknowledged is never run again.
        expect_error("EXPIRED", lambda: q.query("DELETE FROM t", number=Number(q.writer, 2, 1, 0)))
        expect_equal(q.query("SELECT count(*) FROM t").rows, [(4,)], "rows")
        c.check_equal()


@case(short=True)
def test_resolve_tells_what_became_of_a_commit():
    with Cluster() as c, c.client() as q:
        q.query("CREATE TABLE t(a)")
        q.query("BEGIN")
        q.query("INSERT INTO t VALUES (1)")
        number = q.next_number()
        q.query("COMMIT", number=number)
        for node in c.nodes:
            with node.client() as other:
                other.query("COMMIT", number=number, flags=wire.RESOLVE)  # it was
        # One that never came: it is promised that it will not be done, and then it is not.
        q.query("BEGIN")
        q.query("INSERT INTO t VALUES (2)")
        number = q.next_number()
        with c.client() as other:
            expect_error("TXN_LOST", lambda: other.query("COMMIT", number=number,
                                                         flags=wire.RESOLVE))
        expect_error("TXN_LOST", lambda: q.query("COMMIT", number=number))
        with c.client() as other:
            expect_equal(other.query("SELECT a FROM t", level="strong").rows, [(1,)], "rows")


def rows_until_silent(client, stream, least):
    """Bytes of ROWS frames that come on STREAM before nothing comes for a while; LEAST of them are
    waited for."""
    total = largest = 0
    try:
        while True:
            f = client.read_frame(timeout=0.3 * PATIENCE if total >= least else None)
            expect_equal(f.stream, stream, "stream")
            if f.type == wire.ROWS:
                total += wire.HEAD + len(f.body)
                largest = max(largest, wire.HEAD + len(f.body))
            expect(total < 16 << 20, "it does not end")
    except ConnectionLost as e:
        expect("in time" in str(e) or "timed out" in str(e), str(e))
    return total, largest


@case(short=True)
def test_the_window_bounds_what_comes_unasked():
    with Cluster() as c:
        for node in c.nodes[:2]:
            with node.client() as q:
                q.begin(NUMBERS + "SELECT i, hex(zeroblob(500)) FROM n", (10**12,))
                given = wire.WINDOW
                got, largest = rows_until_silent(q, 1, given)
                expect(given <= got < given + largest, f"{got} bytes for a window of {given}")
                for more in (1, 100_000, 3_000_000):
                    q.send_raw(wire.credit(1, got - given + more))
                    given = got + more
                    now, largest = rows_until_silent(q, 1, more)
                    got += now
                    expect(given <= got < given + largest, f"{got} bytes for {given}")
                other = q.stream()  # the one that waits holds up no other
                expect_equal(other.query("SELECT 42").rows, [(42,)], "another stream")
                q.cancel()
                expect_error("CANCELLED", q.finish)
                q.send_raw(wire.credit(1, 0x7fffffff))
                e = expect_error("PROTOCOL", lambda q=q: q.query("SELECT 1"))
                expect(len(e.message) > 10, "no sentence")


@case(short=True)
def test_what_sql_sees_of_a_session_comes_with_the_request():
    with Cluster() as c:
        clients = [node.client() for node in c.nodes]
        clients[0].query("CREATE TABLE p(id INTEGER PRIMARY KEY)")
        clients[0].query("CREATE TABLE k(pid REFERENCES p(id))")
        clients[0].query("INSERT INTO p VALUES (70)")
        clients[0].query("PRAGMA foreign_keys = OFF")
        expect(not clients[0].foreign_keys, "DONE does not tell that foreign keys are off")
        state = clients[0]
        for q in clients[1:] + clients[:1]:
            q.seq, q.last_insert_rowid = state.seq, state.last_insert_rowid
            q.foreign_keys = state.foreign_keys
            expect_equal(q.query("SELECT last_insert_rowid()").rows, [(state.last_insert_rowid,)],
                         "last_insert_rowid()")
            expect_equal(q.query("PRAGMA foreign_keys").rows, [(0,)], "foreign_keys")
            q.query("INSERT INTO k VALUES (12345)")  # nobody's
            state = q
        state.query("PRAGMA foreign_keys = ON")
        expect(state.foreign_keys, "foreign keys are on again")
        expect_error("SQL", lambda: state.query("INSERT INTO k VALUES (12346)"), 787)
        for q in clients:
            q.close()


@case(short=True)
def test_elsewhere_says_that_another_node_leads():
    with Cluster() as c:
        for node in c.nodes:
            with node.client() as q:
                q.query("CREATE TABLE IF NOT EXISTS t(a)")
                expect_equal(q.elsewhere, node is not c.leader(), f"ELSEWHERE from {node}")
                q.query("SELECT * FROM t")
                expect_equal(q.elsewhere, False, f"ELSEWHERE of a read from {node}")


@case(short=True)
def test_close_ends_what_the_stream_holds():
    with Cluster() as c, c.leader().client() as q:
        q.query("CREATE TABLE t(a)")
        holder, runner = q.stream(), q.stream()
        holder.query("BEGIN IMMEDIATE")
        holder.query("INSERT INTO t VALUES (1)")
        runner.begin(NUMBERS + "SELECT count(*) FROM n", (10**12,))
        waiting = q.begin("INSERT INTO t VALUES (2)")  # behind the open transaction
        runner.close_stream()
        holder.close_stream()
        q.finish(waiting)
        expect_equal(q.query("SELECT a FROM t").rows, [(2,)], "rows")
        other = q.stream()
        expect_equal(other.query("SELECT 1").rows, [(1,)], "the connection goes on")


@case(short=True)
def test_too_many_streams_are_refused_alone():
    with Cluster(1) as c, c.client() as q:
        q.query("SELECT 1")
        for number in range(2, 16384 + 1, 64):
            streams = range(number, min(number + 64, 16384 + 1))
            q.send_raw(b"".join(wire.query(1, "SELECT 1", stream=s) for s in streams))
            for s in streams:
                while q.connection.next_of(s).type != wire.DONE:
                    pass
        q.send_raw(wire.query(1, "SELECT 1", stream=20000))
        f = q.connection.next_of(20000)
        expect_equal((f.type, wire.parse_error(f.body).name), (wire.ERROR, "TOO_BIG"), "answer")
        q.send_raw(wire.frame(wire.CLOSE, 0, stream=300))
        q.send_raw(wire.query(1, "SELECT 1", stream=20001))
        expect(q.connection.next_of(20001).type == wire.COLUMNS, "no room after a CLOSE")


@case(short=True)
def test_credit_begins_no_stream():
    """What a client gives for frames that were under way when it closed their stream."""
    with Cluster(1) as c, c.client() as q:
        q.query("SELECT 1")
        q.send_raw(b"".join(wire.credit(s, 1000) for s in range(2, 20000)))
        q.send_raw(b"".join(wire.frame(wire.CANCEL, 1, stream=s) for s in range(2, 20000)))
        q.streams = 30000
        expect_equal(q.stream().query("SELECT 42").rows, [(42,)], "a new stream")


@case(short=True)
def test_a_welcome_tells_where_the_node_is():
    with Cluster() as c:
        with c.client() as q:
            q.query("CREATE TABLE t(a)")
            seq = q.seq
            with c.leader().client() as other:
                expect(other.connection.welcome_seq >= seq, "the leader is behind its own answer")
                expect_equal(other.connection.node_id, c.leader().id, "node_id")
                expect_equal(other.connection.cluster_id, q.connection.cluster_id, "cluster_id")
