"""Hrana's pipelines, byte by byte: batons, streams at rest, transactions, batches, limits."""

import base64
import json
import random
import time

from tests.lib import metrics
from tests.lib.cluster import PATIENCE, Cluster, case, expect, expect_equal, wait_for
from tests.lib.hrana import Cursor, Door, atomic, batch, failed, ok, rows_of, stmt


def execute(sql, *args, **more):
    return {"type": "execute", "stmt": stmt(sql, *args, **more)}


CLOSE = {"type": "close"}


def result(answer, at):
    """The result of request AT, which must be good."""
    expect_equal(answer["results"][at]["type"], "ok", f"result {at} of {answer}")
    return answer["results"][at]["response"]["result"]


def only(answer):
    return result(answer, 0)


def error(answer, at=0):
    expect_equal(answer["results"][at]["type"], "error", f"result {at} of {answer}")
    return answer["results"][at]["error"]


def url(node):
    return f"http://127.0.0.1:{node.http_port}"


def start_with_urls():
    """A cluster whose nodes know where clients reach them."""
    c = Cluster(3, http=True, start=False)
    for node in c.nodes:
        c.restart(node, **{"http-url": url(node)})
    c.wait_serving()
    return c


def leader_and_follower(c):
    leader = c.leader()
    return [leader, c.others(leader)[0]]


# --- batons ---------------------------------------------------------------------------------------


@case(short=True)
def test_an_idle_stream_goes_on_anywhere():
    """What a stream without a transaction has travels in its baton: any node goes on with it."""
    with Cluster(3, http=True) as c:
        leader, follower = leader_and_follower(c)
        with Door(leader) as door:
            a = door.pipeline(execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)"),
                              execute("PRAGMA foreign_keys = OFF"),
                              execute("INSERT INTO t VALUES (41, 'x')"))
        expect(a["baton"], "a baton")
        expect_equal(a["base_url"], None, "base_url of a stream that any node goes on with")
        baton = a["baton"]
        asked = (execute("SELECT last_insert_rowid()"), execute("PRAGMA foreign_keys"),
                 execute("SELECT v FROM t"))
        wanted = [[(41,)], [(0,)], [("x",)]]

        def goes_on(node, what):
            with Door(node) as door:
                a = door.pipeline(*asked, baton=baton)
            expect_equal([rows_of(r["response"]["result"]) for r in a["results"]], wanted, what)
            return a["baton"]
        goes_on(follower, "at another node")
        goes_on(leader, "the same baton again, where it was made")
        leader.kill()
        baton = goes_on(follower, "its leader is dead")
        c.restart(leader)
        c.wait_serving()
        goes_on(leader, "a node that was started anew")
        with Door(follower) as door:
            a = door.pipeline(CLOSE, baton=baton)
            expect_equal(a["baton"], None, "the baton of a closed stream")
            a = door.pipeline(execute("SELECT 1"), CLOSE, execute("SELECT 2"))
        expect_equal([r["type"] for r in a["results"]], ["ok", "ok", "error"], "behind a close")
        expect_equal(error(a, 2)["code"], "STREAM_CLOSED", "its code")


@case(short=True)
def test_batons_of_a_transaction():
    with start_with_urls() as c:
        leader, follower = leader_and_follower(c)
        with Door(follower) as door, Door(leader) as other:
            a = door.pipeline(execute("CREATE TABLE t(a)"))
            expect_equal(a["base_url"], None, "a driver that is sent to the leader dies with it")
            first = door.pipeline(execute("BEGIN IMMEDIATE"), execute("INSERT INTO t VALUES (1)"))
            expect_equal(first["base_url"], url(follower), "where a transaction goes on")
            refused = other.pipeline(execute("SELECT 1"), baton=first["baton"], status=400)
            expect_equal(refused["code"], "STREAM_EXPIRED", "at another node")
            expect_equal(refused["error"], refused["message"], "both names that drivers read")
            second = door.pipeline(execute("INSERT INTO t VALUES (2)"), baton=first["baton"])
            again = door.pipeline(execute("INSERT INTO t VALUES (2)"), baton=first["baton"],
                                  status=400)
            expect_equal(again["code"], "BATON_REUSED", "a baton that was used")
            bad = door.pipeline(execute("SELECT 1"), baton=second["baton"][:-6] + "AAAAAA",
                                status=400)
            expect_equal(bad["code"], "BATON_INVALID", "a baton with another signature")
            for text in ("", "x", "\u00e4", "A" * 10000, base64.b64encode(bytes(64)).decode()):
                bad = door.pipeline(execute("SELECT 1"), baton=text, status=400)
                expect_equal(bad["code"], "BATON_INVALID", f"the baton {text[:20]!r}")
            last = door.pipeline(execute("COMMIT"), CLOSE, baton=second["baton"])
            expect_equal(last["baton"], None, "closed")
            expect_equal(door.rows("SELECT a FROM t"), [(1,), (2,)], "once each")
            gone = door.pipeline(execute("SELECT 1"), baton=second["baton"], status=400)
            expect_equal(gone["code"], "STREAM_EXPIRED", "a stream that is closed")
            a = door.pipeline(execute("BEGIN"), execute("INSERT INTO t VALUES (3)"))
        follower.kill()
        c.restart(follower)
        c.wait_serving()
        with Door(follower) as door:
            gone = door.pipeline(execute("COMMIT"), baton=a["baton"], status=400)
            expect_equal(gone["code"], "STREAM_EXPIRED", "the node was started anew")
            expect_equal(door.rows("SELECT count(*) FROM t"), [(2,)], "rolled back")


@case()
def test_a_transaction_that_waits_too_long():
    """It is rolled back; its program hears so with the code that drivers know, and can go on."""
    with Cluster(3, http=True, transaction_idle_timeout=1000, election_timeout=3000) as c:
        for node in leader_and_follower(c):
            with Door(node) as door:
                door.execute("CREATE TABLE IF NOT EXISTS t(a)")
                door.execute("DELETE FROM t")
                a = door.pipeline(execute("BEGIN IMMEDIATE"), execute("INSERT INTO t VALUES (1)"))
                c.wait(lambda d=door: not d.pipeline(execute("INSERT INTO t VALUES (2)"),
                                                     CLOSE)["results"][0]["type"] == "error",
                       "another one may write")
                a = door.pipeline(execute("INSERT INTO t VALUES (3)"),
                                  execute("INSERT INTO t VALUES (4)"), execute("ROLLBACK"),
                                  execute("INSERT INTO t VALUES (5)"), baton=a["baton"])
                expect_equal([r["type"] for r in a["results"]], ["error", "error", "ok", "ok"],
                             f"behind a transaction that is gone: {a}")
                expect_equal(error(a)["code"], "TRANSACTION_TIMEOUT", "the code")
                expect_equal(error(a, 1)["code"], "TRANSACTION_TIMEOUT", "nothing runs by itself")
                expect_equal(door.rows("SELECT a FROM t ORDER BY a"), [(2,), (5,)], "rolled back")


def impatient(node):
    """Clients that begin a transaction and are gone before the answer: a pipeline, a cursor."""
    with Door(node) as door:
        door.conn.request("POST", "/v3/pipeline", json.dumps(
            {"baton": None, "requests": [execute("BEGIN IMMEDIATE")]}))
    Cursor(node, batch(stmt("BEGIN IMMEDIATE"))).close()


@case(short=True)
def test_clients_that_lost_their_patience_leave_no_transaction():
    """Each would keep the writer from all others until transaction-idle-timeout."""
    with Cluster(3, http=True, transaction_idle_timeout=600000) as c:
        leader = c.leader()
        for node in leader_and_follower(c):
            with Door(node) as holder, Door(node) as other:
                holder.execute("CREATE TABLE IF NOT EXISTS t(a)")
                a = holder.pipeline(execute("BEGIN IMMEDIATE"))
                for _ in range(5):
                    impatient(node)
                wait_for(lambda: metrics.value(metrics.scrape(leader), "lectern_write_queue") == 10,
                         "all of them wait for the writer")
                holder.pipeline(execute("COMMIT"), CLOSE, baton=a["baton"])
                done = other.post("/v3/pipeline", {"requests": [
                    execute("INSERT INTO t VALUES (1)"), CLOSE]},
                    headers={"lectern-timeout": str(20000 * PATIENCE)})
                only(done)


# --- transactions that read -----------------------------------------------------------------------


@case(short=True)
def test_read_transactions():
    with Cluster(3, http=True) as c:
        for node in leader_and_follower(c):
            with Door(node) as door:
                door.execute("CREATE TABLE IF NOT EXISTS t(a)")
                n = door.rows("SELECT count(*) FROM t")[0][0]
                for begin in ("BEGIN READONLY", "BEGIN TRANSACTION READONLY"):
                    a = door.pipeline(execute(begin), execute("SELECT count(*) FROM t"))
                    door.execute("INSERT INTO t VALUES (1)")
                    a = door.pipeline(execute("SELECT count(*) FROM t"),
                                      execute("INSERT INTO t VALUES (2)"),
                                      execute("SELECT count(*) FROM t"), execute("COMMIT"),
                                      execute("SELECT count(*) FROM t"), baton=a["baton"])
                    expect_equal(rows_of(only(a)), [(n,)], "its snapshot")
                    expect_equal(error(a, 1)["code"], "SQLITE_READONLY", "a write in it")
                    expect_equal(rows_of(result(a, 2)), [(n,)], "still")
                    expect_equal(rows_of(result(a, 4)), [(n + 1,)], "after")
                    n += 1


@case(short=True)
def test_own_writes_at_a_follower():
    """An answer to a write that was passed on comes when this node has applied it, too."""
    with Cluster(3, http=True) as c:
        _, follower = leader_and_follower(c)
        with Door(follower) as writer, Door(follower) as reader:
            writer.execute("CREATE TABLE t(a)")
            for i in range(100):
                a = writer.pipeline(execute("INSERT INTO t VALUES (?)", i), CLOSE)
                index = only(a)["replication_index"]
                expect(int(index) > 0, f"a replication_index: {index}")
                a = reader.post("/v2/pipeline?level=any", {"requests": [
                    execute("SELECT count(*) FROM t"), CLOSE]})
                expect_equal(rows_of(only(a)), [(i + 1,)], "what another connection reads here")


@case(short=True)
def test_replication_index():
    """Whoever sends an index reads nothing older than it, at any node."""
    with Cluster(3, http=True) as c:
        leader, follower = leader_and_follower(c)
        with Door(leader) as writer, Door(follower) as reader:
            writer.execute("CREATE TABLE t(a)")
            for i in range(50):
                index = writer.execute("INSERT INTO t VALUES (?)", i)["replication_index"]
                for form in (index, int(index)):
                    a = reader.pipeline({"type": "execute", "stmt": stmt(
                        "SELECT count(*) FROM t", replication_index=form)}, CLOSE)
                    expect_equal(rows_of(only(a)), [(i + 1,)], f"at index {form!r}")


# --- results --------------------------------------------------------------------------------------


@case(short=True)
def test_results_say_how_long_they_took():
    slow = ("SELECT count(*) FROM (WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c "
            "LIMIT 300000) SELECT i FROM c)")
    with Cluster(1, http=True) as c, Door(c.leader()) as door:
        door.execute("CREATE TABLE t(n)")
        began = time.monotonic()
        a = door.pipeline(execute(slow), {"type": "batch", "batch": atomic(
            f"INSERT INTO t {slow}", "INSERT INTO t VALUES (2)")}, execute("SELECT 1"), CLOSE)
        whole = (time.monotonic() - began) * 1000
        alone, quick = (result(a, i)["query_duration_ms"] for i in (0, 2))
        steps = [r["query_duration_ms"] for r in result(a, 1)["step_results"] if r is not None]
        expect_equal(len(steps), 4, "steps")
        expect(5 < alone and 5 < steps[1] <= steps[3] and 0 < quick, (alone, steps, quick))
        expect(alone + steps[3] + quick < whole, (alone, steps, quick, whole))


@case(short=True)
def test_results():
    with Cluster(1, http=True) as c, Door(c.leader()) as door:
        door.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a VARCHAR(9))")
        r = door.execute("INSERT INTO t(a) VALUES ('x'), ('y') RETURNING id, a")
        expect_equal(([(col["name"], col["decltype"]) for col in r["cols"]], rows_of(r),
                      r["affected_row_count"], r["last_insert_rowid"]),
                     ([("id", "INTEGER"), ("a", "VARCHAR(9)")], [(1, "x"), (2, "y")], 2, "2"),
                     "INSERT ... RETURNING")
        a = door.pipeline(execute("INSERT INTO t(a) VALUES ('z') RETURNING id", want_rows=False),
                          execute("SELECT a FROM t", want_rows=False),
                          execute("UPDATE t SET a = 'w' WHERE id > 1"), execute("SELECT 1"),
                          execute("CREATE TABLE u(a)"), CLOSE)
        results = [x["response"]["result"] for x in a["results"][:-1]]
        expect_equal([(rows_of(r), r["affected_row_count"]) for r in results],
                     [([], 1), ([], 0), ([], 2), ([(1,)], 0), ([], 0)], "rows and counts")
        values = (None, 5, -2**63, 0.5, "a\0b \U0001f600", b"", b"\0\xff", "")
        expect_equal(door.rows("SELECT ?, ?, ?, ?, ?, ?, ?, ?", *values), [values], "and back")
        padded = {"type": "blob", "base64": "AP8="}
        bare = {"type": "blob", "base64": "AP8"}
        both = {"sql": "SELECT ?, ?", "args": [padded, bare]}
        a = door.pipeline({"type": "execute", "stmt": both},
                          {"type": "describe", "sql": "SELECT :a, id FROM t"},
                          {"type": "sequence", "sql": "INSERT INTO u VALUES (1); ; SELECT 1; --"},
                          {"type": "get_autocommit"}, CLOSE)
        expect_equal(rows_of(only(a)), [(b"\0\xff", b"\0\xff")], "base64 with padding and without")
        d = result(a, 1)
        expect_equal((d["params"], [col["name"] for col in d["cols"]], d["is_readonly"],
                      d["is_explain"]), ([{"name": ":a"}], [":a", "id"], True, False), "describe")
        expect_equal(a["results"][3]["response"], {"type": "get_autocommit", "is_autocommit": True},
                     "get_autocommit")
        expect_equal(door.rows("SELECT a FROM u"), [(1,)], "what the sequence did")


@case(short=True)
def test_stored_texts():
    with start_with_urls() as c:
        leader, follower = leader_and_follower(c)
        with Door(leader) as door, Door(follower) as other:
            a = door.pipeline({"type": "store_sql", "sql_id": 7, "sql": "SELECT 1 + ?"},
                              {"type": "execute", "stmt": {"sql_id": 7, "args": [
                                  {"type": "integer", "value": "1"}]}},
                              {"type": "store_sql", "sql_id": 7, "sql": "SELECT 2"},
                              {"type": "execute", "stmt": {"sql_id": 8}})
            expect_equal(rows_of(result(a, 1)), [(2,)], "a stored text")
            expect_equal(error(a, 2)["code"], "SQL_STORE_EXISTS", "a number twice")
            expect_equal(a["results"][3]["type"], "error", "a number that nobody stored")
            expect_equal(a["base_url"], url(leader), "a stream with texts is at one node")
            other.pipeline(execute("SELECT 1"), baton=a["baton"], status=400)
            a = door.pipeline({"type": "close_sql", "sql_id": 7},
                              {"type": "close_sql", "sql_id": 9},
                              baton=a["baton"])
            expect_equal([r["type"] for r in a["results"]], ["ok", "ok"], "close_sql")
            expect_equal(a["base_url"], None, "without texts it is anywhere again")


# --- batches --------------------------------------------------------------------------------------


def random_steps(rng):
    """Statements of which some fail, some return rows, some do nothing."""
    out = []
    for _ in range(rng.randint(1, 6)):
        k = rng.randint(1, 12)
        out.append(rng.choice([
            stmt("INSERT INTO t VALUES (?, ?)", k, f"v{k}"),
            stmt("INSERT OR REPLACE INTO t VALUES (?, ?) RETURNING id, v", k, "r"),
            stmt("UPDATE t SET v = v || ? WHERE id > ?", "!", k),
            stmt("DELETE FROM t WHERE id = ?", k),
            stmt("SELECT id, v FROM t WHERE id < ? ORDER BY id", k),
            stmt("INSERT INTO t SELECT id + 20, v FROM t WHERE id = ? ON CONFLICT DO NOTHING", k),
            stmt("SELECT last_insert_rowid()"),
            stmt("INSERT INTO nowhere VALUES (?)", k) if k == 1 else stmt("SELECT changes() >= 0"),
        ]))
    return out


def run_batch(door, steps):
    """A batch's result, but for what says when it was and how long."""
    found = only(door.pipeline({"type": "batch", "batch": steps}, CLOSE))
    for r in (*found["step_results"], found):
        if r is not None:
            r.pop("replication_index", None)
            r.pop("query_duration_ms", None)
    return found


@case(seconds=120)
def test_an_atomic_batch_is_its_steps():
    """The way in one request tells what the steps tell one by one: results, errors, contents."""
    rng = random.Random(7)
    with Cluster(3, http=True, election_timeout=3000) as c:
        for node in leader_and_follower(c):
            with Door(node) as door:
                door.execute("DROP TABLE IF EXISTS t")
                door.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v NOT NULL)")
                for turn in range(60):
                    steps = random_steps(rng)
                    begin = rng.choice(["BEGIN", "BEGIN IMMEDIATE", "BEGIN DEFERRED"])
                    before = door.rows("SELECT id, v FROM t ORDER BY id")
                    one = atomic(*steps, begin=begin)
                    fast = run_batch(door, one)
                    after = door.rows("SELECT id, v FROM t ORDER BY id")
                    door.pipeline({"type": "batch", "batch": atomic("DELETE FROM t", *(
                        stmt("INSERT INTO t VALUES (?, ?)", *row) for row in before))}, CLOSE)
                    expect_equal(door.rows("SELECT id, v FROM t ORDER BY id"), before, "set back")
                    one["steps"].append({"stmt": stmt("SELECT 'not the shape'")})
                    slow = run_batch(door, one)
                    slow["step_results"].pop()
                    slow["step_errors"].pop()
                    expect_equal(fast, slow, f"turn {turn} at {node}: {steps}")
                    expect_equal(door.rows("SELECT id, v FROM t ORDER BY id"), after, "contents")


@case(short=True)
def test_conditions():
    with Cluster(1, http=True) as c, Door(c.leader()) as door:
        r = only(door.pipeline({"type": "batch", "batch": batch(
            "SELECT 1", "nonsense", (ok(0), "SELECT 2"), (ok(1), "SELECT 3"),
            (failed(1), "SELECT 4"), ({"type": "error", "step": 1}, "SELECT 5"),
            ({"type": "error", "step": 3}, "SELECT 6"),
            ({"type": "and", "conds": [ok(0), failed(3)]}, "SELECT 7"),
            ({"type": "or", "conds": [ok(1), ok(7)]}, "SELECT 8"),
            ({"type": "and", "conds": []}, "SELECT 9"), ({"type": "or", "conds": []}, "SELECT 10"),
            ({"type": "is_autocommit"}, "SELECT 11"))}, CLOSE))
        expect_equal([None if s is None else rows_of(s)[0][0] for s in r["step_results"]],
                     [1, None, 2, None, 4, 5, None, 7, 8, 9, None, 11], "which were run")
        expect_equal([i for i, e in enumerate(r["step_errors"]) if e is not None], [1], "errors")
        bad = door.pipeline({"type": "batch", "batch": batch((ok(0), "SELECT 1"))}, status=400)
        expect(bad["message"], "a condition on a step that is not before")


# --- what is refused ------------------------------------------------------------------------------


@case(short=True)
def test_statements_that_are_refused():
    with Cluster(1, http=True) as c, Door(c.leader()) as door:
        named = [{"name": "a", "value": {"type": "null"}}]
        for wanted, request in (
                ("SQL_MANY_STATEMENTS", execute("SELECT 1; SELECT 2")),
                ("SQL_NO_STATEMENT", execute(" -- nothing")),
                ("SQL_INPUT_ERROR", execute("SELEKT")),
                ("ARGS_INVALID", execute("SELECT ?, ?", 1)),
                ("ARGS_INVALID", execute("SELECT ?", 1, 2)),
                ("ARGS_INVALID", execute("SELECT ?3", 1, 2)),
                ("ARGS_INVALID", execute("SELECT :a, :b", named_args=named)),
                ("ARGS_INVALID", execute("SELECT :b", named_args=named)),
                ("ARGS_INVALID", execute("SELECT ?200000")),
                ("ARGS_BOTH_POSITIONAL_AND_NAMED", execute("SELECT ?, :a", 1, named_args=named)),
                ("SQLITE_ERROR", {"type": "sequence", "sql": "COMMIT"})):
            a = door.pipeline(request, execute("SELECT 'unharmed'"), CLOSE)
            expect_equal(error(a)["code"], wanted, f"{request}: {a}")
            expect_equal(rows_of(result(a, 1)), [("unharmed",)], "behind it")
        for request, wanted in (
                (execute("SELECT ?", 1, 2), "has 1 parameter, and no place for value 2"),
                (execute("SELECT :b, ?", named_args=named),
                 'has 2 parameters, and no place for value 1 ("a")'),
                (execute("SELECT ?"), "has 1 parameter: no value for 1")):
            e = error(door.pipeline(request, CLOSE))
            expect(e["message"].endswith(wanted), f"{wanted}: {e}")
        door.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE)")
        door.execute("INSERT INTO t VALUES (1, 1)")
        e = error(door.pipeline(execute("INSERT INTO t VALUES (2, 1)")))
        expect_equal((e["code"], e["message"]),
                     ("SQLITE_CONSTRAINT", "SQLite error: UNIQUE constraint failed: t.u"), "UNIQUE")
        for wanted in (1, 20):
            names = ["a", ":a", "@a", "$a"]
            for name in names:
                a = door.pipeline({"type": "execute", "stmt": {
                    "sql": "SELECT :a" if name in ("a", ":a") else f"SELECT {name}",
                    "named_args": [{"name": name, "value": {"type": "integer",
                                                            "value": str(wanted)}}]}}, CLOSE)
                expect_equal(rows_of(only(a)), [(wanted,)], f"the name {name}")


@case(short=True)
def test_answers_that_are_too_large():
    with Cluster(1, http=True, http_answer_bytes=100000) as c, Door(c.leader()) as door:
        door.execute("CREATE TABLE t(a)")
        many = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {}) "
        a = door.pipeline(execute(many.format(10**6) + "SELECT i FROM c"),
                          execute("SELECT 'unharmed'"), CLOSE)
        expect_equal(error(a)["code"], "RESPONSE_TOO_LARGE", "the code")
        expect("over 100000 bytes (http-answer-bytes)" in error(a)["message"],
               f"the setting, and its value: {error(a)}")
        expect_equal(rows_of(result(a, 1)), [("unharmed",)], "behind it")
        a = door.pipeline(execute("BEGIN"), execute("INSERT INTO t VALUES (1)"),
                          execute(many.format(10**6) + "SELECT i FROM c"), execute("COMMIT"), CLOSE)
        expect_equal([r["type"] for r in a["results"]], ["ok", "ok", "error", "ok", "ok"],
                     "in a transaction")
        expect_equal(door.rows("SELECT count(*) FROM t"), [(1,)], "which goes on")
        expect_equal(len(door.rows(many.format(1000) + "SELECT i FROM c")), 1000, "below the limit")


@case(short=True)
def test_batches_whose_answers_are_too_large():
    """One error of the whole, which says whether it was done: drivers throw the first one that they
    find, and one of them ends its process when there are more than it expects."""
    rows = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 1000) SELECT i"
    large, value = rows + ", randomblob(200) FROM c", "SELECT zeroblob(90000)"
    with Cluster(2, http=True, http_answer_bytes=100000) as c:
        with Door(c.leader()) as door:
            door.execute("CREATE TABLE t(a UNIQUE)")
        n = 0
        for node in leader_and_follower(c):
            with Door(node) as door:
                for select in (large, value):
                    for run in (atomic, batch):
                        n += 2
                        a = door.pipeline({"type": "batch", "batch": run(
                            f"INSERT INTO t VALUES ({n})", select,
                            f"INSERT INTO t VALUES ({n + 1})")}, execute("SELECT 1"))
                        expect_too_large(error(a), True)
                        expect_equal(rows_of(result(a, 1)), [(1,)], "behind it")
                        expect_equal(door.rows("SELECT count(*) FROM t"), [(n,)], "it was done")
                        a = door.pipeline({"type": "batch", "batch": run(select, "SELECT 2")})
                        expect_too_large(error(a), False)
                        a = door.pipeline({"type": "batch", "batch": run(
                            select, f"INSERT INTO t VALUES ({n})")})
                        expect_equal(error(a)["code"], "SQLITE_CONSTRAINT", "a step's own error")
                a = door.pipeline({"type": "batch", "batch": batch(
                    "BEGIN", "INSERT INTO t VALUES (0)", large, "ROLLBACK")})
                expect_too_large(error(a), False)
                a = door.pipeline({"type": "batch", "batch": batch(
                    "DELETE FROM t WHERE 0", large, f"INSERT INTO t VALUES ({n})")})
                expect_equal(error(a)["code"], "SQLITE_CONSTRAINT", "a step's own error")
                expect(error(a)["message"].startswith("something of it was done, and cannot be "
                                                      "told, but: SQLite error: UNIQUE"), f"{a}")
                a = door.pipeline({"type": "batch", "batch": batch("BEGIN", large)})
                expect_too_large(error(a), True)
                a = door.pipeline({"type": "batch", "batch": batch(large, "COMMIT")},
                                  baton=a["baton"])
                expect_too_large(error(a), True)
                n += 1
                a = door.pipeline(execute(f"INSERT INTO t VALUES ({n + 1}) RETURNING "
                                          "zeroblob(90000)"))
                expect_too_large(error(a), True)
                expect_equal(door.rows("SELECT count(*) FROM t"), [(n,)], "it was done")


def expect_too_large(e, done):
    expect_equal(e["code"], "RESPONSE_TOO_LARGE", "the code")
    expect_equal(e["message"].startswith("it was done, but "), done, f"does it say so: {e}")
    expect("over 100000 bytes (http-answer-bytes)" in e["message"], f"the setting: {e}")
