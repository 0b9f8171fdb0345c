"""lectern export and dump: one state of a changing database, from any node, whole or not at all."""

import contextlib
import os
import sqlite3
import subprocess
import tempfile
import threading
import time

from tests.cluster.test_shell_load import complaints
from tests.lib import chinook
from tests.lib.cluster import (BUILD, PATIENCE, Cluster, case, expect, expect_equal, shell,
                               wait_for)
from tests.lib.lectern_client import ConnectionLost, LecternError

LECTERN = os.path.join(BUILD, "lectern")
ACCOUNTS, SUM = 2000, 2000 * 100


def lectern(*words, seconds=60, **options):
    done = subprocess.run([LECTERN, *words], capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL, timeout=seconds * PATIENCE, **options)
    return done.returncode, done.stdout, done.stderr


def addresses(cluster):
    return ",".join(x.address for x in cluster.nodes)


def check_copy(path):
    """An ordinary database file: whole, alone, and it can be written to."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        expect_equal(db.execute("PRAGMA integrity_check").fetchall(), [("ok",)], path)
        expect_equal(db.execute("PRAGMA journal_mode").fetchall(), [("delete",)], "journal mode")
        db.execute("CREATE TABLE written_here(a)")
        db.commit()
    expect(not os.path.exists(path + "-wal"), "a WAL beside the copy")


@contextlib.contextmanager
def transfers(cluster):
    """Moves money between accounts on the leader: the sum of every state is the same."""
    with cluster.client() as c:
        c.query("CREATE TABLE account(id INTEGER PRIMARY KEY, money INTEGER, pad BLOB)")
        c.query(f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < "
                f"{ACCOUNTS}) INSERT INTO account SELECT i, 100, randomblob(3000) FROM n")
    stop, moved = threading.Event(), [0]

    def move():
        k = 0
        while not stop.is_set():
            try:
                with cluster.client() as c:
                    while not stop.is_set():
                        k += 1
                        c.query("UPDATE account SET money = money + CASE id WHEN ?1 THEN -1 ELSE 1 "
                                "END, pad = randomblob(3000) WHERE id IN (?1, ?2)",
                                [k * 7 % ACCOUNTS + 1, (k * 7 + 1) % ACCOUNTS + 1])
                        moved[0] += 1
            except (ConnectionLost, LecternError):
                continue
    thread = threading.Thread(target=move)
    thread.start()
    try:
        wait_for(lambda: moved[0] > 10, "some transfers")
        yield moved
    finally:
        stop.set()
        thread.join()


def check_sum(path):
    with contextlib.closing(sqlite3.connect(path)) as db:
        rows, total = db.execute("SELECT count(*), sum(money) FROM account").fetchone()
    expect_equal((rows, total), (ACCOUNTS, SUM), f"accounts and money in {path}")


@case(short=True, seconds=60)
def test_export_while_writes_go_on():
    with tempfile.TemporaryDirectory() as d, Cluster() as c:
        with transfers(c) as moved:
            for i in range(5):
                before = moved[0]
                path = os.path.join(d, f"copy {i}.db")
                status, out, err = lectern("export", "--connect", addresses(c), path)
                expect_equal(status, 0, f"export ({err})")
                expect(out.startswith("exported ") and path in out, f"says {out!r}")
                check_sum(path)
                check_copy(path)
                wait_for(lambda n=before: moved[0] > n, "writes go on")
        expect_equal(sorted(os.listdir(d)), [f"copy {i}.db" for i in range(5)], "what is left")


@case(seconds=60)
def test_export_overwrites_nothing_but_its_own_leavings():
    with tempfile.TemporaryDirectory() as d, Cluster() as c:
        path = os.path.join(d, "a'b\".db")
        expect_equal(shell(c, "CREATE TABLE t(a);\nINSERT INTO t VALUES (1);\n")[0], 0, "shell")
        expect_equal(lectern("export", "--connect", addresses(c), path)[0], 0, "export")
        with open(path, "rb") as f:
            first = f.read()
        status, _, err = lectern("export", "--connect", addresses(c), path)
        expect(status == 1 and "does not overwrite" in err, f"{status} {err}")
        with open(path, "rb") as f:
            expect(f.read() == first, "the file of before was changed")
        # What a killed export has left is no obstacle.
        with open(path + "2.partial", "wb") as f:
            f.write(b"x" * 100000)
        expect_equal(lectern("export", "--connect", addresses(c), path + "2")[0], 0, "export")
        check_copy(path + "2")
        status, _, err = lectern("export", "--connect", addresses(c), os.path.join(d, "no/where"))
        expect(status == 1 and "No such file" in err, f"{status} {err}")
        expect_equal(len(os.listdir(d)), 2, f"files left: {os.listdir(d)}")


def big(cluster, megabytes):
    with cluster.client() as c:
        c.query("CREATE TABLE big(a INTEGER PRIMARY KEY, b BLOB)")
        for _ in range(megabytes // 8):
            c.query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 80) "
                    "INSERT INTO big(b) SELECT randomblob(100000) FROM n")
    cluster.wait_equal()


@case(seconds=90)
def test_export_goes_on_with_another_node():
    with tempfile.TemporaryDirectory() as d, Cluster() as c:
        big(c, 96)
        path = os.path.join(d, "copy.db")
        with subprocess.Popen([LECTERN, "export", "--connect", addresses(c), path],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as p:
            def writes():
                with contextlib.suppress(OSError):
                    return os.stat(path + ".partial").st_size > 0 or p.poll() is not None
                return p.poll() is not None
            wait_for(writes, "the copy begins")
            victims = [n for n in c.others(c.leader())]
            for node in victims:  # the one that gives the copy is a follower
                node.pause()
            victims[0].kill()
            victims[1].resume()
            out, err = p.communicate(timeout=60 * PATIENCE)
            expect_equal(p.returncode, 0, f"export ({out} {err})")
        check_copy(path)
        with contextlib.closing(sqlite3.connect(path)) as db:
            expect_equal(db.execute("SELECT count(*), sum(length(b)) FROM big").fetchone(),
                         (960, 960 * 100000), "rows")
        c.restart(victims[0])
        c.wait_equal()


@case(seconds=60)
def test_export_to_a_full_disk_and_with_no_nodes_leaves_nothing():
    with tempfile.TemporaryDirectory() as d, Cluster() as c:
        big(c, 8)
        path = os.path.join(d, "copy.db")
        # A limit of the file's size fails a write as a full disk does: in its middle.
        limited = ["sh", "-c", 'ulimit -f 4096; trap "" XFSZ; exec "$@"', "sh", LECTERN, "export",
                   "--connect", addresses(c), path]
        done = subprocess.run(limited, capture_output=True, text=True, check=False,
                              timeout=60 * PATIENCE)
        expect_equal(done.returncode, 1, "exit status")
        expect("cannot write" in done.stderr, done.stderr)
        expect_equal(os.listdir(d), [], "what is left")
        for node in c.nodes:
            node.pause()
        status, _, err = lectern("export", "--connect", addresses(c), "--timeout", "3000", path)
        for node in c.nodes:
            node.resume()
        expect(status == 1 and err.startswith("Error: "), f"{status} {err}")
        expect_equal(os.listdir(d), [], "what is left")
        c.wait_serving()


@case(seconds=60)
def test_dump_is_what_sqlite3_reads():
    text = chinook.sql()
    with tempfile.TemporaryDirectory() as d, Cluster() as c:
        expect_equal(shell(c, text)[0], 0, "shell")
        path = os.path.join(d, "dump.sql")
        status, out, err = lectern("dump", "--connect", addresses(c), path)
        expect_equal((status, out, complaints(err)), (0, "", ""), "dump")
        status, out, _ = lectern("dump", "--connect", addresses(c))
        with open(path, encoding="utf-8") as f:
            dumped = f.read()
        expect(status == 0 and out == dumped, "the file differs from standard output")
        expect(chinook.expected(dumped) == chinook.expected(text), "the dump holds something else")
        status, _, err = lectern("dump", "--connect", addresses(c), path)
        expect(status == 1 and "File exists" in err, f"{status} {err}")


@case(seconds=60)
def test_dump_knows_no_limits_of_a_transaction():
    """A table of more than answer-bytes, for longer than a transaction may be open or idle."""
    limits = {"answer_bytes": "1MiB", "transaction_timeout": 200, "transaction_idle_timeout": 100}
    with Cluster(**limits) as c:
        big(c, 16)
        words = [LECTERN, "dump", "--connect", addresses(c)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as p:
            lines = [p.stdout.readline()]
            began = time.monotonic()
            wait_for(lambda: time.monotonic() > began + 1, "a slow reader's second")
            lines += p.stdout.readlines()
        expect_equal(p.returncode, 0, "dump")
        expect_equal(lines[-1], "COMMIT;\n", "last line")
        with contextlib.closing(sqlite3.connect(":memory:")) as db:
            db.executescript("".join(lines))
            expect_equal(db.execute("SELECT a, b FROM big").fetchall(),
                         c.nodes[0].read("SELECT a, b FROM big"), "rows")
