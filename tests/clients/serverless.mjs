// @tursodatabase/serverless: Hrana 3 over fetch, with cursors; and its mirror of @libsql/client.
import { connect } from "@tursodatabase/serverless";
import { createClient } from "@tursodatabase/serverless/compat";
import { equal, fails, run, url } from "./check.mjs";

const db = connect({ url });

await run({
    async statements() {
        await db.exec("DROP TABLE IF EXISTS sv; CREATE TABLE sv(id INTEGER PRIMARY KEY, v, w TEXT)");
        const insert = await db.prepare("INSERT INTO sv(v, w) VALUES (?, ?)");
        const first = await insert.run([1.5, "x"]);
        equal([first.changes, Number(first.lastInsertRowid)], [1, 1]);
        await insert.run([null, "Zoë \u{1F600}"]);
        await insert.run([new Uint8Array([0, 255, 7]), ""]);
        const byId = await db.prepare("SELECT * FROM sv WHERE id = ?");
        const row = await byId.get([1]);
        equal([row.id, row.v, row.w], [1, 1.5, "x"]);
        equal(await byId.get([99]), undefined);
        equal((await (await db.prepare("SELECT w FROM sv ORDER BY id")).all()).map((r) => r.w),
              ["x", "Zoë \u{1F600}", ""]);
        const blob = await (await db.prepare("SELECT v FROM sv WHERE id = 3")).get();
        equal([...new Uint8Array(blob.v)], [0, 255, 7]);
        let count = 0;
        for await (const r of (await db.prepare(`WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL
            SELECT i + 1 FROM c WHERE i < 20000) SELECT i FROM c`)).iterate())
            count += r.i > 0;
        equal(count, 20000);
    },

    async batches() {
        await db.exec("DROP TABLE IF EXISTS sb; CREATE TABLE sb(a UNIQUE)");
        await db.batch(["INSERT INTO sb VALUES (1)", "INSERT INTO sb VALUES (2)"], "immediate");
        await fails(() => db.batch(["INSERT INTO sb VALUES (3)", "INSERT INTO sb VALUES (1)"],
                                   "immediate"), undefined, /UNIQUE constraint failed: sb\.a/);
        equal((await (await db.prepare("SELECT count(*) AS n FROM sb")).get()).n, 2);
    },

    async transactions() {
        await db.exec("DROP TABLE IF EXISTS st; CREATE TABLE st(a UNIQUE)");
        const insert = await db.prepare("INSERT INTO st VALUES (?)");
        const many = db.transaction(async (values) => {
            for (const v of values)
                await insert.run([v]);
        });
        await many([1, 2, 3]);
        await fails(() => many([4, 1]), undefined, /UNIQUE/);
        await many.immediate([5]);
        equal((await (await db.prepare("SELECT a FROM st ORDER BY a")).all()).map((r) => r.a),
              [1, 2, 3, 5]);
    },

    async errors() {
        await fails(async () => (await db.prepare("SELECT * FROM nowhere")).all(), undefined,
                    /no such table/);
        await fails(() => db.exec("SELEKT"), undefined, /syntax error/);
        equal((await (await db.prepare("SELECT 1 AS one")).get()).one, 1, "behind an error");
        await db.close();
    },

    async mirror() {
        const c = createClient({ url });
        await c.execute("DROP TABLE IF EXISTS sc");
        await c.execute("CREATE TABLE sc(id INTEGER PRIMARY KEY, v UNIQUE)");
        const r = await c.execute({ sql: "INSERT INTO sc(v) VALUES (:v)", args: { v: "x" } });
        equal([r.rowsAffected, Number(r.lastInsertRowid)], [1, 1]);
        await c.batch(["INSERT INTO sc(v) VALUES ('y')", "INSERT INTO sc(v) VALUES ('z')"], "write");
        equal((await c.execute("SELECT v FROM sc ORDER BY id")).rows.map((x) => x.v), ["x", "y", "z"]);
        await fails(() => c.execute("INSERT INTO sc(v) VALUES ('x')"), undefined,
                    /UNIQUE constraint failed: sc\.v/);
        c.close();
    },
});
