"""Many sessions on one connection: none waits for another, and each ends by itself."""

import threading
import time

from tests.lib import lectern_client as wire
from tests.lib.cluster import (PATIENCE, Cluster, case, expect, expect_equal, expect_error,
                               wait_for)
from tests.lib.lectern_client import BadFrame, ConnectionLost, LecternError, Stream

ENDLESS = ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 10000000)"
           " SELECT i, hex(zeroblob(100)) FROM n")
ROWS = 3000  # of `wide`: about 3 MB


def resident_kib(node):
    with open(f"/proc/{node.process.pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * 4


def make_wide(client):
    client.query("CREATE TABLE wide(id INTEGER PRIMARY KEY, a)")
    client.query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?)"
                 " INSERT INTO wide SELECT i, zeroblob(1000) FROM n", (ROWS,))


def quiet_bytes(stream, seconds=0.4, least=0):
    """Reads STREAM's frames without giving credit until none comes, but for LEAST bytes of ROWS,
    which are waited for; these in bytes."""
    total = 0
    try:
        while True:
            wait = seconds * PATIENCE if total >= least else None
            f = stream.connection.next_of(stream.number, wait)
            if f.type == wire.ERROR:
                raise wire.parse_error(f.body)
            expect(f.type != wire.DONE, "the answer is complete, without credit")
            if f.type == wire.ROWS:
                total += wire.HEAD + len(f.body)
    except ConnectionLost:
        return total


def finish_counting(stream, total):
    """Gives credit for what was read, and reads the rest; rows of the rest."""
    stream.connection.send_raw(wire.credit(stream.number, total))
    stream.waiting.popleft()
    rows = 0
    while True:
        f = stream.connection.next_of(stream.number)
        if f.type == wire.ERROR:
            raise wire.parse_error(f.body)
        if f.type == wire.DONE:
            stream._done(f.body)  # pylint: disable=protected-access
            return rows
        rows += wire.Reader(f.body).unpack("I")
        stream.connection.send_raw(wire.credit(stream.number, wire.HEAD + len(f.body)))


@case(short=True)
def test_a_reader_that_takes_nothing_holds_up_no_other_stream():
    with Cluster() as c:
        with c.client() as q:
            q.query("CREATE TABLE t(a)")
        for node in c.nodes:
            with node.client() as slow:
                before = resident_kib(node)
                request = slow.begin(ENDLESS)
                took = quiet_bytes(slow, least=wire.WINDOW)
                other = slow.stream()
                for i in range(20):
                    other.query("INSERT INTO t VALUES (?)", (i,))
                    slow.connection.ping(timeout=8 * PATIENCE)  # after 10 s it is cancelled
                found = other.query("SELECT count(*) FROM t WHERE a < 20").rows[0][0]
                expect(found >= 20, f"{found} rows")
                more = resident_kib(node) - before
                expect(more < 30000, f"{more} KiB for an answer that nobody takes")
                slow.cancel(request)
                expect_error("CANCELLED", slow.finish)
                slow.send_raw(wire.credit(1, took))
                expect_equal(slow.query("SELECT 1").rows, [(1,)], "the slow stream, afterwards")


@case(short=True)
def test_answers_of_the_writer_wait_for_their_window_too():
    with Cluster(election_timeout=3000) as c:
        with c.client() as q:
            make_wide(q)
            seq = q.seq
        for node in c.nodes:
            with node.client(seq=seq) as q:
                q.begin("UPDATE wide SET a = zeroblob(1000) RETURNING id, a")
                took = quiet_bytes(q, least=wire.WINDOW)
                expect(wire.WINDOW <= took < 2 * wire.WINDOW, f"{took} bytes without credit")
                other = q.stream()
                expect_equal(other.query("SELECT count(*) FROM wide").rows, [(ROWS,)], "beside it")
                rest = finish_counting(q, took)
                expect(0 < rest < ROWS, f"{rest} rows after the first window")
                expect_equal(q.elsewhere, node is not c.leader(), "ELSEWHERE")
                q.query("BEGIN")
                q.begin("SELECT id, a FROM wide")
                took = quiet_bytes(q, least=wire.WINDOW)
                expect(wire.WINDOW <= took < 2 * wire.WINDOW, f"{took} bytes in a transaction")
                finish_counting(q, took)
                expect(q.in_transaction, "the transaction is over")
                expect_equal(q.query("SELECT count(*) FROM wide").rows, [(ROWS,)], "inside")
                q.query("COMMIT")


def is_lost(q):
    try:
        q.query("SELECT 1")
        return False
    except LecternError as e:
        expect_equal(e.name, "TXN_LOST", "the error")
        return True


def test_a_transaction_is_in_use_while_its_rows_are_taken():
    with Cluster(transaction_idle_timeout=4000, election_timeout=3000) as c:
        leader = c.leader()
        with c.client() as q:
            make_wide(q)
            seq = q.seq
        clients = [n.client(seq=seq) for n in (leader, c.others(leader)[0]) for _ in range(2)]
        for q, begin in zip(clients, ("BEGIN", "BEGIN READONLY") * 2):
            q.query(begin)
            q.begin("SELECT id, a FROM wide")
        took = [quiet_bytes(q, least=wire.WINDOW) for q in clients]
        time.sleep(4.5)  # rows wait for their windows
        for q, n in zip(clients, took):
            finish_counting(q, n)
        for _ in range(4):  # and now their client says only that it is at work with them
            time.sleep(1.1)
            for q in clients:
                q.send_raw(wire.credit(q.number, 0))
        for q in clients:
            q.query("SELECT 1")
            expect(q.in_transaction, "the transaction is over")
        left = clients
        end = time.monotonic() + 60 * PATIENCE
        while left and time.monotonic() < end:  # a node may hear of us before it looks at its clock
            time.sleep(4 + PATIENCE)  # it is idle
            left = [q for q in left if not is_lost(q)]
        expect_equal(len(left), 0, "idle transactions that go on")
        for q in clients:
            q.close()


@case(short=True)
def test_a_client_that_can_give_no_credit_ends_its_statements():
    with Cluster() as c:
        leader = c.leader()
        with c.client() as q:
            make_wide(q)
            seq = q.seq
        for node in (leader, c.others(leader)[0]):
            for sql, error in ((ENDLESS, "CANCELLED"),
                               ("UPDATE wide SET a = zeroblob(1002) RETURNING id, a", "ROWS_LOST")):
                with node.client(seq=seq) as q:
                    q.begin(sql)
                    quiet_bytes(q, least=wire.WINDOW)
                    began = time.monotonic()
                    q.shutdown_write()
                    expect_error(error, lambda q=q: quiet_bytes(q, 8))
                    expect(q.at_end(), "the connection's end")
                    took = time.monotonic() - began  # whose client says nothing has 10 s
                    expect(took < 8 * PATIENCE, f"it waited for the client, {took:.1f} s")


@case(seconds=60)
def test_who_gives_no_credit_ends_its_own_statement():
    with Cluster(transaction_idle_timeout=60000, election_timeout=3000) as c:
        leader = c.leader()
        with c.client() as q:
            make_wide(q)
            seq = q.seq
        clients = [n.client(seq=seq) for n in (leader, c.others(leader)[0])]
        waiting = []
        for q in clients:
            inside, writes, reads = q.stream(), q.stream(), q.stream()
            inside.query("BEGIN")
            inside.begin("SELECT id, a FROM wide")
            reads.begin(ENDLESS)
            waiting += [(inside, "TIMEOUT"), (reads, "TIMEOUT")]
            if q is clients[0]:  # one after the other: they write the same rows
                writes.begin("UPDATE wide SET a = zeroblob(1001) RETURNING id, a")
                waiting.append((writes, "ROWS_LOST"))
        began = time.monotonic()
        for stream, error in waiting:
            took = [0]

            def drain(stream=stream, took=took):
                while True:
                    took[0] += quiet_bytes(stream, 15)
            e = expect_error(error, drain)
            stream.waiting.popleft()
            stream._state(e.flags, e.seq)  # pylint: disable=protected-access
            stream.connection.send_raw(wire.credit(stream.number, wire.WINDOW * 2))
        spent = time.monotonic() - began
        expect(9 < spent < 19 * PATIENCE, f"they ended after {spent:.1f} s, not 10")
        expect_equal(clients[1].query("SELECT count(*) FROM wide WHERE length(a) = 1001").rows,
                     [(ROWS,)], "ROWS_LOST: the write is done")
        for stream, error in waiting:
            expect_equal(stream.query("SELECT 1").rows, [(1,)], f"the stream after {error}")
        for q in clients:
            q.close()


@case(seconds=120)
def test_ten_thousand_streams_on_one_connection():
    n = 10000
    with Cluster(queue_length=20000, statement_timeout=100000, election_timeout=3000) as c:
        with c.client() as q:
            q.query("CREATE TABLE t(a INTEGER PRIMARY KEY)")
            q.query("INSERT INTO t VALUES (-1)")
        for at, node in enumerate((c.leader(), c.others(c.leader())[0])):
            with node.client(socket_timeout=90 * PATIENCE, seq=q.seq) as first:
                streams = [Stream(first.connection, 10 + i, first.seq) for i in range(n)]
                before = resident_kib(node)
                data = bytearray()
                for i, s in enumerate(streams):
                    options = {"stream": s.number, "min_seq": s.seq}
                    data += wire.query(1, "SELECT a FROM t WHERE a = -1", **options)
                    data += wire.query(2, "INSERT INTO t VALUES (?)", (at * n + i,), **options)
                    s.waiting.extend((1, 2))
                sender = threading.Thread(target=first.send_raw, args=(bytes(data),))
                sender.start()
                got = {}
                while sum(got.values()) < 2 * n:
                    f = first.connection.read_frame()
                    expect(f.type != wire.ERROR or f.stream == 0,
                           f.type == wire.ERROR and f"{wire.parse_error(f.body)}")
                    if f.type == wire.DONE:
                        expect_equal(f.request, got.get(f.stream, 0) + 1, "order of a stream")
                        got[f.stream] = f.request
                        if sum(got.values()) % 5000 < 2 and not sender.is_alive():
                            first.connection.send_raw(wire.frame(wire.PING, 7, stream=0))
                sender.join()
                began = time.monotonic()
                first.connection.waiting.clear()
                pong = read_until_pong(first.connection)
                expect(pong and time.monotonic() - began < 10 * PATIENCE, "PONG was late")
                idle = (resident_kib(node) - before) * 1024 / n
                print(f"{node} {'leader' if at == 0 else 'follower'}: {idle:.0f} bytes a stream")
                expect(idle < 4096 or PATIENCE > 1, f"{idle:.0f} bytes for an idle stream")
                expect_equal(first.query("SELECT count(*) FROM t").rows[0][0], 1 + (at + 1) * n,
                             "rows")
        c.check_equal()


def read_until_pong(connection):
    connection.send_raw(wire.frame(wire.PING, 999, stream=0))
    while True:
        f = connection.read_frame()
        if f.type == wire.PONG and f.request == 999:
            return True


@case(short=True)
def test_describe_sees_what_its_session_sees():
    with Cluster() as c:
        with c.client() as q:
            q.query("CREATE TABLE t(a INTEGER, b TEXT)")
            seq = q.seq
        for node in c.nodes:
            with node.client(seq=seq) as q:
                d = q.describe("SELECT a, b || :x AS c FROM t; SELECT 2")
                expect_equal((d.params, d.columns, d.flags), ([":x"], [("a", "INTEGER"), ("c", "")],
                                                              wire.READONLY), "of a SELECT")
                expect_equal(d.used, len("SELECT a, b || :x AS c FROM t;"), "its end")
                d = q.describe("INSERT INTO t VALUES (?, @b) RETURNING a")
                expect_equal((d.params, d.columns, d.flags), (["", "@b"], [("a", "INTEGER")], 0),
                             "of a write")
                expect(q.describe(" -- nothing\n").flags & wire.EMPTY, "of nothing")
                expect_equal(q.describe("PRAGMA foreign_keys").columns, [("foreign_keys", "")],
                             "of a setting")
                expect(q.describe("EXPLAIN SELECT 1").flags & wire.EXPLAIN, "of EXPLAIN")
                e = expect_error("SQL", lambda q=q: q.describe("SELECT nothing FROM t"))
                expect_equal(e.offset, 7, "offset")
                expect_error("FORBIDDEN", lambda q=q: q.describe("ATTACH 'x' AS y"))
                q.query("BEGIN")
                q.query("CREATE TABLE inside(z BLOB)")
                expect_equal(q.describe("SELECT * FROM inside").columns, [("z", "BLOB")], "inside")
                expect(q.describe("COMMIT").columns == [], "COMMIT is only described")
                expect(q.in_transaction, "the transaction goes on")
                other = q.stream()
                expect_error("SQL", lambda other=other: other.describe("SELECT * FROM inside"))
                q.query("ROLLBACK")


@case(short=True)
def test_kept_statements_are_known_everywhere():
    with Cluster() as c:
        with c.client() as q:
            q.query("CREATE TABLE t(a, b)")
            seq = q.seq
        for node in c.nodes:
            with node.client(seq=seq) as q:
                q.query("INSERT INTO t VALUES (?, 1)", (node.id,), keep=5)
                q.batch([("", (node.id,), 5), ("SELECT count(*) FROM t WHERE a = ?", (node.id,), 6),
                         ("", (node.id,), 5)])
                other = q.stream()
                expect_equal(other.query("", (node.id,), keep=6, level="strong").rows, [(3,)],
                             "of another stream, at a follower")
                q.query("BEGIN")
                q.query("", (node.id,), keep=5)
                q.query("ROLLBACK")
                q.connection.send_raw(wire.forget(5))
                e = expect_error("NOT_FOUND", lambda q=q, n=node: q.query("", (n.id,), keep=5))
                expect("5" in e.message, f"which one? {e.message}")
                seq = max(seq, q.seq, other.seq)


def numbered_writer(node, number, deadline, results):
    """Inserts (NUMBER, i) under numbers, over connections to NODE only, until DEADLINE."""
    i = 0
    while time.monotonic() < deadline:
        try:
            with node.client(socket_timeout=20 * PATIENCE) as q:
                while time.monotonic() < deadline:
                    i += 1
                    try:
                        q.query("INSERT INTO t VALUES (?, ?)", (number, i), number=q.next_number(),
                                timeout_ms=8000)
                        results.append((number, i, "done"))
                    except LecternError as e:
                        results.append((number, i, e.name))
        except (ConnectionLost, BadFrame) as e:
            results.append((number, i, f"lost {e}"))


@case(seconds=90)
def test_a_numbered_write_outlives_the_leader_behind_a_follower():
    """The follower sends it to the next leader itself: no UNKNOWN, and nothing twice."""
    with Cluster() as c:
        leader = c.leader()
        with c.client() as q:
            q.query("CREATE TABLE t(w, i)")
        results, threads = [], []
        deadline = time.monotonic() + 6
        for number in range(8):
            node = c.others(leader)[number % 2]
            threads.append(threading.Thread(target=numbered_writer,
                                            args=(node, number, deadline, results)))
            threads[-1].start()
        time.sleep(1)
        leader.kill()
        for t in threads:
            t.join()
        c.wait_serving()
        expect_equal([r for r in results if r[2] != "done"], [], "ends that are not DONE")
        expect(len(results) > 30, f"{len(results)} writes")
        with c.client() as q:
            rows = q.query("SELECT w, i FROM t ORDER BY w, i", level="strong").rows
        expect_equal(rows, sorted((w, i) for w, i, _ in results), "rows")


@case(seconds=60)
def test_a_numbered_commit_at_a_lost_leader_is_asked_for():
    for how in ("pause", "kill"):
        with Cluster() as c:
            leader = c.leader()
            q = c.others(leader)[0].client()
            q.query("CREATE TABLE t(a)")
            q.query("BEGIN")
            q.query("INSERT INTO t VALUES (1)")
            if how == "pause":
                leader.pause()
            commit = q.begin("COMMIT", number=q.next_number())
            if how == "kill":
                leader.kill()
            try:
                q.finish(commit)
                done = True
            except LecternError as e:
                expect_equal(e.name, "TXN_LOST", f"{how}: the end of the COMMIT ({e.message})")
                done = False
            expect(not (how == "pause" and done), "a paused leader answered")
            expect(not q.in_transaction, "the transaction is open")
            if how == "pause":
                leader.resume()
            wait_for(lambda q=q: q.query("INSERT INTO t VALUES (2)"), "a write afterwards")
            rows = q.query("SELECT a FROM t ORDER BY a", level="strong").rows
            expect_equal(rows, [(1,), (2,)] if done else [(2,)], f"{how}: rows")
            q.close()


INSIDE = 32
SLOW = ("INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
        " LIMIT 1000000000) SELECT i FROM n WHERE i < 0")


def pipeline(q, timeout_ms=0):
    """BEGIN and what belongs to it, sent ahead in one go; it has begun."""
    q.begin("BEGIN")
    q.begin(SLOW, flags=INSIDE, timeout_ms=timeout_ms)
    for sql in ("INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)", "COMMIT"):
        q.begin(sql, flags=INSIDE)
    q.finish()


def none_ran(q, other, slow):
    expect_error(slow, q.finish)
    for what in ("INSERT", "INSERT", "COMMIT"):
        error = expect_error("TXN_LOST", q.finish)
        expect_equal(error.flags & 1, 0, f"open after {what}")
    expect_equal(other.query("SELECT count(*) FROM t", level="strong").rows, [(0,)], "rows")


@case(short=True)
def test_what_was_sent_ahead_does_not_run_behind_a_transaction_that_timed_out():
    with Cluster(transaction_timeout=1500, election_timeout=3000) as c, c.client() as other:
        other.query("CREATE TABLE t(a)")
        leader = c.leader()
        for node in (leader, c.others(leader)[0]):
            with node.client() as q:
                pipeline(q, timeout_ms=3000)
                none_ran(q, other, "TIMEOUT")
                expect_error("TXN_LOST", lambda: q.query("INSERT INTO t VALUES (3)", flags=INSIDE))
                q.query("INSERT INTO t VALUES (3)")  # by itself, for it says nothing else
                q.query("DELETE FROM t")


@case(short=True)
def test_what_was_sent_ahead_does_not_run_behind_a_transaction_whose_leader_is_lost():
    with Cluster() as c:
        leader = c.leader()
        node = c.others(leader)[0]
        with node.client() as q, node.client() as other:
            other.query("CREATE TABLE t(a)")
            pipeline(q)
            q.connection.ping()
            wait_for(lambda: is_busy(leader), "the slow one runs")
            leader.kill()
            none_ran(q, other, "TXN_LOST")


def is_busy(leader):
    """The transaction at LEADER has the writer."""
    with leader.client() as q:
        q.begin("DELETE FROM t")
        try:
            q.finish(timeout=0.3)
            return False
        except ConnectionLost:
            return True


@case(short=True)
def test_inside_outside_of_a_transaction():
    with Cluster(1) as c, c.client() as q:
        q.query("CREATE TABLE t(a)")
        for sql in ("SELECT 1", "INSERT INTO t VALUES (1)", "COMMIT", "BEGIN",
                    "PRAGMA foreign_keys"):
            expect_error("TXN_LOST", lambda sql=sql: q.query(sql, flags=INSIDE))
        q.query("BEGIN")
        q.query("INSERT INTO t VALUES (1)", flags=INSIDE)
        q.query("COMMIT", flags=INSIDE)
        expect_equal(q.query("SELECT a FROM t").rows, [(1,)], "rows")
        q.begin("COMMIT", flags=INSIDE | 12, number=q.next_number())  # with NUMBERED, RESOLVE
        expect_error("PROTOCOL", q.finish)
