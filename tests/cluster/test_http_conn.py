"""The HTTP port of a real node: what connections cost, and how it stops."""

import os
import resource
import socket
import time

from tests.lib.cluster import PATIENCE, Cluster, case, expect, expect_equal

GET = b"GET /version HTTP/1.1\r\nHost: h\r\n\r\n"


def dial(node):
    s = socket.create_connection(("127.0.0.1", node.http_port), timeout=20 * PATIENCE)
    return s


def hear(s, wanted):
    """All that came until WANTED is in it."""
    got = b""
    while wanted not in got:
        part = s.recv(65536)
        expect(part, f"the connection ended after {got!r}, before {wanted!r}")
        got += part
    return got


def hear_all(s):
    got = b""
    while part := s.recv(65536):
        got += part
    return got


def cpu_seconds(node):
    with open(f"/proc/{node.process.pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(node):
    with open(f"/proc/{node.process.pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * resource.getpagesize()


@case(short=True)
def test_a_node_says_its_version():
    with Cluster(n=1, http=True) as c:
        with dial(c.nodes[0]) as s:
            s.sendall(GET)
            expect(hear(s, b"\n\r\nlectern ").startswith(b"HTTP/1.1 200 OK\r\n"), "an answer")


@case(short=True)
def test_the_log_tells_of_the_http_port():
    with Cluster(n=1, http=True, http_connections=4, log_level="debug") as c:
        node = c.nodes[0]
        expect(f" http=127.0.0.1:{node.http_port} " in node.log_text(), "no http= in the log")
        with dial(node) as s:
            s.sendall(b"GET /version HTTP/1.1\nHost: h\n\n")
            expect(hear_all(s).startswith(b"HTTP/1.1 400 "), "lines that end with LF")
        expect("refused status=400 why=" in node.log_text(), "no line of what was refused")
        held = [dial(node) for _ in range(10)]
        for s in held[4:]:  # the first four are idle
            s.sendall(b"GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n")
            expect(hear_all(s).startswith(b"HTTP/1.1 503 "), "one connection too many")
        said = node.log_text().count("refused connections=4 reason=\"http-connections\"")
        expect_equal(said, 1, "lines that connections are refused")
        for s in held:
            s.close()


@case(short=True)
def test_a_node_that_stops_ends_its_connections():
    with Cluster(n=1, http=True) as c:
        node = c.nodes[0]
        with dial(node) as idle, dial(node) as half:
            half.sendall(GET[:20])
            idle.sendall(GET)
            hear(idle, b"lectern ")
            node.stop()
            hear_all(idle)
            try:
                expect_equal(hear_all(half), b"", "an answer to half a request")
            except ConnectionResetError:
                pass


@case(seconds=120)
def test_ten_thousand_idle_connections():
    """They cost memory of the size of a struct, and no time."""
    many = 10000
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    expect(limit[1] >= many + 500, f"this test needs {many + 500} open files, {limit[1]} may be")
    resource.setrlimit(resource.RLIMIT_NOFILE, (many + 500, limit[1]))
    with Cluster(n=1, http=True, http_connections=many + 1, max_connections=1000) as c:
        node = c.nodes[0]
        quiet = cpu_seconds(node)
        time.sleep(3)
        quiet = cpu_seconds(node) - quiet
        before = resident_bytes(node)
        guests = []
        for _ in range(many):
            s = dial(node)
            s.sendall(GET)
            guests.append(s)
            hear(s, b"lectern ")
        bytes_each = (resident_bytes(node) - before) / many
        busy = cpu_seconds(node)
        time.sleep(3)
        busy = cpu_seconds(node) - busy
        print(f"{many} idle connections: {bytes_each:.0f} bytes of memory each, "
              f"{busy * 1000 / 3:.1f} ms of CPU a second (without them {quiet * 1000 / 3:.1f})")
        expect(bytes_each < 2048, f"{bytes_each:.0f} bytes for an idle connection")
        expect(busy - quiet < 0.3 * PATIENCE, f"{busy - quiet:.2f} s of CPU for idle connections")
        with dial(node) as s:
            begun = time.monotonic()
            s.sendall(GET)
            hear(s, b"lectern ")
            expect(time.monotonic() - begun < 20 * PATIENCE, "one more is served at once")
            for path, status in ((b"/v2", b"503"), (b"/livez", b"200"), (b"/metrics", b"200")):
                with dial(node) as surplus:
                    surplus.sendall(b"GET %s HTTP/1.1\r\nHost: h\r\n\r\n" % path)
                    expect(hear_all(surplus).startswith(b"HTTP/1.1 %s " % status),
                           f"one too many may only watch: {path}")
        for s in guests:
            s.close()
