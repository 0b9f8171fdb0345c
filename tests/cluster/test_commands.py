"""The two programs from outside: help, version, settings and their errors, status, signals."""

import glob
import os
import re
import subprocess
import tempfile

from tests.lib.cluster import (BUILD, PATIENCE, ROOT, Cluster, case, expect, expect_equal,
                               free_port, shell)

LECTERND, LECTERN = os.path.join(BUILD, "lecternd"), os.path.join(BUILD, "lectern")


def run(*command, env=None):
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL, timeout=20 * PATIENCE,
                          env={**os.environ, **(env or {})})
    return done.returncode, done.stdout, done.stderr


@case(short=True)
def test_help_and_version():
    versions = set()
    for program in (LECTERND, LECTERN):
        status, out, err = run(program, "--help")
        expect_equal((status, err), (0, ""), f"{program} --help")
        expect(out.lower().startswith("usage"), f"{program} --help begins with {out[:60]!r}")
        expect(all(len(l) <= 100 for l in out.splitlines()), f"{program} --help: wide lines")
        status, out, err = run(program, "--version")
        expect_equal((status, err), (0, ""), f"{program} --version")
        versions.add(re.match(r"\S+ (\d+\.\d+\S*)", out).group(1))
    expect(len(versions) == 1, f"two programs of one release say {versions}")


@case()
def test_every_setting_is_in_the_help():
    with open(os.path.join(ROOT, "node/config.def"), encoding="utf-8") as f:
        names = re.findall(r'^CONF\("([a-z-]+)"', f.read(), re.M)
    _, out, _ = run(LECTERND, "--help")
    expect(names, "no settings found")
    missing = [n for n in names if f"--{n}" not in out]
    expect(not missing, f"not in --help: {missing}")


@case(short=True)
def test_wrong_settings_are_named():
    with tempfile.TemporaryDirectory() as d:
        good = ["--id", "1", "--data", d, "--cluster", f"1=127.0.0.1:{free_port()}",
                "--listen", f"127.0.0.1:{free_port()}"]
        wrong = [
            (["--nonsense", "1"], "nonsense"),
            (["--election-timeout", "soon"], "election-timeout"),
            (["--election-timeout", "-5"], "election-timeout"),
            (["--election-timeout"], "election-timeout"),
            (["--transaction-bytes", "12parsecs"], "transaction-bytes"),
            (["--id", "9"], "cluster"),
            (["--id", "0"], "id"),
            (["--cluster", "1=nowhere"], "cluster"),
            (["--cluster", "1=127.0.0.1:1,1=127.0.0.1:2"], "cluster"),
            (["--listen", "127.0.0.1"], "listen"),
            (["--listen", "127.0.0.1:99999"], "listen"),
            (["--log-level", "loud"], "log-level"),
            (["--config", "/nowhere/at/all"], "/nowhere/at/all"),
            (["stray"], "stray"),
            (["--heartbeat", "5000", "--election-timeout", "1000"], "heartbeat"),
            (["--http-cors", "https://a.b/"], "http-cors"),
            (["--http-listen", "127.0.0.1:0", "--http-url", "foo"], "http-url"),
            (["--http-url", "http://a"], "http-listen"),
            (["--http-read", "weak"], "http-read"),
        ]
        for flags, named in wrong:
            status, out, err = run(LECTERND, *good, *flags)
            expect_equal(status, 2, f"{flags}: exit status")
            expect_equal(out, "", f"{flags}: standard output")
            expect(named in err, f"{flags}: does not name {named!r}: {err!r}")
            expect(len(err.strip().splitlines()) <= 3, f"{flags}: more than a sentence: {err}")
        status, _, err = run(LECTERND, *good, env={"LECTERN_ELECTION_TIMEOUT": "soon"})
        expect(status != 0 and "LECTERN_ELECTION_TIMEOUT" in err, f"environment: {err}")
        path = os.path.join(d, "lecternd.conf")
        with open(path, "w", encoding="utf-8") as f:
            f.write("heartbeat = 100\nelection-timeout = soon\n")
        status, _, err = run(LECTERND, *good, "--config", path)
        expect(status != 0 and "election-timeout" in err and path in err, f"file: {err}")
        status, _, err = run(LECTERND)
        expect(status != 0 and len(err.strip()) > 20, f"no settings at all: {err}")


@case()
def test_settings_from_file_and_environment():
    with Cluster(1, start=False) as c:
        node = c.node(1)
        path = os.path.join(c.dir, "lecternd.conf")
        with open(path, "w", encoding="utf-8") as f:
            f.write(f"; a comment\nid = 1\ndata = {node.dir}\nlisten = 127.0.0.1:1\n"
                    f"peer-listen = 127.0.0.1:{node.peer_port}\n")
        env = {**os.environ, "LECTERN_LISTEN": node.address, "LECTERN_CLUSTER": "1=127.0.0.1:1",
               "LECTERN_CONFIG": path}
        ready, write = os.pipe()
        with open(node.log, "wb") as log:
            node.process = subprocess.Popen(
                [LECTERND, "--cluster", c.members, "--ready-fd", str(write)], env=env, stderr=log,
                stdin=subprocess.DEVNULL, pass_fds=(write,))
        node.should_run = True
        os.close(write)
        with os.fdopen(ready) as f:
            expect(f.readline().endswith("\n"), "no line on --ready-fd")
        c.wait_serving()  # on the environment's address, with the flag's cluster


@case(short=True)
def test_the_shell_in_a_pipe():
    with Cluster() as c:
        status, out, err = shell(c, "CREATE TABLE t(a, b);\nINSERT INTO t VALUES (1, 'x'), (2, "
                                    "NULL);\nSELECT * FROM t;\n.tables\n")
        expect_equal((status, out), (0, "1|x\n2|\nt\n"), f"the shell's answer ({err})")

        def shows_all():
            status, out, err = shell(c, ".status\n")
            expect_equal(status, 0, f".status ({err})")
            return (all(node.address in out for node in c.nodes)
                    and re.search(r"\bleader\b", out.split("\n", 1)[1]))
        c.wait(shows_all, ".status shows every node, and who leads")
        status, out, err = shell(c, "SELECT 1;\nSELEC 2;\nSELECT 3;\n")
        expect(status != 0, "exit 0 after an error")
        expect('near "SELEC"' in err and "near" not in out, f"out {out!r}, err {err!r}")
        status, out, err = shell(c, ".dump\n")
        expect_equal(status, 0, f".dump ({err})")
        expect("INSERT INTO" in out and "CREATE TABLE t" in out, f".dump: {out}")


@case(short=True)
def test_the_shell_finds_a_node_that_lives():
    with Cluster() as c:
        c.leader().kill()
        status, out, err = shell(c, "SELECT 6 * 7;\n")
        expect_equal((status, out), (0, "42\n"), f"with a dead node ({err})")


@case()
def test_status_tells_of_every_node():
    with Cluster() as c, c.client() as q:
        q.query("CREATE TABLE t(a)")
        seq, checksum = c.wait_equal()

        def whole():
            for node in c.nodes:
                with node.client() as x:
                    rows = {r["node"]: r for r in x.status()}
                if set(rows) != {1, 2, 3} or any(r["seq"] != seq for r in rows.values()):
                    return None
                if any(r["checksum"] != checksum for r in rows.values()):
                    return None
                if sorted(r["role"] for r in rows.values()) != ["follower", "follower", "leader"]:
                    return None
                if any(r["address"] != c.node(n).address for n, r in rows.items()):
                    return None
            return True
        c.wait(whole, "every node knows every node's role, position and address")
        dead = c.others(c.leader())[0]
        dead.kill()
        q.query("INSERT INTO t VALUES (1)")
        rows = {r["node"]: r for r in q.status()}
        expect(dead.id in rows, "a dead node is still a member")


@case()
def test_a_port_that_is_taken_is_named():
    with Cluster(1) as c, tempfile.TemporaryDirectory() as d:
        taken = c.node(1).port
        for setting in ("listen", "peer-listen", "http-listen"):
            ports = {"listen": free_port(), "peer-listen": free_port(), "http-listen": free_port(),
                     setting: taken}
            status, _, err = run(LECTERND, "--id", "1", "--data", d,
                                 "--cluster", f"1=127.0.0.1:{ports['peer-listen']}",
                                 *(f"--{s}=127.0.0.1:{p}" for s, p in ports.items()))
            expect_equal(status, 1, "exit status when a port is taken")
            expect(f"127.0.0.1:{taken} ({setting})" in err and "in use" in err,
                   f"does not name the port and the setting: {err[-300:]}")


# --- what README.md says --------------------------------------------------------------------------


def readme():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        return f.read()


@case()
def test_the_readmes_session_works():
    lines = re.findall(r"^    lectern> (.*)$", readme(), re.M)
    expect(len(lines) >= 3, f"the README's session has {len(lines)} lines")
    with Cluster() as c:
        status, out, err = shell(c, "\n".join(lines) + "\n")
        expect_equal(status, 0, f"the README's session ({err})")
        expect(out.startswith("1\n"), f"RETURNING id: {out}")
        c.wait_equal()  # a majority has it, node 1 may not
        expect_equal(c.node(1).read("SELECT text FROM greeting"), [("hello",)], "the row")
        question = re.search(r"echo '(.*)' \| build/release/lectern", readme()).group(1)
        for node in c.nodes:
            expect_equal(shell(node.address, question + "\n")[:2], (0, "42\n"), f"at {node}")


@case()
def test_the_documents_name_what_exists():
    with open(os.path.join(ROOT, "Makefile"), encoding="utf-8") as f:
        targets = set(re.findall(r"^([a-z][a-z-]*):.*##", f.read(), re.M))
    with open(os.path.join(ROOT, "docs/TESTING.md"), encoding="utf-8") as f:
        text = readme() + f.read()
    named = set(re.findall(r"`make ([a-z-]+)", text)) | set(re.findall(r"^    make ([a-z-]+)", text,
                                                                      re.M))
    expect(named <= targets, f"no such target: {named - targets}")
    flags = set(re.findall(r"--([a-z][a-z-]+)", re.search(
        r"^    lecternd(.*\n)+?\n", text, re.M).group(0)))
    _, out, _ = run(LECTERND, "--help")
    missing = [f for f in flags if f"--{f}" not in out]
    expect(flags and not missing, f"lecternd has no {missing}")
    for name in ("README.md", *glob.glob("docs/*.md", root_dir=ROOT)):
        with open(os.path.join(ROOT, name), encoding="utf-8") as f:
            links = re.findall(r"\]\(((?:\w[\w-]*/|\.\./)*[A-Z][\w-]*\.md)[)#]", f.read())
        for path in links:
            expect(os.path.exists(os.path.join(ROOT, os.path.dirname(name), path)),
                   f"{name} links to {path}")
