"""The real thing: Chinook goes in through the shell and through `make run`, and stands on every
node as stock SQLite would have made it."""

import contextlib
import os
import pty
import select
import signal
import socket
import subprocess
import tempfile
import threading

from tests.lib import chinook
from tests.lib.cluster import (BUILD, PATIENCE, ROOT, Cluster, Failure, case, claim_port, expect,
                               expect_equal, shell, wait_for)


def check_tables(node, wanted):
    for table, rows in wanted.items():
        found = sorted(node.read(f"SELECT * FROM [{table}]"), key=repr)
        expect(found == rows, f"{node}: {table} differs: {len(found)} rows, wanted {len(rows)}")


def stock_count(database):
    """What the stock shell prints, as an operator would ask."""
    done = subprocess.run(["sqlite3", database, "SELECT count(*) FROM Track"], check=False,
                          capture_output=True, text=True, timeout=30 * PATIENCE)
    return done.stdout.strip() or done.stderr.strip()


@case(short=True, seconds=60)
def test_chinook_through_the_shell():
    text = chinook.sql()
    with Cluster() as c:
        status, out, err = shell(c, text)
        expect_equal((status, out), (0, ""), f"the shell's exit and output ({err})")
        c.check_equal()
        wanted = chinook.expected(text)
        for node in c.nodes:
            check_tables(node, wanted)
            expect_equal(stock_count(node.database), str(chinook.TRACKS), "while the node runs")
        c.stop()
        for node in c.nodes:
            expect_equal(stock_count(node.database), str(chinook.TRACKS), "after the node stopped")


@case(seconds=60)
def test_stock_sqlite_counts_on_a_follower_during_the_load():
    text = chinook.sql()
    with Cluster() as c:
        follower = c.others(c.leader())[0]
        seen, stop = set(), threading.Event()

        def count():
            while not stop.is_set():
                seen.add(stock_count(follower.database))
        reader = threading.Thread(target=count)
        reader.start()
        try:
            status, _, err = shell(c, text)
        finally:
            stop.set()
            reader.join()
        expect_equal(status, 0, f"the shell's exit ({err})")
        c.wait_equal()
        expect_equal(stock_count(follower.database), str(chinook.TRACKS), "after the load")
        # Before the table is there, one of these sentences; then whole statements of 1,000 rows.
        allowed = {"0", str(chinook.TRACKS)} | {str(n) for n in range(1000, chinook.TRACKS, 1000)}
        bad = {s for s in seen if s not in allowed and "no such table: Track" not in s}
        expect(not bad, f"a stock reader saw {bad}")


def run_local(directory, sql, *flags, seconds=90):
    done = subprocess.run([os.path.join(ROOT, "deploy/local-cluster"), "--build", BUILD, "--dir",
                           directory, *flags], input=sql, capture_output=True, text=True,
                          check=False, timeout=seconds * PATIENCE)
    return done.returncode, done.stdout, done.stderr


def own_base_port():
    """Ports that no other test, and no connection, takes while this process lives."""
    return next(p for p in range(30000, 32000, 500) if claim_port(p))


def no_node_runs(directory):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as f:
                if "lecternd" in (line := f.read()) and directory in line:
                    return False
        except OSError:
            pass
    return True


@case(seconds=120)
def test_make_run_loads_and_finds_again():
    with tempfile.TemporaryDirectory() as d:
        status, out, err = run_local(d, chinook.sql())
        expect_equal((status, out), (0, ""), f"first run ({err})")
        expect(no_node_runs(d), "a node runs after the end")
        for i in (1, 2, 3):
            expect_equal(stock_count(f"{d}/node{i}/main.db"), str(chinook.TRACKS), f"node {i}")
        status, out, err = run_local(d, "SELECT count(*) FROM Track;\n")
        expect_equal((status, out), (0, f"{chinook.TRACKS}\n"), f"second run ({err})")
        expect(no_node_runs(d), "a node runs after the end")


@case(seconds=90)
def test_two_clusters_beside_each_other():
    """The second one is told its ports, and keeps them."""
    base = own_base_port()
    command = [os.path.join(ROOT, "deploy/local-cluster"), "--build", BUILD]
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        with subprocess.Popen([*command, "--dir", one], stdin=subprocess.PIPE, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first:
            first.stdin.write("SELECT 'first';\n")
            first.stdin.flush()
            expect_equal(first.stdout.readline(), "first\n", "the first cluster")
            for flags in (["--base-port", str(base)], []):
                second = subprocess.run([*command, "--dir", two, *flags], text=True, check=False,
                                        input="SELECT 'second';\n", capture_output=True,
                                        timeout=90 * PATIENCE)
                expect_equal((second.returncode, second.stdout), (0, "second\n"), second.stderr)
                with open(f"{two}/cluster.env", encoding="utf-8") as f:
                    found = f.read()
                expect(all(f"CLIENT_PORT{i}={base + i}\n" in found and
                           f"PEER_PORT{i}={base + 100 + i}\n" in found and
                           f"HTTP_PORT{i}={base + 380 + i}\n" in found for i in (1, 2, 3)), found)
            first.stdin.write("SELECT 'still';\n")
            expect_equal(first.communicate(timeout=60 * PATIENCE)[0], "still\n", "the first one")
            expect_equal(first.returncode, 0, "exit status of the first")
    bad = subprocess.run([*command, "--base-port", "65153"], capture_output=True, text=True,
                         check=False, timeout=30 * PATIENCE)
    expect(bad.returncode == 2 and "1 to 65152" in bad.stderr, bad.stderr)


@case(seconds=90)
def test_make_run_fails_after_an_error():
    with tempfile.TemporaryDirectory() as d:
        status, out, err = run_local(d, "CREATE TABLE t(a);\nINSERT INTO t VALUES (1);\n"
                                        "SELECT nonesuch FROM t;\n")
        expect(status != 0, "exit 0 after an error")
        expect_equal(out, "", "standard output")
        expect("no such column: nonesuch" in err, f"standard error: {err}")
        expect(no_node_runs(d), "a node runs after the end")


@case(seconds=120)
def test_make_run_beside_a_running_one_and_after_a_killed_one():
    with tempfile.TemporaryDirectory() as d:
        command = [os.path.join(ROOT, "deploy/local-cluster"), "--build", BUILD, "--dir", d]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.DEVNULL) as first:
            try:
                first.stdin.write("CREATE TABLE t(a);\nINSERT INTO t VALUES (42);\n"
                                  "SELECT a FROM t;\n")
                first.stdin.flush()
                expect_equal(first.stdout.readline(), "42\n", "the first shell's answer")
                status, out, err = run_local(d, "SELECT a FROM t;\n")
                expect_equal((status, out), (0, "42\n"), f"a second shell beside it ({err})")
                expect("runs already" in err, f"says nothing of the running one: {err}")
                expect(not no_node_runs(d), "the second shell stopped the nodes of the first")
            finally:
                first.send_signal(signal.SIGKILL)
        status, out, err = run_local(d, "SELECT a FROM t;\n")
        expect_equal((status, out), (0, "42\n"), f"after a kill -9 of the first ({err})")
        expect(no_node_runs(d), "a node runs after the end")


@case(seconds=90)
def test_make_run_stops_its_nodes_when_it_is_told_to_end():
    with tempfile.TemporaryDirectory() as d:
        command = [os.path.join(ROOT, "deploy/local-cluster"), "--build", BUILD, "--dir", d]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.PIPE) as p:
            p.stdin.write("SELECT 1;\n")
            p.stdin.flush()
            expect_equal(p.stdout.readline(), "1\n", "the shell's answer")
            p.terminate()
            try:
                p.wait(30 * PATIENCE)
            except subprocess.TimeoutExpired:
                p.kill()
                raise Failure("does not end at SIGTERM") from None
        wait_for(lambda: no_node_runs(d), "all nodes are gone")


@case(seconds=90)
def test_make_run_takes_other_ports_when_its_own_are_taken():
    with tempfile.TemporaryDirectory() as d:
        status, out, err = run_local(d, "CREATE TABLE t(a);\nINSERT INTO t VALUES (42);\n",
                                     "--base-port", str(own_base_port()))
        expect_equal((status, out), (0, ""), f"first run ({err})")
        with open(os.path.join(d, "cluster.env"), encoding="utf-8") as f:
            ports = dict(line.strip().split("=") for line in f if "_PORT" in line)
        for kind, scheme in (("CLIENT_PORT2", ""), ("HTTP_PORT3", "http://")):
            where = f"{scheme}127.0.0.1:{ports[kind]}"
            expect(where in err, f"does not say that it serves at {where}: {err}")
        for kind in ("CLIENT_PORT2", "PEER_PORT3", "HTTP_PORT1"):
            with contextlib.closing(socket.socket()) as taken:
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                taken.bind(("127.0.0.1", int(ports[kind])))
                taken.listen()
                status, out, err = run_local(d, "SELECT a FROM t;\n")
            expect_equal((status, out), (0, "42\n"), f"with {kind} taken ({err})")
            expect(f"instead of {ports[kind]}" in err, f"says nothing of it: {err}")


@case(seconds=90)
def test_make_run_at_a_terminal_survives_ctrl_c():
    with tempfile.TemporaryDirectory() as d:
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ["TERM"] = "dumb"
            os.execv(os.path.join(ROOT, "deploy/local-cluster"),
                     ["local-cluster", "--build", BUILD, "--dir", d])
        seen = ""

        def shows(text):
            nonlocal seen
            while select.select([terminal], [], [], 0)[0]:
                try:
                    seen += os.read(terminal, 4096).decode(errors="replace")
                except OSError:  # the other side is gone
                    break
            return text in seen

        def ask(line, answer):
            nonlocal seen
            seen = ""
            os.write(terminal, line.encode())
            wait_for(lambda: shows(answer), f"{answer!r} after {line!r}: {seen!r}")
        try:
            wait_for(lambda: shows("lectern> "), "a prompt")
            ask("SELECT 40 + 2;\n", "42")
            os.write(terminal, b"SELECT 4\x03")  # interrupts the line, not the cluster
            ask("\nSELECT 50 + 5;\n", "55")
            os.write(terminal, b".quit\n")
            _, status = os.waitpid(pid, 0)
        except BaseException:
            os.kill(pid, signal.SIGTERM)
            print("the terminal showed:", seen)
            raise
        finally:
            os.close(terminal)
        expect_equal(os.waitstatus_to_exitcode(status), 0, "exit status after .quit")
        expect(no_node_runs(d), "a node runs after the end")
