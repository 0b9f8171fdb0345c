"""lectern load: files of SQLite and of SQL, whole, once, whoever leads meanwhile."""

import contextlib
import os
import pty
import signal
import sqlite3
import subprocess
import tempfile

from tests.lib import chinook
from tests.lib.cluster import (BUILD, HANG, PATIENCE, Cluster, case, expect, expect_equal, shell,
                               wait_for)
from tests.lib.loading import Loading
from tests.lib.metrics import scrape

LECTERN = os.path.join(BUILD, "lectern")


@case()
def test_shell_a_mistyped_command_is_no_sql():
    for words in (["loda", "x.db"], ["status"], ["localhost", "SELECT 1"]):
        p = subprocess.run([LECTERN, *words], capture_output=True, text=True, timeout=10 * PATIENCE,
                           check=False)
        expect_equal((p.returncode, p.stdout), (1, ""), words)
        expect(f"no command {words[0]}: there are cluster, load" in p.stderr, p.stderr)


EVERYTHING = r"""
CREATE TABLE "odd "" n'ame"("a ""b" TEXT, g AS (1), c, "select");
INSERT INTO "odd "" n'ame" VALUES('x''' || char(10, 0, 65), x'', 9007199254740993),
    (NULL, 1e999, -0.0), (x'00ff', 1.5, -9223372036854775808), (CAST(x'ff80' AS TEXT), '', 'é');
CREATE TABLE w(a PRIMARY KEY, b) WITHOUT ROWID;
INSERT INTO w VALUES('k', 2);
CREATE TABLE s(a INTEGER, b TEXT, c ANY) STRICT;
INSERT INTO s VALUES(1, '1', '1'), (2, '2', 2);
CREATE TABLE k(id INTEGER PRIMARY KEY AUTOINCREMENT, v);
INSERT INTO k(v) VALUES(1), (2);
DELETE FROM k WHERE id = 2;
CREATE TABLE r(x);
INSERT INTO r(rowid, x) VALUES(77, 'a'), (-5, 'b');
CREATE TABLE own(rowid, _rowid_, x);
INSERT INTO own(oid, rowid, _rowid_, x) VALUES(9, 'a', 'b', 'c');
CREATE TABLE down(id INTEGER PRIMARY KEY DESC, x);
INSERT INTO down(rowid, id, x) VALUES(3, 30, 'c');
CREATE TABLE parent(id INTEGER PRIMARY KEY);
CREATE TABLE child(p REFERENCES parent(id));
INSERT INTO child VALUES(5);
CREATE VIRTUAL TABLE f USING fts5(body, tag UNINDEXED);
INSERT INTO f(rowid, body, tag) VALUES(5, 'some words', 'x');
CREATE VIRTUAL TABLE outside USING fts5(x, content='r', content_rowid='rowid');
INSERT INTO outside(outside) VALUES('rebuild');
CREATE VIRTUAL TABLE four USING fts4(body);
INSERT INTO four(docid, body) VALUES(7, 'more words');
CREATE VIRTUAL TABLE box USING rtree(id, x0, x1, +note);
INSERT INTO box VALUES(1, 0.1, 2.5, 'n');
CREATE TRIGGER tt AFTER INSERT ON r BEGIN INSERT INTO k(v) VALUES(9); END;
CREATE VIEW vv AS SELECT * FROM r;
CREATE INDEX ri ON r(x);
ANALYZE;
PRAGMA user_version = 42;
PRAGMA application_id = 4711;
"""
SEEN = ["SELECT rowid, * FROM r", "SELECT * FROM sqlite_sequence", "SELECT rowid, * FROM f",
        "SELECT rowid FROM f WHERE f MATCH 'words'", "SELECT rowid FROM outside('a')",
        "SELECT docid FROM four WHERE body MATCH 'words'", "SELECT * FROM box",
        "SELECT *, typeof(c), typeof(\"a \"\"b\"), hex(\"a \"\"b\") FROM \"odd \"\" n'ame\"",
        "SELECT oid, * FROM own", "SELECT rowid, * FROM down", "SELECT *, typeof(c) FROM s",
        "SELECT * FROM w", "SELECT rowid, * FROM k", "SELECT * FROM child",
        "SELECT tbl, idx, stat FROM sqlite_stat1 ORDER BY 1, 2", "PRAGMA user_version",
        "PRAGMA application_id", "SELECT type, name, sql FROM sqlite_schema ORDER BY 2, 1"]


def complaints(err):
    """Without the lines that say how far it is, every five seconds."""
    return "".join(x for x in err.splitlines(True) if x.startswith(("Error", "Warning")))


def load(cluster, *words, seconds=90):
    done = subprocess.run([LECTERN, "load", "--connect", cluster.addresses(), *words],
                          capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
                          timeout=seconds * PATIENCE)
    return done.returncode, done.stdout, done.stderr


def make(path, script):
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.text_factory = bytes
        db.executescript(script)
    return path


def ask(path_or_node, sql):
    path = getattr(path_or_node, "database", path_or_node)
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        db.text_factory = bytes
        return db.execute(sql).fetchall()


def is_empty(cluster):
    return all(ask(n, "SELECT count(*) FROM sqlite_schema") == [(0,)] for n in cluster.nodes)


@case(short=True, seconds=60)
def test_chinook_as_a_database_and_as_sql():
    text = chinook.sql()
    with tempfile.TemporaryDirectory() as d:
        files = [make(f"{d}/c.db", text), f"{d}/c.sql"]
        with open(files[1], "w", encoding="utf-8") as f:
            f.write(text)
        wanted = chinook.expected(text)
        for path in files:
            for flags in ([], ["--atomic"]):
                with Cluster() as c:
                    status, out, err = load(c, *flags, path)
                    expect_equal((status, complaints(err)), (0, ""), f"load of {path}")
                    expect(out.startswith(("loaded 11 tables, ", "ran ")), f"says {out!r}")
                    c.wait_equal()
                    for table, rows in wanted.items():
                        found = c.nodes[0].read(f"SELECT * FROM [{table}]")
                        expect(sorted(found, key=repr) == rows, f"{table} differs")


@case(seconds=60)
def test_everything_that_a_database_can_hold():
    for flags in ([], ["--atomic", "--batch-bytes", "1"]):
        with tempfile.TemporaryDirectory() as d, Cluster() as c:
            path = make(f"{d}/it's.db", EVERYTHING)
            status, _, err = load(c, *flags, path)
            expect_equal(status, 0, f"load ({err})")
            expect_equal(complaints(err), "Warning: child, row 1: its parent in parent is not "
                         "there\n", "warnings")
            c.wait_equal()
            for sql in SEEN:
                wanted = sorted(ask(path, sql), key=repr)
                for node in c.nodes:
                    expect_equal(sorted(ask(node, sql), key=repr), wanted, f"{node}: {sql}")
            expect_equal(c.nodes[0].read("PRAGMA integrity_check"), [("ok",)], "integrity")


@case(seconds=60)
def test_what_cannot_be_loaded_is_refused_before_anything_is_written():
    with tempfile.TemporaryDirectory() as d, Cluster() as c:
        def refused(script, says):
            path = f"{d}/{len(os.listdir(d))}.db"
            status, _, err = load(c, make(path, "CREATE TABLE first(a);" + script))
            expect(status == 1 and says in err, f"{script}: {status} {err}")
            expect(is_empty(c), f"{script}: something was written")
        refused("CREATE VIRTUAL TABLE ft USING fts5(a, content='');", "without content")
        refused("CREATE VIRTUAL TABLE ft USING fts4(a, content=\"\");", "without content")
        refused("CREATE VIRTUAL TABLE ft USING fts4(a, languageid=\"l\");", "languages")
        refused("CREATE VIRTUAL TABLE v USING fts5vocab('a', 'row');", "fts5vocab")
        refused("CREATE TABLE t(a); PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = "
                "'CREATE TABLE t(a' WHERE name = 't';", "malformed")
        with open(f"{d}/bad.db", "wb") as f:
            f.write(b"SQLite format 3\0" + b"\xff" * 5000)
        status, _, err = load(c, f"{d}/bad.db")
        expect(status == 1 and "not a database" in err and "encrypted" in err, f"{status} {err}")
        whole = make(f"{d}/whole.db", "CREATE TABLE w(a); INSERT INTO w VALUES(zeroblob(90000));")
        with open(whole, "r+b") as f:
            f.truncate(20000)
        status, _, err = load(c, whole)
        expect(status == 1 and "damaged" in err and ".recover" in err, f"{status} {err}")
        for junk in (b"\0" * 4096, b"\x1f\x8b\x08 packed", "SELECT 1;".encode("utf-16")):
            with open(f"{d}/junk.db", "wb") as f:
                f.write(junk)
            status, out, err = load(c, f"{d}/junk.db")
            expect(status == 1 and "neither a SQLite database" in err, f"{status} {out} {err}")
        status, _, err = load(c, f"{d}/none.db")
        expect(status == 1 and "No such file" in err, f"{status} {err}")
        # A table that is there, of any letters and kind.
        expect_equal(shell(c, "CREATE VIEW FIRST AS SELECT 1;\n")[0], 0, "shell")
        status, _, err = load(c, make(f"{d}/more.db", "CREATE TABLE before(a);"
                                      "CREATE TABLE first(a);"))
        expect(status == 1 and "a view FIRST already" in err, f"{status} {err}")
        expect_equal(ask(c.leader(), "SELECT name FROM sqlite_schema"), [(b"FIRST",)], "schema")


@case(seconds=60)
def test_sql_errors_name_the_line():
    with tempfile.TemporaryDirectory() as d, Cluster() as c:
        def sql(text, *flags):
            path = f"{d}/x.sql"
            with open(path, "wb") as f:
                f.write(text)
            return load(c, *flags, path)
        status, _, err = sql(b"CREATE TABLE t(a UNIQUE);\n-- one\n\n/* two\n */ INSERT INTO t "
                             b"VALUES(1);\nINSERT INTO t VALUES(1);\n")
        expect(status == 1 and err.startswith("Error: line 6: UNIQUE"), f"{status} {err}")
        status, _, err = sql(b".read x\n")
        expect(status == 1 and "line 1: a dot command" in err, f"{status} {err}")
        status, _, err = sql(b"SELECT 1;\nSELECT 'a\0b';\n")
        expect(status == 1 and "line 2: a statement with a zero byte" in err, f"{status} {err}")
        status, _, err = sql(b"BEGIN;\nCREATE TABLE lost(a);\n")
        expect(status == 1 and "ends inside of a transaction" in err, f"{status} {err}")
        status, _, err = sql(b"CREATE TABLE lost(a);\nROLLBACK;\n", "--atomic")
        expect(status == 1 and "line 2: a ROLLBACK" in err, f"{status} {err}")
        status, _, err = sql(b"CREATE TABLE lost(a);\nnonsense;\n", "--atomic")
        expect(status == 1 and "Nothing was loaded." in err, f"{status} {err}")
        expect_equal(ask(c.leader(), "SELECT name FROM sqlite_schema WHERE name = 'lost'"), [],
                     "a table of a transaction that failed")
        status, _, err = sql(b"-- a long comment\n" * 400 + b"\0SELECT 1;\n")
        expect(status == 1 and "a statement with a zero byte" in err, f"{status} {err}")
        os.mkfifo(f"{d}/pipe")
        with subprocess.Popen(["sh", "-c", f"echo 'CREATE TABLE piped(a); CREATE TABLE b(a);' > "
                               f"{d}/pipe"]):
            status, out, err = load(c, f"{d}/pipe")
        expect(status == 0 and out.startswith("ran 2 statements"), f"{status} {out} {err}")
        status, out, err = sql(b"")
        expect(status == 0 and out.startswith("ran 0 statements"), f"{status} {out} {err}")


def big_database(path, rows):
    return make(path, "CREATE TABLE big(a INTEGER PRIMARY KEY, b BLOB); WITH RECURSIVE n(i) AS "
                      f"(SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) INSERT INTO big "
                      "SELECT i, randomblob(1000) FROM n;")


def big_sql(path, rows, transaction):
    with open(path, "w", encoding="utf-8") as f:
        f.write("CREATE TABLE big(a INTEGER PRIMARY KEY, b BLOB);\n")
        f.write("BEGIN;\n" if transaction else "")
        for i in range(rows):
            f.write(f"INSERT INTO big VALUES({i}, zeroblob(1000));\n")
        f.write("COMMIT;\n" if transaction else "")
    return path


def kill_leaders_during(c, words, rows, kills):
    """Runs a load; kills the leader each time when rows have come, and starts it again."""
    with subprocess.Popen([LECTERN, "load", "--connect", c.addresses(), *words], text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as p:
        done = 0
        try:
            while done < kills and p.poll() is None:
                leader = c.leader()
                seq = leader.row()["seq"]
                wait_for(lambda n=leader, s=seq: p.poll() is not None or n.row()["seq"] > s,
                         "the load goes on")
                if p.poll() is not None:
                    break
                leader.kill()
                done += 1
                c.wait_serving()
                c.restart(leader)
            out, err = p.communicate(timeout=60 * HANG)
        except BaseException:
            p.kill()
            raise
        expect_equal((p.returncode, complaints(err)), (0, ""), f"load after {done} kills ({out})")
    c.wait_equal()
    for node in c.nodes:
        expect_equal(node.read("SELECT count(*), count(DISTINCT a), sum(length(b)) FROM big"),
                     [(rows, rows, rows * 1000)], f"rows on {node} after {done} kills")
    return done


@case(seconds=120)
def test_the_leader_is_killed_while_a_database_is_loaded():
    with tempfile.TemporaryDirectory() as d, Cluster() as c:
        done = kill_leaders_during(c, ["--batch-bytes", "100000", big_database(f"{d}/x.db", 60000)],
                                   60000, 3)
        expect(done >= 1, "the load was over before a kill")


@case(seconds=120)
def test_the_leader_is_killed_while_sql_is_loaded():
    with tempfile.TemporaryDirectory() as d, Cluster() as c:
        done = kill_leaders_during(c, ["--batch-bytes", "20000",
                                       big_sql(f"{d}/x.sql", 60000, False)], 60000, 2)
        expect(done >= 1, "the load was over before a kill")


@case(seconds=120)
def test_the_leader_is_killed_inside_of_a_transaction_of_the_file():
    """Nothing of it was written, so it is read again from its BEGIN."""
    for flags, transaction in ((["--atomic"], False), ([], True)):
        with tempfile.TemporaryDirectory() as d, Cluster() as c:
            path = big_sql(f"{d}/x.sql", 40000, transaction)
            with Loading(c, "--batch-bytes", "2000", *flags, path) as loading:
                loading.reads(os.path.getsize(path) // 3)
                running, leader = loading.running, c.leader()
                leader.kill()
                c.wait_serving()
                c.restart(leader)
                status, out, err = loading.end(60)
                expect_equal((status, complaints(err)), (0, ""), f"load ({out})")
            expect(running, "the load was over before the kill")
            c.wait_equal()
            expect_equal(c.nodes[0].read("SELECT count(*) FROM big"), [(40000,)], "rows")


def transactions(c):
    """How many BEGIN and COMMIT the nodes have answered to clients."""
    samples = [s for n in c.nodes for s in scrape(n)["lectern_requests_total"].samples]
    return sum(value for _, labels, value in samples
               if labels["kind"] == "transaction" and labels["door"] == "native")


@case(seconds=60)
def test_a_transaction_that_is_open_for_too_long_is_not_tried_again():
    """One try, and a sentence with the limit and the ways out; with the limit raised, it works."""
    with tempfile.TemporaryDirectory() as d, Cluster(http=True, transaction_timeout=250) as c:
        database = big_database(f"{d}/x.db", 15000)
        files = [(["--atomic"], database, "without --atomic", "Nothing was loaded."),
                 (["--atomic"], big_sql(f"{d}/x.sql", 15000, False), "without --atomic",
                  "Nothing was loaded."),
                 ([], big_sql(f"{d}/t.sql", 15000, True), "out of the file",
                  "Done before: 1 statements.")]
        for flags, path, way_out, stands in files:
            before = transactions(c)
            status, _, err = load(c, "--batch-bytes", "1", *flags, path)
            tries = transactions(c) - before
            expect(status == 1 and "open for 250 ms (transaction-timeout)" in err and
                   way_out in err and "raise that limit" in err and stands in err,
                   f"{path}: {status} {err}")
            expect(tries < 3, f"it was tried {tries} times")  # of five; one may meet an election
            wait_for(lambda: all(ask(n, "SELECT * FROM sqlite_schema WHERE name <> 'big'") == []
                                 for n in c.nodes), "nothing else is there")
            expect_equal(shell(c, "DROP TABLE IF EXISTS big;\n")[0], 0, "shell")
        for node in c.nodes:
            node.stop()
        for node in c.nodes:
            c.restart(node, **{"transaction-timeout": 60000})
        c.wait_serving()
        status, _, err = load(c, "--atomic", database)
        expect_equal((status, complaints(err)), (0, ""), "load with a higher limit")


@case(seconds=60)
def test_ctrl_c_says_what_was_loaded():
    with tempfile.TemporaryDirectory() as d, Cluster() as c:
        path = big_database(f"{d}/x.db", 60000)
        with subprocess.Popen([LECTERN, "load", "--connect", c.addresses(), "--batch-bytes", "5000",
                               path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as p:
            seq = c.leader().row()["seq"]
            wait_for(lambda: c.leader().row()["seq"] > seq + 20, "some batches")
            p.send_signal(signal.SIGINT)
            out, err = p.communicate(timeout=30 * PATIENCE)
        expect_equal((p.returncode, out), (130, ""), err)
        rows = int(err.split(" whole tables, ")[1].split(" rows")[0])
        c.wait_equal()
        stand = c.nodes[0].read("SELECT count(*) FROM big")[0][0]
        # The batch under way when the key was pressed may be done, too.
        expect(0 < rows <= stand <= rows + 5, f"says {rows} rows, {stand} stand there")


@case(seconds=60)
def test_a_bar_at_a_terminal():
    with tempfile.TemporaryDirectory() as d, Cluster() as c:
        path = big_database(f"{d}/x.db", 60000)
        pid, terminal = pty.fork()
        if pid == 0:
            os.execv(LECTERN, ["lectern", "load", "--connect", c.addresses(), "--batch-bytes",
                               "50000", path])
        seen = b""
        with contextlib.suppress(OSError):  # EIO: the other side is gone
            while piece := os.read(terminal, 65536):
                seen += piece
        os.close(terminal)
        expect_equal(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0, repr(seen[-500:]))
        text = seen.decode()
        expect("\r[" in text and "#" in text and " %" in text and "rows" in text, repr(text[:500]))
        expect(text.splitlines()[-1].split("\x1b[K")[-1].startswith("loaded 1 tables, 60000 rows"),
               repr(text[-300:]))


@case(short=True)
def test_every_command_has_its_help():
    for words in (["load"], ["dump"], ["export"], ["cluster"], []):
        for flag in ("-h", "--help"):
            done = subprocess.run([LECTERN, *words, flag], capture_output=True, text=True,
                                  check=False, timeout=10 * PATIENCE)
            expect_equal((done.returncode, done.stderr), (0, ""), f"lectern {words} {flag}")
            expect(done.stdout.startswith("Usage: lectern " + "".join(words)), done.stdout)
