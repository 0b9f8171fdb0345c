"""A node's files are ordinary SQLite files: others read them, nobody else writes them, and damage
is found and never spread."""

import os
import re
import subprocess
import sys
import threading
import time

from tests.lib.cluster import HANG, PATIENCE, STEADY, Cluster, case, expect, expect_equal, wait_for
from tests.lib.lectern_client import ConnectionLost, LecternError
from tests.lib.load import TABLE, Writers

# A foreign process that reads until its input ends. Money moves from one table to the other, one
# transaction a time: any other sum than the first was half a transaction. Rows only ever grow.
# It says when it has read often enough.
READER = r"""
import select, sqlite3, sys
db = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, timeout=10, isolation_level=None)
reads = last = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    db.execute("BEGIN")
    a = db.execute("SELECT sum(money), count(*) FROM a").fetchone()
    b = db.execute("SELECT sum(money), count(*) FROM b").fetchone()
    log = db.execute("SELECT count(*), coalesce(max(id), 0) FROM moves").fetchone()
    db.execute("COMMIT")
    if a[0] + b[0] != 1000000 or log[0] != log[1] or log[0] < last:
        sys.exit(f"half a transaction: {a} {b} {log} after {last}")
    last = log[0]
    reads += 1
    if reads == 20:
        print("enough", flush=True)
    if reads % 50 == 0 and db.execute("PRAGMA quick_check").fetchone() != ("ok",):
        sys.exit("quick_check")
print(reads, last)
"""


def move(client, i):
    client.query("BEGIN")
    client.query("UPDATE a SET money = money - 1 WHERE id = ?", (i % 100 + 1,))
    client.query("UPDATE b SET money = money + 1 WHERE id = ?", (i * 7 % 100 + 1,))
    client.query("INSERT INTO moves(note) VALUES (?)", ("x" * (i % 3000),))
    client.query("COMMIT")


@case(short=True, seconds=90)
def test_a_stock_reader_on_every_node_sees_only_whole_transactions():
    # A small WAL: checkpoints and restarts of it happen all the time under the readers.
    with Cluster(**STEADY, wal_checkpoint="128KiB", wal_restart="512KiB") as c:
        with c.client() as q:
            for table in ("a", "b"):
                q.query(f"CREATE TABLE {table}(id INTEGER PRIMARY KEY, money INT)")
                q.query(f"INSERT INTO {table} WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT "
                        "i + 1 FROM n LIMIT 100) SELECT i, 5000 FROM n")
            q.query("CREATE TABLE moves(id INTEGER PRIMARY KEY, note)")
            c.wait_equal()
            readers = [subprocess.Popen([sys.executable, "-c", READER, n.database],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True) for n in c.nodes]
            try:
                end, i = time.monotonic() + 6, 0
                enough = [threading.Thread(target=r.stdout.readline, daemon=True) for r in readers]
                for each in enough:
                    each.start()
                while time.monotonic() < end or any(each.is_alive() for each in enough):
                    move(q, i)
                    i += 1
                c.wait_equal()
                for node, r in zip(c.nodes, readers):
                    out, err = r.communicate("end\n", timeout=30 * HANG)
                    expect(r.returncode == 0, f"the reader of {node}: {err}")
                    expect(int(out.split()[0]) >= 20, f"the reader of {node} said {out}")
            finally:
                for r in readers:
                    r.kill()
                    r.wait()
        c.check_equal()


@case()
def test_a_foreign_writer_gets_database_is_locked():
    with Cluster() as c, c.client() as q:
        q.query("CREATE TABLE t(a)")
        c.wait_equal()
        for node in c.nodes:
            for sql in ("INSERT INTO t VALUES (1)", "PRAGMA wal_checkpoint(TRUNCATE)",
                        "PRAGMA journal_mode = DELETE"):
                done = subprocess.run(["sqlite3", node.database, sql], capture_output=True,
                                      text=True, check=False, timeout=30)
                said = done.stdout + done.stderr
                expect("locked" in said or said.startswith("1|"), f"{node}: {sql}: {said!r}")
        q.query("INSERT INTO t VALUES (2)")
        c.check_equal()
        expect_equal(c.node(1).read("SELECT a FROM t"), [(2,)], "rows")


@case()
def test_a_stock_program_may_tidy_a_stopped_nodes_wal():
    """Opening and closing with stock SQLite checkpoints and removes the WAL. The node must find its
    position again all the same."""
    with Cluster() as c:
        with c.client() as q:
            q.query(TABLE)
        with Writers(c.nodes, 2) as w:
            c.wait(lambda: w.acknowledged > 200, "some writes")
            w.stop()
        seq, checksum = c.wait_equal()
        for how in ("stop", "kill"):
            for node in c.nodes:
                getattr(node, how)()
            for node in c.nodes:
                done = subprocess.run(["sqlite3", node.database, "SELECT count(*) FROM numbered;"
                                       " PRAGMA wal_checkpoint(TRUNCATE)"], capture_output=True,
                                      text=True, check=False, timeout=30)
                expect_equal(done.returncode, 0, f"sqlite3 on a stopped node: {done.stderr}")
                expect(not os.path.exists(node.database + "-wal")
                       or os.path.getsize(node.database + "-wal") == 0, "the WAL is still there")
            c.start()
            expect_equal(c.wait_equal(), (seq, checksum), f"position after {how}")
        with c.client() as q:
            q.query("INSERT INTO numbered(writer, number) VALUES (99, 1)")
        c.check_equal()
        expect(c.wait_equal()[0] == seq + 1, "the next transaction's number")


def pages_in_wal(database, page_size=4096):
    """The page numbers of the frames in the WAL: readers take those pages from there."""
    with open(database + "-wal", "rb") as f:
        wal = f.read()
    pages, frame = set(), 24 + page_size
    for at in range(32, len(wal) - frame + 1, frame):
        if wal[at + 8:at + 16] != wal[16:24]:
            break  # what is left of an earlier WAL
        pages.add(int.from_bytes(wal[at:at + 4], "big"))
    return pages


def flip(path, offset):
    """One bit, as a disk would do it."""
    with open(path, "r+b") as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([byte ^ 4]))


def page_in_file(node):
    """A page of the middle that readers take from main.db, or None."""
    pages = os.path.getsize(node.database) // 4096
    taken = pages_in_wal(node.database)
    return next((p for p in range(max(2, pages // 2), pages) if p not in taken), None)


def fill(c, node):
    """A database so large that the WAL was begun again, and NODE has pages in main.db alone."""
    with c.client() as q:
        q.query("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT)")

        def more():
            for _ in range(20):
                q.query("INSERT INTO t(a) VALUES (hex(randomblob(1000)))")
            return page_in_file(node)
        c.wait(more, f"{node} begins its WAL again")
    c.wait_equal()


def refuses_to_serve(victim):
    """The node ended by itself, or answers reads with an error that says why."""
    if not victim.running:
        victim.should_run = False
        return True
    try:
        with victim.client(socket_timeout=5) as q:
            q.query("SELECT sum(length(a)) FROM t", level="any", timeout_ms=1000)
        return False
    except LecternError as e:
        return e.name in ("CORRUPT", "DIVERGED", "STOPPED")
    except ConnectionLost:
        return False


@case()
def test_a_bit_flipped_while_the_node_is_stopped_keeps_it_from_serving():
    small = {"wal_checkpoint": "256KiB", "wal_restart": "512KiB", "repair": 0}
    for how in ("stop", "kill"):
        with Cluster(**small) as c:
            victim = c.others(c.leader())[0]
            fill(c, victim)
            getattr(victim, how)()
            page = page_in_file(victim)
            flip(victim.database, (page - 1) * 4096 + 2000)
            victim.start(c.members, c.settings)
            victim.should_run = False
            wait_for(lambda: refuses_to_serve(victim), f"the node refuses to serve after {how}")
            named = re.findall(r"damage.*\bpage (\d+)\b", victim.log_text())
            expect_equal(set(named), {str(page)}, "the damaged page")
            with c.client() as q:  # and the others go on
                q.query("INSERT INTO t(a) VALUES ('after')")
            if victim.running:
                victim.kill()
            c.check_equal()
            # The advice that it gives: the log builds the database again.
            for name in ("main.db", "main.db-wal", "main.db-shm", "position"):
                path = os.path.join(os.path.dirname(victim.database), name)
                if os.path.exists(path):
                    os.remove(path)
            victim.start(c.members, c.settings)
            victim.should_run = True
            c.wait_equal()
            c.check_equal()


@case()
def test_a_bit_flipped_under_a_running_node_is_found_and_named():
    with Cluster(wal_checkpoint="256KiB", wal_restart="512KiB", repair=0) as c:
        victim = c.others(c.leader())[0]
        fill(c, victim)
        page = page_in_file(victim)
        flip(victim.database, (page - 1) * 4096 + 2000)
        victim.should_run = False  # it may end
        wait_for(lambda: refuses_to_serve(victim), "the node notices while it is idle", 60)
        expect(re.search(rf"page[ =]{page}\b", victim.log_text()),
               f"the log does not name page {page}: {victim.log_text()[-500:]}")
        with c.client() as q:
            q.query("INSERT INTO t(a) VALUES ('after')")
        if victim.running:
            victim.kill()
        c.check_equal()


@case()
def test_a_damaged_log_is_named_and_the_node_does_not_start():
    with Cluster() as c:
        with c.client() as q:
            q.query("CREATE TABLE t(a)")
            for i in range(50):
                q.query("INSERT INTO t VALUES (?)", (i,))
        c.wait_equal()
        victim = c.others(c.leader())[0]
        victim.kill()
        raft = os.path.join(victim.dir, "raft")
        biggest = max((os.path.join(raft, f) for f in os.listdir(raft)), key=written_bytes)
        with open(biggest, "r+b") as f:
            f.seek(written_bytes(biggest) // 3)  # far from the torn end that a crash may leave
            byte = f.read(1)[0]
            f.seek(-1, os.SEEK_CUR)
            f.write(bytes([byte ^ 1]))
        victim.start(c.members, c.settings)
        victim.should_run = False
        status = victim.wait_end_by_itself()
        expect(status != 0, "exit 0 with a damaged log")
        last_words = victim.log_text().splitlines()[-1]
        expect(os.path.basename(biggest) in last_words and "offset" in last_words,
               f"does not say what is damaged: {last_words}")
        with c.client() as q:
            q.query("INSERT INTO t VALUES (1000)")


def written_bytes(path):
    """Up to the last byte that is not zero: segments may be allocated ahead."""
    with open(path, "rb") as f:
        return len(f.read().rstrip(b"\0"))


@case()
def test_two_nodes_cannot_share_a_directory():
    with Cluster() as c:
        node = c.node(2)
        twin = subprocess.run(node.command(c.members, {**c.settings, "listen": "127.0.0.1:1"}),
                              capture_output=True, text=True, check=False, timeout=20 * PATIENCE)
        expect(twin.returncode != 0, "a second process started on the same directory")
        expect(re.search("lock|in use|another process", twin.stderr), twin.stderr[-500:])
        with c.client() as q:
            q.query("CREATE TABLE t(a)")
        c.check_equal()


@case()
def test_a_node_of_another_cluster_is_refused():
    with Cluster() as c, c.client() as q:
        q.query("CREATE TABLE t(a)")
        c.wait_equal()
        stranger = c.others(c.leader())[0]
        stranger.stop()
        stranger.start(c.members, {**c.settings, "cluster-id": 77})
        stranger.should_run = False
        status = stranger.wait_end_by_itself()
        expect(status != 0, "a node started with another cluster's number on its directory")
        expect(re.search("belongs to|of cluster 1", stranger.log_text().splitlines()[-1]),
               stranger.log_text()[-500:])
        c.restart(stranger)
        c.wait_serving()
        q.query("INSERT INTO t VALUES (1)")
        c.check_equal()
