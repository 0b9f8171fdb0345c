// npm libsql: libSQL's Rust core, with the interface of better-sqlite3. It speaks Hrana 3, with
// cursors.
import Database from "libsql";
import Promised from "libsql/promise";
import { equal, expect, fails, run, url } from "./check.mjs";

const db = new Database(url);

function throws(action, message) {
    try {
        action();
    } catch (e) {
        expect(message.test(e.message), `"${e.message}" does not say ${message}`);
        return e;
    }
    throw new Error(`wanted an error that says ${message}`);
}

await run({
    statements() {
        db.exec("DROP TABLE IF EXISTS ru; CREATE TABLE ru(id INTEGER PRIMARY KEY, v, w TEXT)");
        const insert = db.prepare("INSERT INTO ru(v, w) VALUES (?, ?)");
        const first = insert.run(1.5, "x");
        equal([first.changes, Number(first.lastInsertRowid)], [1, 1]);
        equal(insert.run(null, "Zoë \u{1F600}").changes, 1);
        equal(insert.run(Buffer.from([0, 255, 7]), "").changes, 1);
        const { id, v, w } = db.prepare("SELECT * FROM ru WHERE id = ?").get(1);
        equal([id, v, w], [1, 1.5, "x"]);
        equal(db.prepare("SELECT w FROM ru WHERE id = ?").get(99), undefined);
        equal(db.prepare("SELECT w FROM ru ORDER BY id").all().map((r) => r.w),
              ["x", "Zoë \u{1F600}", ""]);
        equal([...db.prepare("SELECT v FROM ru WHERE id = 3").get().v], [0, 255, 7]);
        equal(db.prepare("SELECT id FROM ru ORDER BY id").raw().all(), [[1], [2], [3]]);
        // Over HTTP this driver forgets named values: refused, not NULL.
        throws(() => db.prepare("UPDATE ru SET w = :w").run({ w: "y" }), /no value for 1, :w/);
        equal(db.prepare("SELECT w FROM ru WHERE id = 1").get().w, "x");
        equal(db.prepare("SELECT id, w FROM ru").columns().map((c) => c.name), ["id", "w"]);
    },

    bigints() {
        const n = 9007199254740993n;
        equal(db.prepare("SELECT ? AS n").safeIntegers(true).get(n).n, n);
    },

    errors() {
        db.exec("DROP TABLE IF EXISTS re; CREATE TABLE re(a UNIQUE); INSERT INTO re VALUES (1)");
        throws(() => db.prepare("INSERT INTO re VALUES (1)").run(), /UNIQUE constraint failed: re\.a/);
        throws(() => db.prepare("SELEKT").all(), /syntax error/);
        throws(() => db.exec("INSERT INTO nowhere VALUES (1)"), /no such table/);
        equal(db.prepare("SELECT count(*) AS n FROM re").get().n, 1);
    },

    transactions() {
        db.exec("DROP TABLE IF EXISTS rt; CREATE TABLE rt(a UNIQUE)");
        const many = db.transaction((values) => {
            const insert = db.prepare("INSERT INTO rt VALUES (?)");
            for (const v of values)
                insert.run(v);
        });
        many([1, 2, 3]);
        throws(() => many([4, 5, 1]), /UNIQUE/);
        many.immediate([6]);
        equal(db.prepare("SELECT a FROM rt ORDER BY a").raw().all(), [[1], [2], [3], [6]]);
        equal(db.inTransaction, false);
    },

    // As docs/DRIVERS.md says it, for as long as the driver does so: whether the stream is closed
    // behind a statement is settled when that is prepared.
    statements_from_outside_end_a_transaction() {
        db.exec("DROP TABLE IF EXISTS rs; CREATE TABLE rs(a)");
        const insert = db.prepare("INSERT INTO rs VALUES (?)");
        throws(() => db.transaction(() => {
            insert.run(1);
            insert.run(2);
            throw new Error("undo");
        })(), /no transaction is active/);
        equal(db.prepare("SELECT a FROM rs").raw().all(), [[2]]);
    },

    rows_one_by_one() {
        const n = 20000;
        let count = 0, sum = 0;
        for (const row of db.prepare(`WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c
            WHERE i < ${n}) SELECT i, 'row ' || i AS t FROM c`).iterate()) {
            count++;
            sum += row.i;
        }
        equal([count, sum], [n, n * (n + 1) / 2]);
    },

    async promises() {
        const p = new Promised(url);
        await p.exec("DROP TABLE IF EXISTS rp; CREATE TABLE rp(a)");
        await (await p.prepare("INSERT INTO rp VALUES (?)")).run(1);
        equal((await (await p.prepare("SELECT a FROM rp")).all()).map((r) => r.a), [1]);
        p.close();
    },

    own_writes() {
        db.exec("DROP TABLE IF EXISTS ro; CREATE TABLE ro(n); INSERT INTO ro VALUES (0)");
        const up = db.prepare("UPDATE ro SET n = n + 1"), get = db.prepare("SELECT n FROM ro");
        for (let i = 1; i <= 50; i++) {
            up.run();
            equal(get.get().n, i, "read after the write");
        }
        db.close();
    },
});
