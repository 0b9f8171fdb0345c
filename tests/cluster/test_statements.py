"""SQL as a client sees it: values, results, SQLite's own errors, and what is refused."""

from tests.lib.cluster import Cluster, case, expect, expect_equal, expect_error

ROWS = 20000


@case(short=True)
def test_values_come_back_as_they_went_in():
    values = [None, 0, -1, 2**63 - 1, -2**63, 0.0, -1.5, 1e308, "", "h\u00e9llo", "a\0b", b"",
              b"\x00\xff" * 50, "x" * 200000, b"y" * 3000000]
    with Cluster() as c, c.client() as q:
        q.query("CREATE TABLE v(id INTEGER PRIMARY KEY, a)")
        for i, value in enumerate(values):
            done = q.query("INSERT INTO v(id, a) VALUES (?, :value)", {"": i, ":value": value})
            expect_equal((done.changes, done.last_insert_rowid), (1, i), f"DONE of {value!r:.20}")
        for node in c.nodes:
            with node.client(seq=q.seq) as r:
                result = r.query("SELECT a, typeof(a) AS kind FROM v ORDER BY id")
                expect_equal(result.columns, ["a", "kind"], "columns")
                for (found, kind), wanted in zip(result.rows, values):
                    expect(found == wanted and type(found) is type(wanted),
                           f"{node}: {wanted!r:.40} came back as {found!r:.40} ({kind})")
        c.check_equal()


@case(short=True)
def test_sql_errors_carry_sqlites_codes_and_words():
    with Cluster() as c:
        for node in c.nodes:  # at the leader and through a follower
            with node.client() as q:
                q.query("DROP TABLE IF EXISTS child")
                q.query("DROP TABLE IF EXISTS parent")
                q.query("CREATE TABLE parent(id INTEGER PRIMARY KEY, u UNIQUE, n NOT NULL, "
                        "k CHECK (k > 0))")
                q.query("CREATE TABLE child(p REFERENCES parent(id))")
                q.query("INSERT INTO parent VALUES (1, 'a', 'b', 1)")

                def fails(sql, code, says, node=node, q=q):
                    return expect_error("SQL", lambda: q.query(sql), code, says) and node
                e = expect_error("SQL", lambda q=q: q.query("SELEC 1"), 1, 'near "SELEC"')
                expect_equal(e.offset, 0, "offset of the syntax error")
                e = expect_error("SQL", lambda q=q: q.query("SELECT nonesuch FROM parent"), 1,
                                 "no such column: nonesuch")
                expect_equal(e.offset, 7, "offset of the unknown column")
                fails("SELECT * FROM nowhere", 1, "no such table: nowhere")
                fails("INSERT INTO parent VALUES (2, 'a', 'b', 1)", 2067, "UNIQUE.*parent.u")
                fails("INSERT INTO parent VALUES (1, 'c', 'b', 1)", 1555, "UNIQUE.*parent.id")
                fails("INSERT INTO parent VALUES (3, 'd', NULL, 1)", 1299, "NOT NULL.*parent.n")
                fails("INSERT INTO parent VALUES (4, 'e', 'b', 0)", 275, "CHECK")
                fails("INSERT INTO child VALUES (99)", 787, "FOREIGN KEY")
                fails("DELETE FROM nowhere", 1, "no such table")
                # An integer where none fits: SQLITE_MISMATCH.
                fails("INSERT INTO parent VALUES ('x', 'f', 'b', 1)", 20, "datatype mismatch")
                expect_equal(q.query("SELECT count(*) FROM parent").rows, [(1,)], "rows after all")
        c.check_equal()


@case()
def test_writes_through_every_node_reach_the_leader():
    with Cluster() as c:
        with c.client() as q:
            q.query("CREATE TABLE t(id INTEGER PRIMARY KEY, node INT)")
        for i in range(30):
            node = c.nodes[i % 3]
            with node.client() as q:
                done = q.query("INSERT INTO t(node) VALUES (?) RETURNING id, node", (node.id,))
                expect_equal(done.rows, [(i + 1, node.id)], f"RETURNING through {node}")
                expect_equal((done.changes, done.last_insert_rowid), (1, i + 1), "DONE")
                # One's own write, on the node one is connected to.
                expect_equal(q.query("SELECT count(*) FROM t").rows, [(i + 1,)], f"read at {node}")
        with c.client() as q:
            expect_equal(q.query("UPDATE t SET node = 0 WHERE node = 1").changes, 10, "changes")
            expect_equal(q.query("SELECT 1").changes, 0, "changes of a read")
        c.check_equal()


@case()
def test_large_answers_stream_and_may_be_cancelled():
    with Cluster() as c, c.client() as q:
        sql = ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?) "
               "SELECT i, 'row ' || i FROM n")
        rows = q.query(sql, (ROWS,)).rows
        expect_equal((len(rows), rows[-1]), (ROWS, (ROWS, f"row {ROWS}")), "a large answer")
        q.begin(sql, (10**12,))  # endless; nobody reads it: the server must wait, not grow
        with c.client() as other:
            other.query("CREATE TABLE meanwhile(a)")
        q.cancel()
        expect_error("CANCELLED", q.finish)
        expect_equal(q.query("SELECT 1").rows, [(1,)], "the connection after CANCEL")
        expect_error("TIMEOUT", lambda: q.query(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
            timeout_ms=200))
        expect_equal(q.query("SELECT 1").rows, [(1,)], "the connection after a timeout")


@case()
def test_a_writing_statement_is_interrupted_too():
    with Cluster(election_timeout=3000) as c, c.client() as q:
        q.query("CREATE TABLE t(a)")
        sql = ("INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
               "LIMIT 100000000) SELECT i FROM n WHERE i < 0")
        expect_error("TIMEOUT", lambda: q.query(sql, timeout_ms=1500))
        number = q.begin(sql)
        with c.client() as other:
            # The cancelled one must not hold up the lane for ever.
            q.cancel(number)
            expect_error("CANCELLED", q.finish)
            other.query("INSERT INTO t VALUES (1)")
        expect_equal(q.query("SELECT count(*) FROM t").rows, [(1,)], "rows")
        c.check_equal()


@case(short=True)
def test_pipelined_requests_answer_in_order_and_fail_alone():
    with Cluster() as c, c.client() as q:
        q.query("CREATE TABLE t(id INTEGER PRIMARY KEY)")
        asked = [q.begin("INSERT INTO t VALUES (?)", (i // 2,)) for i in range(60)]
        good = 0
        for i, request in enumerate(asked):
            if i % 2 == 0:
                q.finish(request)
                good += 1
            else:
                expect_error("SQL", lambda r=request: q.finish(r), 1555, "UNIQUE")
        expect_equal(q.query("SELECT count(*) FROM t").rows, [(good,)], "rows")
        asked = [q.begin(s) for s in ("BEGIN", "INSERT INTO t VALUES (100)",
                                      "INSERT INTO t VALUES (0)", "COMMIT")]
        q.finish(asked[0])
        q.finish(asked[1])
        expect_error("SQL", lambda: q.finish(asked[2]), 1555)
        expect(not q.finish(asked[3]).in_transaction, "COMMIT did not end the transaction")
        expect_equal(q.query("SELECT id FROM t WHERE id = 100").rows, [(100,)], "committed row")


@case(short=True)
def test_what_cannot_be_replicated_is_refused_with_a_reason():
    refused = ["ATTACH '/tmp/other.db' AS other", "PRAGMA journal_mode = DELETE",
               "PRAGMA synchronous = OFF", "PRAGMA wal_checkpoint(TRUNCATE)",
               "PRAGMA writable_schema = 1", "PRAGMA locking_mode = EXCLUSIVE",
               "PRAGMA wal_autocheckpoint = 1", "PRAGMA mmap_size = 1000000",
               "PRAGMA page_size = 1024", "SELECT load_extension('x')",
               "VACUUM INTO '/tmp/copy.db'", "CREATE TEMP TABLE t(a)"]
    with Cluster() as c:
        for node in c.nodes:
            with node.client() as q:
                for sql in refused:
                    e = expect_error("FORBIDDEN", lambda s=sql, q=q: q.query(s))
                    expect(len(e.message) > 20, f"{sql}: no reason: {e.message!r}")
                expect_error("MISUSE", lambda q=q: q.query("SELECT 1; SELECT 2"))
                expect_equal(q.query("PRAGMA foreign_keys").rows, [(1,)], "foreign keys")
                expect_equal(q.query("PRAGMA journal_mode").rows, [("wal",)], "journal mode")
        with c.client() as q:
            q.query("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
            names = [r[1] for r in q.query("PRAGMA table_info(t)").rows]
            expect_equal(names, ["a", "b"], "columns")
            q.query("PRAGMA user_version = 7")
        with c.others(c.leader())[0].client(seq=q.seq) as q:
            expect_equal(q.query("PRAGMA user_version").rows, [(7,)], "on a follower")
        c.check_equal()


@case()
def test_schema_changes_and_vacuum_replicate():
    with Cluster() as c, c.client() as q:
        q.query("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT)")
        q.query("INSERT INTO t(a) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
                "LIMIT 20000) SELECT hex(randomblob(50)) FROM n")
        q.query("CREATE INDEX by_a ON t(a)")
        q.query("ALTER TABLE t ADD COLUMN b DEFAULT 5")
        q.query("CREATE TRIGGER log AFTER DELETE ON t BEGIN INSERT INTO t(a) VALUES ('gone'); END")
        q.query("DELETE FROM t WHERE id % 2 = 0 AND id <= 10000")
        q.query("DROP TRIGGER log")
        q.query("DELETE FROM t WHERE id > 1000")
        large = q.query("PRAGMA page_count").rows[0][0]
        q.query("VACUUM")
        small = q.query("PRAGMA page_count").rows[0][0]
        expect(small < large / 4, f"VACUUM: {large} pages before, {small} after")
        q.query("CREATE VIRTUAL TABLE words USING fts5(text)")
        q.query("INSERT INTO words VALUES ('one writes, many read')")
        expect_equal(len(q.query("SELECT * FROM words WHERE words MATCH 'many'").rows), 1, "fts5")
        c.check_equal()
