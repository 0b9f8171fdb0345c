"""Clients' SQL against the other clients of the shared connections: nobody else's writes suffer."""

from tests.lib.cluster import Cluster, case, expect_equal, expect_error

MARK = "\ufeff"  # a byte order mark, which SQLite's tokenizer skips


@case(short=True)
def test_nothing_temporary_hides_a_real_table():
    with Cluster() as c, c.client() as bad, c.client() as good:
        good.query("CREATE TABLE t(a)")
        for sql in ("CREATE TABLE temp.t(a)", "CREATE VIEW temp.t AS SELECT 1 AS a",
                    "CREATE TRIGGER temp.tr AFTER INSERT ON main.t BEGIN DELETE FROM t; END",
                    "CREATE VIRTUAL TABLE temp.t USING fts5(a)"):
            expect_error("FORBIDDEN", lambda s=sql: bad.query(s), says="temporary")
            good.query("INSERT INTO t VALUES (1)")
        expect_equal(good.query("SELECT count(*) FROM main.t").rows, [(4,)], "lasting rows")
        c.check_equal()


@case(short=True)
def test_a_hidden_commit_does_not_end_the_others_transaction():
    with Cluster() as c, c.client() as holder:
        holder.query("CREATE TABLE t(a UNIQUE)")
        clients = [c.leader().client() for _ in range(3)]
        holder.query("BEGIN IMMEDIATE")  # holds the lane, so that the others form one batch
        clients[0].begin("INSERT INTO t VALUES ('first')")
        clients[1].begin(MARK + "COMMIT")
        clients[2].begin("INSERT INTO t VALUES ('third')")
        holder.query("ROLLBACK")
        clients[0].finish()
        expect_error("SQL", clients[1].finish, says="no transaction is active")
        clients[2].finish()
        q = clients[0]
        q.query(MARK + "BEGIN")
        q.query("INSERT INTO t VALUES ('fourth')")
        q.query(MARK + "ROLLBACK")
        expect_equal(q.query("SELECT a FROM t ORDER BY a").rows, [("first",), ("third",)], "rows")
        for client in clients:
            client.close()
        c.check_equal()


@case(short=True)
def test_native_code_and_other_clients_texts_are_out_of_reach():
    with Cluster(1) as c, c.client() as q:
        for sql in ("SELECT fts3_tokenizer('simple')",
                    "SELECT fts3_tokenizer('evil', x'4141414141414141')",
                    "SELECT sql FROM sqlite_stmt"):
            expect_error("FORBIDDEN", lambda s=sql: q.query(s), says="fts3_tokenizer|sqlite_stmt")
        expect_error("SQL", lambda: q.query(
            "SELECT 'a' LIKE printf('%.*c', 40000, 'a')"), says="pattern too complex")


@case(short=True)
def test_foreign_keys_takes_a_number_and_no_second_statement():
    with Cluster(1) as c, c.client() as q:
        q.query("CREATE TABLE t(a)")
        q.query("PRAGMA foreign_keys = 0")
        q.query("PRAGMA foreign_keys = 2")
        expect_equal(q.query("PRAGMA foreign_keys").rows, [(1,)], "after 2")
        expect_error("FORBIDDEN", lambda: q.query("PRAGMA foreign_keys = 0; DROP TABLE t"),
                     says="a statement of its own")
        expect_error("MISUSE", lambda: q.query("PRAGMA foreign_keys; DROP TABLE t"))
        expect_equal(q.query("PRAGMA foreign_keys").rows, [(1,)], "after the refusals")
