"""`lectern load` against the machine's worst days, and the comparison afterwards.

source() makes a database of tables of every kind; Loading is a running `lectern load`; contents()
is what a file holds, table by table, as a number of rows and a hash of all of them in order.
"""

import contextlib
import hashlib
import os
import sqlite3
import subprocess

from tests.lib.cluster import BUILD, HANG, Failure, expect, wait_for

LECTERN = os.path.join(BUILD, "lectern")

# Without keys that would refuse a row done twice, where that is possible.
TABLES = {
    "keyed": "CREATE TABLE keyed(id INTEGER PRIMARY KEY, body BLOB, note TEXT)",
    "heap": "CREATE TABLE heap(a, b TEXT)",
    "counted": "CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, v REAL, body TEXT)",
    "words": "CREATE TABLE words(w TEXT PRIMARY KEY, n INT) WITHOUT ROWID",
}
LATER = """
CREATE INDEX heap_a ON heap(a);
CREATE INDEX keyed_note ON keyed(note);
CREATE TRIGGER heap_grows AFTER INSERT ON heap BEGIN INSERT INTO counted(v) VALUES(1.5); END;
CREATE VIEW sums AS SELECT a, count(*) FROM heap GROUP BY a;
"""
ORDERED = {"words": "SELECT * FROM words ORDER BY w"}
N = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) "


def source(path, megabytes):
    """A database of about so many megabytes, in four tables."""
    kb = megabytes * 1000
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
                         + ";".join(TABLES.values()))
        db.execute(N.format(kb // 4) + "INSERT INTO keyed SELECT i, randomblob(1000), 'note ' || "
                   "(i % 1000) FROM n")
        db.execute(N.format(kb // 4) + "INSERT INTO heap SELECT i % 7, printf('%.*c', 1000, 'h') "
                   "FROM n")
        db.execute(N.format(kb // 4) + "INSERT INTO counted(v, body) SELECT i / 3.0, "
                   "hex(randomblob(500)) FROM n")
        db.execute(N.format(kb // 4) + "INSERT INTO words SELECT 'word ' || i || "
                   "hex(zeroblob(450)), i FROM n")
        db.commit()
        db.executescript(LATER)
    return path


def as_sql(database, path, transaction):
    """DATABASE as a file of SQL, as sqlite3's .dump writes it; TRANSACTION: with its BEGIN."""
    with contextlib.closing(sqlite3.connect(database)) as db, \
            open(path, "w", encoding="utf-8") as f:
        for line in db.iterdump():
            if transaction or line not in ("BEGIN TRANSACTION;", "COMMIT;"):
                f.write(line + "\n")
    return path


def contents(path):
    """{table: (rows, hash)}, and the schema's."""
    found = {}
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        schema = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT "
                            "LIKE 'sqlite_%' ORDER BY 1, 2").fetchall()
        found["sqlite_schema"] = (len(schema), repr(schema))
        for table in [name for kind, name, _, _ in schema if kind == "table"]:
            found[table] = digest(db, table, -1)
    return found


def digest(db, table, limit):
    """Number and hash of the table's first rows, in their order; LIMIT -1: of all."""
    sql = ORDERED.get(table, f"SELECT rowid, * FROM {table} ORDER BY rowid")
    rows, h = 0, hashlib.sha256()
    for row in db.execute(f"{sql} LIMIT {limit}"):
        h.update(repr(row).encode())
        rows += 1
    return rows, h.hexdigest()


def check_beginning(database, source_path):
    """Every table there is holds the first rows of the source's, each once; how many in all."""
    rows = 0
    for table, (count, h) in contents(database).items():
        if table != "sqlite_schema":
            with contextlib.closing(sqlite3.connect(source_path)) as db:
                expect(digest(db, table, count) == (count, h),
                       f"{database}: {table} is not the first {count} rows of the source")
            rows += count
    return rows


class Loading:
    """A `lectern load` that runs."""

    def __init__(self, cluster, *words):
        self.errors = os.path.join(cluster.dir, "load.err")
        self.cluster = cluster
        with open(self.errors, "wb") as err:
            self.process = subprocess.Popen(
                [LECTERN, "load", "--connect", cluster.addresses(), *words],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        if self.running:
            self.kill()
        self.process.stdout.close()

    @property
    def running(self):
        return self.process.poll() is None

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def more(self, batches, nodes=None, seconds=60.0):
        """Until NODES (those that run) have so many more, or the load has ended."""
        nodes = nodes or [n for n in self.cluster.nodes if n.running]

        def newest():
            return max((r["seq"] or 0 for r in (n.status() for n in nodes) if r), default=0)
        goal = newest() + batches
        wait_for(lambda: not self.running or newest() >= goal,
                 f"{batches} more batches of the load ({self.said()})", seconds)

    def reads(self, n, seconds=60.0):
        """Until it has read N more bytes (of its file), or has ended.

        The one thing that can be seen from outside while a transaction is open. What it read more
        than a piece of 64 kB and a batch ago is answered.
        """
        goal = self._read_so_far() + n
        wait_for(lambda: not self.running or self._read_so_far() >= goal,
                 f"the load reads {n} more bytes ({self.said()})", seconds)

    def _read_so_far(self):
        try:
            with open(f"/proc/{self.process.pid}/io", encoding="ascii") as f:
                return int(f.readline().split()[1])  # rchar
        except (OSError, IndexError):
            return 0

    def end(self, seconds=300.0):
        """(exit status, standard output, standard error)."""
        try:
            out, _ = self.process.communicate(timeout=seconds * HANG)
        except subprocess.TimeoutExpired:
            raise Failure(f"the load hangs: {self.said()}") from None
        return self.process.returncode, out, self.said()

    def said(self):
        with open(self.errors, encoding="utf-8", errors="replace") as f:
            lines = f.read().splitlines(True)
        return "".join(x for x in lines if x.startswith(("Error", "Warning", "Nothing", "Loaded",
                                                         "Done", "No row", "All of")))
