"""Answers that are compressed for clients that take them so (http-compress)."""

import json
import zlib

from tests.lib.cluster import PATIENCE, Cluster, case, expect, expect_equal
from tests.lib.hrana import Door, batch, rows_of, stmt

GZIP = {"Accept-Encoding": "gzip, deflate"}
ENDLESS = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c) SELECT i, 'row' FROM c"


def unpack(response):
    """The whole body; its compressed and its real length."""
    packed = response.read()
    expect_equal(response.getheader("content-encoding"), "gzip", "the coding")
    d = zlib.decompressobj(31)
    text = d.decompress(packed)
    expect(d.eof and not d.unused_data, "one whole gzip stream")
    return text, len(packed), len(text)


@case(short=True)
def test_long_answers_are_compressed():
    rows = {"type": "execute", "stmt": stmt("SELECT * FROM t")}
    with Cluster(n=1, http=True, http_compress=1) as c, Door(c.leader()) as door:
        door.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)")
        door.execute("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < "
                     "20000) INSERT INTO t SELECT i, 'the text of row ' || i FROM c")
        plain = door.pipeline(rows, {"type": "close"})
        text, packed, real = unpack(door.ask("POST", "/v3/pipeline",
                                             {"requests": [rows, {"type": "close"}]}, GZIP))
        found = [rows_of(a["results"][0]["response"]["result"]) for a in (json.loads(text), plain)]
        expect(len(found[0]) == 20000 and found[0] == found[1], "the answer is another one")
        expect(real > 1000000 and packed < real / 4, f"{packed} bytes for {real}")
        r = door.ask("POST", "/v3/pipeline", {"requests": [{"type": "close"}]}, GZIP)
        expect_equal(r.getheader("content-encoding"), None, "the coding of a short answer")
        expect("accept-encoding" not in r.getheader("vary", ""), "it is the same for all")
        r.read()
        for path in ("/metrics", "/dump"):
            text, packed, real = unpack(door.ask("GET", path, headers=GZIP))
            expect(packed < real / 3, f"{path}: {packed} bytes for {real}")
            r = door.ask("GET", path)
            expect_equal(r.getheader("content-encoding"), None, f"{path} for anybody")
            if path == "/dump":
                expect(text == r.read(), "a dump is the same, unpacked")
            r.read()
        r = door.ask("POST", "/v3/pipeline", b"\x1f\x8b", {"Content-Encoding": "gzip"})
        expect_equal((r.status, json.loads(r.read())["code"]), (415, "UNSUPPORTED_ENCODING"),
                     "a compressed request")


@case(short=True)
def test_rows_of_a_compressed_cursor_come_in_time():
    with Cluster(n=1, http=True, http_compress=1) as c, \
            Door(c.leader(), timeout=20 * PATIENCE) as door:
        r = door.ask("POST", "/v3/cursor", {"batch": batch(stmt(ENDLESS))}, GZIP)
        expect_equal(r.getheader("content-encoding"), "gzip", "the coding")
        d, text = zlib.decompressobj(31), b""
        while text.count(b'"type":"row"') < 1000:  # of a statement that has no end
            text += d.decompress(r.read1(65536))
        entries = [json.loads(line) for line in text.splitlines()[1:-1]]
        values = [int(e["row"][0]["value"]) for e in entries if e["type"] == "row"]
        expect_equal(values, list(range(1, len(values) + 1)), "the rows")
        r.close()
