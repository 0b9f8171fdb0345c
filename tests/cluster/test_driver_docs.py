"""What docs/DRIVERS.md says: each of its blocks is run as it stands, but for the ports."""

import json
import os
import re
import shutil
import subprocess
import sys

from tests.clients import programs
from tests.lib.cluster import HANG, Cluster, ROOT, case, expect, expect_equal, free_port

PRISMA = """datasource db {
  provider = "sqlite"
}
generator client {
  provider = "prisma-client-js"
  output   = "./prisma-client"
}
model Greeting {
  id   Int    @id
  text String
  @@map("greeting")
}
"""
# Prisma's client is generated before the block that imports it.
PRISMA_FIRST = """import { generate } from "./prisma_generate.mjs";
await generate("greeting", "prisma-client");
await import("./block.mjs");
"""


def document():
    with open(os.path.join(ROOT, "docs", "DRIVERS.md"), encoding="utf-8") as f:
        return f.read()


def blocks(begins):
    """The indented blocks whose first line begins so. A block ends before a line that is not
    indented, or before an empty line and the first line of another one."""
    found = re.split(r"\n\n(?=    (?:import|curl|defaults)\b)|\n\n(?! )", document())
    return [re.sub("^    ", "", b, flags=re.M) for b in found if b.startswith(f"    {begins}")]


def at(c, text):
    """TEXT with the ports of C's nodes instead of those of `make run`."""
    for i, node in enumerate(c.nodes, 1):
        text = text.replace(f":808{i}", f":{node.http_port}")
    return text


def program(c, block, more=""):
    """A block of JavaScript, started."""
    return programs.Program("first.mjs", files={
        "block.mjs": f"{at(c, block)}\n{more}\nprocess.exit();\n", "greeting.prisma": PRISMA,
        "first.mjs": PRISMA_FIRST if "prisma-client" in block else 'import "./block.mjs";\n'})


def check_result(block, found):
    wanted = re.findall(r"//> (.*)$", block, re.M)
    expect(wanted, f"this block says not what it prints:\n{block}")
    expect_equal([line for line in found.splitlines() if not line.startswith("Connection Error")],
                 wanted, f"what this block prints:\n{block}\n")


def greet(c):
    with c.client() as db:
        db.query("DROP TABLE IF EXISTS greeting")
        db.query("CREATE TABLE greeting(id INTEGER PRIMARY KEY, text NOT NULL)")
        db.query("INSERT INTO greeting(text) VALUES ('hello')")


@case()
def test_the_documented_versions():
    with open(os.path.join(programs.HERE, "package.json"), encoding="utf-8") as f:
        tried = json.load(f)["dependencies"]
    named = re.findall(r"`([@\w/-]+)` (\d+\.\d+\.\d+)", document())
    expect(len(named) > 8, f"only {len(named)} versions are named")
    expect_equal(named, [(name, tried.get(name)) for name, _ in named], "drivers and versions")


@case(seconds=240, weight=2)
def test_the_documented_programs():
    if not programs.are_here(oldest=20):
        return
    first, *others = blocks("import")
    expect(len(others) >= 8, f"only {len(others)} more programs were found")
    with Cluster(3, http=True, election_timeout=3000) as c:  # none by accident, for seconds
        for url in (r"http://\1", r"ws://\1", r"libsql://\1?tls=0"):
            greet(c)
            block = re.sub(r"http://([\d.]+:\d+)", url, first)
            with program(c, block) as p:
                check_result(block, p.result())
        greet(c)
        c.wait_equal()
        for some in (others[::2], others[1::2]):
            started = [(block, program(c, block)) for block in some]
            for block, p in started:
                with p:
                    check_result(block, p.result())


@case()
def test_the_documented_request():
    if shutil.which("curl") is None:
        print("skipped: curl is not here", file=sys.stderr)
        return
    with Cluster(3, http=True) as c:
        greet(c)
        c.wait_equal()
        for block in blocks("curl"):
            done = subprocess.run(["sh", "-c", at(c, block)], check=True, capture_output=True,
                                  text=True, timeout=20 * HANG)
            result = json.loads(done.stdout)["results"][0]["response"]["result"]
            expect_equal(result["rows"], [[{"type": "text", "value": "hello"}]], block)


@case(seconds=120, weight=2)
def test_the_documented_remedies():
    """What programs do whose own node is lost: they open another stream, or ask another node."""
    if not programs.are_here(oldest=20):
        return
    (renewing,) = [b for b in blocks("import") if "class Renewing" in b]
    (next_node,) = [b for b in blocks("import") if "withNode" in b]
    with Cluster(3, http=True) as c:
        greet(c)
        c.wait_equal()
        # It asks when its node is gone, and, when its input ends, until it has an answer.
        with program(c, renewing, """
            const ask = () => db("greeting").first("text").then((row) => row.text, () => "broken");
            while (await ask() !== "broken") {}
            console.log("broken");
            await new Promise((next) => process.stdin.on("end", next).resume());
            for (let i = 0, said = "broken"; i < 20 && said === "broken"; i++)
                said = await ask();
            console.log(await ask());
            """) as p:
            c.wait(lambda: "hello" in p.text(), "the first answer")
            c.node(1).kill()
            c.wait(lambda: "broken" in p.text(), "it sees that its node is gone")
            c.restart(c.node(1))
            c.wait_serving()
            p.stop()
            check_result(renewing + "\n//> broken\n//> hello", p.result())
        c.node(1).kill()
        c.wait_serving()
        write = """
            const gone = await withNode((db) => db.execute("DELETE FROM greeting"));
            console.log(gone.rowsAffected);
            """
        with program(c, next_node, write) as p:
            check_result(next_node + "\n//> 1", p.result())
        c.restart(c.node(1))
        c.check_equal()


@case(seconds=120)
def test_the_documented_balancer():
    if shutil.which("haproxy") is None:
        print("skipped: haproxy is not here", file=sys.stderr)
        return
    if not programs.are_here(oldest=20):
        return
    first = blocks("import")[0]
    (config,) = blocks("defaults")
    port = free_port()
    with Cluster(3, http=True) as c:
        path = os.path.join(c.dir, "haproxy.cfg")
        with open(path, "w", encoding="utf-8") as f:
            f.write(at(c, config).replace(":8080", f":{port}") + "\n")
        balancer = subprocess.Popen(["haproxy", "-db", "-f", path], stdin=subprocess.DEVNULL,
                                    stdout=subprocess.DEVNULL)
        try:
            for nodes in (3, 2):
                greet(c)
                with program(c, first.replace(":8081", f":{port}")) as p:
                    check_result(first, p.result())
                if nodes == 3:
                    c.leader().kill()
                    c.wait_serving()
        finally:
            balancer.kill()
            balancer.wait()
