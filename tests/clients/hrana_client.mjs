// @libsql/hrana-client, which comes with @libsql/client: asked for version 3 it speaks Protobuf, over
// http: or ws:, as the URL says.
import { BatchCond, openHttp, openWs, WebSocket } from "@libsql/hrana-client";
import { equal, expect, fails, run, url } from "./check.mjs";

const http = url.startsWith("http");
const asked = new Set(); // paths
const client = http ? openHttp(url, undefined, (request) => {
    asked.add(`${request.method} ${new URL(request.url).pathname}`);
    return fetch(request);
}, undefined, 3) : openWs(url, undefined, 3);

async function withStream(action) {
    const stream = client.openStream();
    try {
        return await action(stream);
    } finally {
        stream.close();
    }
}

const values = [null, 0, -0.5, 1e300, 5e-324, "", "Zoë \u0000 \u{1F600} 漢字", 9007199254740993n,
                -(2n ** 63n), 2n ** 63n - 1n, new Uint8Array(0), new Uint8Array([0, 255, 1, 2]),
                "x".repeat(100000), new Uint8Array(70000).fill(200)];

// What it gives back of a value: blobs as ArrayBuffer, integers as bigint.
function back(v) {
    return v instanceof Uint8Array ? v.buffer : v;
}

const parts = {
    async form() {
        equal(await client.getVersion(), 3);
        if (http) {
            equal([...asked], ["GET /v3-protobuf"]);
            return;
        }
        const socket = new WebSocket(url, ["hrana3-protobuf", "hrana3", "hrana2", "hrana1"]);
        await new Promise((yes, no) => {
            socket.addEventListener("open", yes);
            socket.addEventListener("error", no);
        });
        equal(socket.protocol, "hrana3-protobuf");
        socket.close();
    },

    async statements() {
        await withStream(async (s) => {
            await s.sequence("DROP TABLE IF EXISTS hc; CREATE TABLE hc(id INTEGER PRIMARY KEY, v)");
            const inserted = await s.run(["INSERT INTO hc(v) VALUES (?)", ["x"]]);
            equal([inserted.affectedRowCount, inserted.lastInsertRowid], [1, 1n]);
            const found = await s.query("SELECT id, v FROM hc");
            equal(found.columnNames, ["id", "v"]);
            equal(found.columnDecltypes, ["INTEGER", undefined]);
            equal([found.rows.length, found.rows[0].id, found.rows[0][1]], [1, 1, "x"]);
            equal(found.lastInsertRowid, undefined);
            equal((await s.queryRow(["SELECT :a AS a", { a: 7 }])).row.a, 7);
            equal((await s.queryValue("SELECT 1 WHERE 0")).value, undefined);
            equal((await s.run("UPDATE hc SET v = 'y'")).affectedRowCount, 1);
        });
    },

    async values() {
        await withStream(async (s) => {
            s.intMode = "bigint";
            for (const [i, v] of values.entries()) {
                const { value } = await s.queryValue(["SELECT ?", [v]]);
                equal(value, back(v), `value ${i}`);
            }
            const { row } = await s.queryRow(["SELECT ?1, ?2, typeof(?3)", [1n, true, 1]]);
            equal([row[0], row[1], row[2]], [1n, 1n, "real"]);
            equal((await s.queryValue("SELECT 9e999")).value, Infinity);
            equal((await s.queryValue("SELECT cast(x'ff41' AS text)")).value, "\ufffdA");
        });
    },

    async batches() {
        for (const useCursor of [false, true])
            await withStream(async (s) => {
                const batch = s.batch(useCursor);
                const first = batch.step(), second = batch.step(), third = batch.step();
                const one = first.queryValue("SELECT 1");
                const wrong = fails(() => second.condition(BatchCond.ok(first)).run("nonsense"),
                                    "SQL_INPUT_ERROR", /syntax error/);
                const none = third.condition(BatchCond.ok(second)).run("SELECT 2");
                const some = batch.step().condition(BatchCond.not(BatchCond.ok(second)))
                    .condition(BatchCond.or(batch, [BatchCond.error(second), BatchCond.ok(third)]))
                    .condition(BatchCond.and(batch, [BatchCond.isAutocommit(batch)]))
                    .query("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c " +
                           "WHERE i < 5000) SELECT i, 'row' AS r FROM c");
                const changed = batch.step().run("UPDATE hc SET v = 'z'");
                await batch.execute();
                equal((await one).value, 1);
                await wrong;
                equal(await none, undefined);
                const { rows } = await some;
                equal([rows.length, rows[4999].i, rows[4999].r], [5000, 5000, "row"]);
                equal((await changed).affectedRowCount, 1);
                equal((await s.queryValue("SELECT v FROM hc")).value, "z", "the stream goes on");
            });
    },

    async transactions() {
        await withStream(async (s) => {
            equal(await s.getAutocommit(), true);
            await s.run("BEGIN IMMEDIATE");
            equal(await s.getAutocommit(), false);
            await s.run("DELETE FROM hc");
            const batch = s.batch(true);
            const left = batch.step().queryValue("SELECT count(*) FROM hc");
            await batch.execute();
            equal((await left).value, 0);
            await s.run("ROLLBACK");
            equal((await s.queryValue("SELECT count(*) FROM hc")).value, 1);
        });
    },

    async storedTexts() {
        await withStream(async (s) => {
            const sql = (http ? s : client).storeSql("SELECT v FROM hc WHERE id = ?");
            equal((await s.queryValue([sql, [1]])).value, "z");
            const described = await s.describe(sql);
            equal(described.paramNames, [undefined]);
            equal(described.columns, [{ name: "v", decltype: undefined }]);
            equal([described.isExplain, described.isReadonly], [false, true]);
            sql.close();
        });
    },

    async errors() {
        await withStream(async (s) => {
            await fails(() => s.run("INSERT INTO hc VALUES (1, 2)"), "SQLITE_CONSTRAINT",
                        /UNIQUE constraint failed: hc\.id/);
            await fails(() => s.run(["SELECT ?", [1, 2]]), "ARGS_INVALID");
            equal((await s.queryValue("SELECT 1")).value, 1, "behind errors");
        });
    },

    async end() {
        if (http)
            equal([...asked].sort(), ["GET /v3-protobuf", "POST /v3-protobuf/cursor",
                                      "POST /v3-protobuf/pipeline"]);
        client.close();
        expect(client.closed, "it is closed");
    },
};

await run(parts);
