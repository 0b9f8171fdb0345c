"""Clusters of real lecternd processes, for the tests, the local cluster and the demo.

    with Cluster(3) as c:
        c.client().query("CREATE TABLE t(a)")
        c.leader().kill()
        c.wait_serving()
        c.check_equal()

Every wait has a deadline and a sentence of what it waits for. A node that ends without being told
to, or whose log shows a failed check or a sanitizer's report, makes the test fail. Ports are free
ones, data lies in a temporary directory that is removed; a failed test shows the nodes' logs.
"""

import contextlib
import ctypes
import functools
import hashlib
import http.client
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time

from tests.lib.lectern_client import BadFrame, Client, ConnectionLost, LecternError

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("LECTERN_BUILD", "build/release"))
SANITIZED = os.path.basename(BUILD).endswith(("asan", "tsan"))
# Sanitized servers on a loaded machine of two cores: the same deadlines, stretched.
PATIENCE = 4 if SANITIZED else 1
# Of deadlines behind which something hangs: only a failure takes that long, they may be far away.
HANG = 3 * PATIENCE
# Short, so that tests are; long enough that a busy machine elects nobody by accident.
SETTINGS = {"election-timeout": 1500 if SANITIZED else 500, "heartbeat": 150 if SANITIZED else 50}
# Of tests with long moments in which an election by accident would be in the way: they begin 2 s
# later. Not of tests of elections.
STEADY = {"election_timeout": 2000 * PATIENCE}
BAD_LOG = re.compile(r"check failed|Sanitizer|runtime error:")
PR_SET_PDEATHSIG = 1
LOG_LINES_SHOWN = 60


class Failure(AssertionError):
    """A test's finding."""


def case(**marks):
    """Marks a test: short (also for the slow builds), seconds (time limit), weight (processors)."""
    def mark(function):
        function.marks = marks
        return function
    return mark


def expect(condition, text):
    if not condition:
        raise Failure(text() if callable(text) else text)


def expect_equal(found, wanted, what):
    expect(found == wanted, f"{what}: found {found!r}, wanted {wanted!r}")


def expect_error(name, action, sqlite_code=None, says=None):
    """Runs ACTION, which must fail with that error; returns it."""
    try:
        result = action()
    except LecternError as e:
        expect_equal(e.name, name, f"error ({e.message})")
        if sqlite_code is not None:
            expect_equal(e.sqlite_code, sqlite_code, f"extended code ({e.message})")
        if says is not None:
            expect(re.search(says, e.message), f"{e.message!r} does not say {says!r}")
        return e
    raise Failure(f"wanted the error {name}, got {result!r}")


def wait_for(condition, what, seconds=20.0):
    """Polls until CONDITION is true and returns its value."""
    end = time.monotonic() + seconds * HANG
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure(f"not within {seconds * HANG:.0f} s: {what}")
        time.sleep(0.01)


# --- ports ----------------------------------------------------------------------------------------

_port_locks = []


def claim_port(port):
    """Whether nobody listens on PORT; then it is ours until this process ends.

    An abstract socket of its name keeps off it the others who ask here, before anybody listens.
    """
    lock = socket.socket(socket.AF_UNIX)
    with contextlib.closing(socket.socket()) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            lock.bind(f"\0lectern-test-port-{port}")
            s.bind(("127.0.0.1", port))
        except OSError:
            lock.close()
            return False
    _port_locks.append(lock)
    return True


def free_port():
    """A claimed port, below the range that the kernel gives to outgoing connections: a node that is
    down for a while finds its port free again."""
    for attempt in range(10000):
        port = 10000 + (os.getpid() * 37 + attempt) % 20000
        if claim_port(port):
            return port
    raise Failure("no free port between 10000 and 30000")


# --- one node -------------------------------------------------------------------------------------

_libc = ctypes.CDLL(None)


class Node:
    """One lecternd: its data directory, its log file, its process (while it runs)."""

    def __init__(self, number, directory, log, port, peer_port, build=BUILD):
        self.id, self.dir, self.log, self.build = number, directory, log, build
        self.port, self.peer_port = port, peer_port
        self.http_port = None
        self.process = None
        self.should_run = False

    def __repr__(self):
        return f"node {self.id}"

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def database(self):
        return os.path.join(self.dir, "main.db")

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def command(self, cluster, settings):
        flags = [f"--{name}={value}" for name, value in settings.items()]
        if self.http_port is not None:
            flags.append(f"--http-listen=127.0.0.1:{self.http_port}")
        return [os.path.join(self.build, "lecternd"), "--id", str(self.id), "--data", self.dir,
                "--listen", self.address, "--peer-listen", f"127.0.0.1:{self.peer_port}",
                "--cluster", cluster, *flags]

    def start(self, cluster, settings):
        expect(not self.running, f"{self} runs already")

        def die_with_parent():
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(  # pylint: disable=subprocess-popen-preexec-fn
                self.command(cluster, settings), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=die_with_parent)
        self.should_run = True

    def kill(self):
        """kill -9: nothing is flushed, no goodbye."""
        self.should_run = False
        self.process.kill()
        self.process.wait()

    def terminate(self):
        """Asks for a clean end; wait_end() waits for it."""
        self.should_run = False
        if self.running:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()

    def wait_end(self, seconds=20):
        """The exit status, after kill -9 if it did not end by itself."""
        try:
            return self.process.wait(seconds * HANG)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"{self} did not end within {seconds * HANG} s of SIGTERM") from None

    def wait_end_by_itself(self, seconds=20):
        """The exit status of a node that must give up by itself."""
        try:
            return self.process.wait(seconds * HANG)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self} still runs after {seconds * HANG} s") from None

    def stop(self):
        self.terminate()
        status = self.wait_end()
        expect_equal(status, 0, f"exit status of {self} after SIGTERM")

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def client(self, **options):
        options.setdefault("socket_timeout", 30.0 * HANG)
        return Client("127.0.0.1", self.port, **options)

    def status(self, timeout=2.0):
        """This node's own row of STATUS, or None when it does not answer."""
        try:
            with self.client(socket_timeout=timeout * PATIENCE) as c:
                return next((r for r in c.status() if r["node"] == self.id), None)
        except (ConnectionLost, LecternError, BadFrame):
            return None

    def row(self):
        """As status(), of a node that must answer."""
        return wait_for(self.status, f"the status of {self}")

    def read(self, sql, *params):
        """Runs SQL on this node's file with a stock SQLite of this process, read only."""
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True,
                                                timeout=10)) as db:
            return db.execute(sql, params).fetchall()

    def image(self):
        """Every page of the database as a stock SQLite sees it (file and WAL together)."""
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True,
                                                timeout=10)) as db:
            return db.serialize()

    def log_text(self):
        try:
            with open(self.log, encoding="utf-8", errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""


# --- a cluster ------------------------------------------------------------------------------------


class Cluster:
    node_class = Node  # of a cluster whose nodes are started, or reached, in another way

    def __init__(self, n=3, start=True, build=BUILD, directory=None, http=False, **settings):
        self.settings = {**SETTINGS, **{k.replace("_", "-"): v for k, v in settings.items()}}
        self.own_dir = directory is None
        self.dir = directory or tempfile.mkdtemp(prefix="lectern-")
        self.nodes = []
        for i in range(1, n + 1):
            data = os.path.join(self.dir, f"node{i}")
            os.makedirs(data, exist_ok=True)
            self.nodes.append(
                self.node_class(i, data, data + ".log", free_port(), free_port(), build))
            if http:
                self.nodes[-1].http_port = free_port()
        self.members = ",".join(f"{x.id}=127.0.0.1:{x.peer_port}" for x in self.nodes)
        if start:
            try:
                self.start()
            except BaseException:  # nobody will call __exit__
                self.show_logs()
                self.remove()
                raise

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _trace):
        try:
            if kind is None:
                self.stop()
                self.check_logs()
        except BaseException:
            self.show_logs()
            raise
        finally:
            if kind is not None:
                self.show_logs()
            self.remove()

    def remove(self):
        for node in self.nodes:
            if node.running:
                node.kill()
        if self.own_dir:
            shutil.rmtree(self.dir, ignore_errors=True)

    # Starting and stopping.

    def node(self, number):
        return self.nodes[number - 1]

    def others(self, node):
        return [x for x in self.nodes if x is not node]

    def start(self, serving=True):
        for node in self.nodes:
            if not node.running:
                node.start(self.members, self.settings)
        if serving:
            self.wait_serving()

    def restart(self, node, **settings):
        node.start(self.members, {**self.settings, **settings})

    def stop(self):
        """A clean end of all: each must exit with 0."""
        running = [x for x in self.nodes if x.running]
        self.check_alive()
        for node in running:
            node.terminate()
        bad = {str(x): x.wait_end() for x in running}
        bad = {k: v for k, v in bad.items() if v != 0}
        expect(not bad, f"exit status after SIGTERM: {bad}")

    def check_alive(self):
        for node in self.nodes:
            if node.should_run and not node.running:
                raise Failure(f"{node} ended by itself with status {node.process.returncode}")

    def check_logs(self):
        for node in self.nodes:
            found = BAD_LOG.search(node.log_text())
            expect(found is None, lambda n=node, f=found: f"{n}'s log says {f.group(0)!r}")

    def show_logs(self):
        for node in self.nodes:
            lines = node.log_text().splitlines()
            bad = next((i for i, l in enumerate(lines) if BAD_LOG.search(l)), None)
            print(f"--- log of {node}: {len(lines)} lines", file=sys.stderr)
            if bad is not None:
                print("\n".join(lines[max(0, bad - 10):bad + 60]), file=sys.stderr)
                print("...", file=sys.stderr)
            print("\n".join(lines[-LOG_LINES_SHOWN:]), file=sys.stderr)

    # Looking at it.

    def wait(self, condition, what, seconds=20.0):
        """As wait_for, and fails at once when a node ends by itself."""
        def checked():
            self.check_alive()
            return condition()
        return wait_for(checked, what, seconds)

    def leader_now(self):
        """The node that says of itself that it leads and serves, in the newest term, or None."""
        rows = [(x, x.status()) for x in self.nodes if x.running]
        leaders = [(s["term"], x) for x, s in rows if s and s["role"] == "leader"]
        return max(leaders, key=lambda pair: pair[0])[1] if leaders else None

    def leader(self, seconds=20.0):
        return self.wait(self.leader_now, "a leader", seconds)

    def wait_serving(self, seconds=30.0):
        """Waits until a read that must go through a majority answers on every running node, and
        those with an HTTP port say that they are ready."""
        def serves(node):
            try:
                with node.client(socket_timeout=5.0 * PATIENCE) as c:
                    c.query("SELECT 1", level="strong", timeout_ms=3000 * PATIENCE)
                return True
            except (ConnectionLost, LecternError):
                return False

        def is_ready(node):
            door = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=5 * PATIENCE)
            try:
                door.request("GET", "/readyz")
                return door.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False
            finally:
                door.close()
        for node in self.nodes:
            if node.should_run:
                self.wait(functools.partial(serves, node), f"{node} serves", seconds)
                if node.http_port is not None:
                    self.wait(functools.partial(is_ready, node), f"{node} is ready", seconds)

    def client(self, **options):
        """A connection to the leader."""
        return self.leader().client(**options)

    def addresses(self):
        return ",".join(x.address for x in self.nodes)

    def wait_equal(self, seconds=30.0):
        """Waits until all running nodes are at one position with one checksum; returns it."""
        nodes = [x for x in self.nodes if x.should_run]

        def position():
            rows = [x.status() for x in nodes]
            if any(r is None or r["seq"] is None or r["checksum"] is None for r in rows):
                return None
            first = (rows[0]["seq"], rows[0]["checksum"])
            for r in rows:
                if r["seq"] == first[0] and r["checksum"] != first[1]:
                    raise Failure(f"the same sequence {first[0]} with other checksums: {rows}")
            return first if all((r["seq"], r["checksum"]) == first for r in rows) else None
        return self.wait(position, f"{nodes} at one position: "
                         f"{[x.status() for x in nodes]}", seconds)

    def check_equal(self, seconds=30.0):
        """All nodes: one position, one content page by page, intact by SQLite's own check."""
        nodes = [x for x in self.nodes if x.should_run]
        for _ in range(10):
            position = self.wait_equal(seconds)
            images = {x.id: hashlib.sha256(x.image()).hexdigest() for x in nodes}
            if self.wait_equal(seconds) == position:
                break  # else something was written meanwhile, by a client that is gone
        expect(len(set(images.values())) == 1, f"pages differ between nodes: {images}")
        for node in nodes:
            expect_equal(node.read("PRAGMA integrity_check"), [("ok",)], f"check of {node}")
            expect_equal(node.read("PRAGMA foreign_key_check"), [], f"foreign keys of {node}")
        return position


def shell(cluster_or_addresses, sql, *flags, seconds=60, build=BUILD):
    """Runs the SQL shell with SQL on standard input; (status, stdout, stderr)."""
    addresses = getattr(cluster_or_addresses, "addresses", lambda: cluster_or_addresses)()
    done = subprocess.run([os.path.join(build, "lectern"), *flags, addresses], input=sql,
                          capture_output=True, text=True, timeout=seconds * HANG, check=False)
    return done.returncode, done.stdout, done.stderr
