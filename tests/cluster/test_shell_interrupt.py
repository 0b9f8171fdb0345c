"""Ctrl-C: whatever the program `lectern` does, it ends at once, says so, exits with 130, and leaves
no half of a file that looks whole."""

import contextlib
import os
import pty
import signal
import subprocess
import tempfile
import threading
import time

from tests.cluster.test_shell_load import complaints
from tests.lib.cluster import BUILD, PATIENCE, Cluster, case, expect, expect_equal, wait_for

LECTERN = os.path.join(BUILD, "lectern")
ENDLESS = ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n "
           "WHERE i < 0")
AT_ONCE = 5.0  # seconds; a request that its node does not answer is given up after a half


class Running:
    """The program, its output in a file or taken by us."""

    def __init__(self, *words, out=subprocess.PIPE, stdin=subprocess.DEVNULL):
        self.process = subprocess.Popen([LECTERN, *words], stdin=stdin, stdout=out,
                                        stderr=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def wait(self, condition, what):
        wait_for(lambda: condition() or self.process.poll() is not None, what)
        expect(self.process.poll() is None, lambda: f"it ended by itself: {self.process.stderr}")

    def wait_for_connection(self, nodes):
        """Until it is connected to one of NODES."""
        def connected():
            inodes = sockets_of(self.process.pid)
            ports = {f"{n.port:04X}" for n in nodes}
            with open("/proc/net/tcp", encoding="ascii") as f:
                rows = [line.split() for line in f.readlines()[1:]]
            return any(r[2].split(":")[1] in ports and r[3] == "01" and r[9] in inodes
                       for r in rows)
        self.wait(connected, "a connection")

    def wait_for_quiet(self):
        """Until it has done nothing for twenty looks: it waits for an answer."""
        seen = []

        def quiet():
            with open(f"/proc/{self.process.pid}/status", encoding="ascii") as f:
                seen.append([line for line in f if line.startswith("State:") or
                             "ctxt_switches" in line])
            return (len(seen) > 20 and "(sleeping)" in seen[-1][0]  # not: gets no processor
                    and all(x == seen[-1] for x in seen[-20:]))
        self.wait(quiet, "it waits")

    def interrupt(self, says="Error: interrupted\n"):
        """Ctrl-C; what it wrote to standard error."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=30 * PATIENCE)
        took = time.monotonic() - began
        expect_equal(self.process.returncode, 130, f"exit status ({out} {err})")
        expect(says in err, f"says {err!r}, not {says!r}")
        expect(took < AT_ONCE * PATIENCE, f"it ended after {took:.1f} s")
        return err


def sockets_of(pid):
    inodes = set()
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            link = os.readlink(f"/proc/{pid}/fd/{fd}")
            if link.startswith("socket:["):
                inodes.add(link[8:-1])
    return inodes


def ticks(node):
    with open(f"/proc/{node.process.pid}/stat", encoding="ascii") as f:
        words = f.read().rpartition(")")[2].split()
    return int(words[11]) + int(words[12])


def busy(nodes):
    """A condition: since now, some node has worked for a fifth of a second."""
    before = [ticks(n) for n in nodes]
    return lambda: any(ticks(n) > b + 20 for n, b in zip(nodes, before))


def big(cluster, megabytes):
    with cluster.client() as c:
        c.query("CREATE TABLE big(a INTEGER PRIMARY KEY, b BLOB)")
        for _ in range(megabytes // 8):
            c.query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 80) "
                    "INSERT INTO big(b) SELECT randomblob(100000) FROM n")
    cluster.wait_equal()


@contextlib.contextmanager
def paused(nodes):
    for node in nodes:
        node.pause()
    try:
        yield
    finally:
        for node in nodes:
            node.resume()


@contextlib.contextmanager
def writer_taken(cluster):
    """Somebody else's transaction holds the writer."""
    stop = threading.Event()
    with cluster.client() as q:
        q.query("BEGIN IMMEDIATE")
        q.query("CREATE TABLE taken(a)")

        def hold():
            while not stop.wait(0.5):
                q.query("SELECT 1")
        thread = threading.Thread(target=hold)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            q.query("ROLLBACK")


def larger_than(path, n):
    return lambda: os.path.exists(path) and os.path.getsize(path) > n


@case(short=True, seconds=60)
def test_ctrl_c_ends_statements():
    with tempfile.TemporaryDirectory() as d, Cluster() as c:
        with Running(c.addresses(), ENDLESS, "CREATE TABLE after(a)") as p:
            p.wait(busy(c.nodes), "the statement runs")
            p.interrupt()
        with open(f"{d}/script.sql", "w", encoding="utf-8") as f:
            f.write(f"{ENDLESS};\nCREATE TABLE after(a);\n")
        with open(f"{d}/script.sql", encoding="utf-8") as f, \
                Running(c.addresses(), stdin=f) as p:
            p.wait(busy(c.nodes), "the statement runs")
            p.interrupt("interrupted\n")
        with writer_taken(c):
            for sql in ("CREATE TABLE after(a)", "BEGIN IMMEDIATE"):
                with Running(c.addresses(), sql, "CREATE TABLE after(a)") as p:
                    p.wait_for_connection(c.nodes)
                    p.wait_for_quiet()
                    p.interrupt()
            with open(f"{d}/x.sql", "w", encoding="utf-8") as f:
                f.write("CREATE TABLE after(a);\n")
            with Running("load", "--connect", c.addresses(), f"{d}/x.sql") as p:
                p.wait_for_connection(c.nodes)
                p.wait_for_quiet()
                p.interrupt("Error: interrupted\nDone before: 0 statements.\n")
        c.wait_equal()
        expect_equal(c.nodes[0].read("SELECT name FROM sqlite_schema"), [], "what was done")


@case(seconds=60)
def test_ctrl_c_while_there_is_nobody():
    """No node answers: while it connects, and in the middle of a statement."""
    with tempfile.TemporaryDirectory() as d, Cluster() as c:
        with open(f"{d}/x.sql", "w", encoding="utf-8") as f:
            f.write("SELECT 1;\n")
        with paused(c.nodes):
            for words in (["load", "--connect", c.addresses(), f"{d}/x.sql"],
                          ["dump", "--connect", c.addresses(), f"{d}/d.sql"],
                          ["export", "--connect", c.addresses(), f"{d}/d.db"],
                          ["cluster", "--connect", c.addresses(), "list"],
                          [c.addresses(), "SELECT 1"]):
                with Running(*words) as p:
                    p.wait_for_connection(c.nodes)
                    p.interrupt()
        c.wait_serving()
        with paused(c.others(c.leader())), \
                Running("cluster", "--connect", c.addresses(), "add", "127.0.0.1:1") as p:
            p.wait_for_connection(c.nodes)
            p.wait_for_quiet()
            p.interrupt("interrupted")
        c.wait_serving()
        with Running(c.addresses(), ENDLESS) as p:
            p.wait(busy(c.nodes), "the statement runs")
            with paused(c.nodes):
                p.interrupt()
        expect_equal(os.listdir(d), ["x.sql"], "files left")
        c.wait_serving()


@case(seconds=60)
def test_ctrl_c_while_it_waits_for_its_input():
    with Cluster(n=1) as c:
        for words in (["load", "--connect", c.addresses(), "-"], [c.addresses()]):
            reader, writer = os.pipe()
            with open(writer, "wb", buffering=0) as out, Running(*words, stdin=reader) as p:
                os.close(reader)
                out.write(b"CREATE TABLE IF NOT EXISTS t(a);\nINSERT INTO t VALUES(")
                p.wait_for_connection(c.nodes)
                p.wait_for_quiet()
                p.interrupt("interrupted\n")


@case(seconds=90)
def test_ctrl_c_leaves_no_half_of_a_file():
    with tempfile.TemporaryDirectory() as d, Cluster() as c:
        big(c, 160)
        for command in ("export", "dump"):
            path = f"{d}/{command}"
            with Running(command, "--connect", c.addresses(), path) as p:
                p.wait(lambda at=path: any("dump" in x or "partial" in x for x in os.listdir(d)),
                       f"the {command} begins")
                p.interrupt("interrupted\n")
            expect_equal(os.listdir(d), [], f"left by {command}")
        # A dump that is written: its copy is there already, without a name.
        with Running("dump", "--connect", c.addresses(), f"{d}/x.sql") as p:
            p.wait(larger_than(f"{d}/x.sql.partial", 1 << 20), "text")
            expect_equal(os.listdir(d), ["x.sql.partial"], "files meanwhile")
            p.interrupt()
        expect_equal(os.listdir(d), [], "left by the dump")
        # To a pipe that nobody reads, and killed.
        with Running("dump", "--connect", c.addresses()) as p:
            expect_equal(p.process.stdout.readline(), "PRAGMA foreign_keys=OFF;\n", "first line")
            p.interrupt()
        with Running("dump", "--connect", c.addresses(), f"{d}/x.sql") as p:
            p.wait(larger_than(f"{d}/x.sql.partial", 1 << 20), "text")
            p.process.kill()
        done = subprocess.run([LECTERN, "dump", "--connect", c.addresses(), f"{d}/x.sql"],
                              capture_output=True, text=True, check=False, timeout=60 * PATIENCE)
        expect_equal((done.returncode, complaints(done.stderr)), (0, ""),
                     "the dump after a killed one")
        expect_equal(os.listdir(d), ["x.sql"], "files at the end")


@case(seconds=60)
def test_ctrl_c_at_a_terminal_during_a_load():
    """The key goes to the terminal; the bar goes, the sentence stands on a line of its own."""
    with tempfile.TemporaryDirectory() as d, Cluster() as c:
        with open(f"{d}/x.sql", "w", encoding="utf-8") as f:
            f.write(f"CREATE TABLE t(a);\n{ENDLESS};\n")
        pid, terminal = pty.fork()
        if pid == 0:
            os.execv(LECTERN, ["lectern", "load", "--connect", c.addresses(), f"{d}/x.sql"])
        c.wait(busy(c.nodes), "the statement runs")
        os.write(terminal, b"\x03")
        seen = b""
        with contextlib.suppress(OSError):  # EIO: the other side is gone
            while piece := os.read(terminal, 65536):
                seen += piece
        os.close(terminal)
        expect_equal(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 130, repr(seen))
        text = seen.decode().replace("\r\n", "\n")
        expect("Error: interrupted\nDone before: 1 statements.\n" in text, repr(text))
