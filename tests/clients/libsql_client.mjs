// @libsql/client, over http: or ws:, as the URL says.
import { createClient, LibsqlError } from "@libsql/client";
import { equal, expect, fails, run, url } from "./check.mjs";

const db = createClient({ url });

async function fresh(name, columns) {
    await db.batch([`DROP TABLE IF EXISTS ${name}`, `CREATE TABLE ${name}(${columns})`], "write");
}

async function rows(sql, args = []) {
    return (await db.execute({ sql, args })).rows.map((row) => [...Array(Object.keys(row).length)
        .keys()].map((i) => row[i]));
}

await run({
    async execute() {
        await fresh("ex", "id INTEGER PRIMARY KEY, a, b TEXT");
        const inserted = await db.execute({ sql: "INSERT INTO ex(a, b) VALUES (?, ?)",
                                            args: [1.5, "x"] });
        equal(inserted.rowsAffected, 1);
        equal(inserted.lastInsertRowid, 1n);
        const named = await db.execute({ sql: "INSERT INTO ex(a, b) VALUES (:a, $b) RETURNING id",
                                         args: { a: 2, b: "y" } });
        equal(named.rows[0].id, 2);
        equal(named.columns, ["id"]);
        const updated = await db.execute("UPDATE ex SET a = a + 1");
        equal(updated.rowsAffected, 2);
        const found = await db.execute("SELECT id, a, b FROM ex ORDER BY id");
        equal(found.columns, ["id", "a", "b"]);
        equal(found.columnTypes, ["INTEGER", "", "TEXT"]);
        equal(found.rowsAffected, 0);
        equal(found.rows[0].b, "x");
        equal(found.rows[1][1], 3);
        equal(found.rows[1].length, 3);
        equal((await db.execute("SELECT 1 WHERE 0")).rows.length, 0);
        equal((await db.execute("CREATE TABLE IF NOT EXISTS ex(a)")).rowsAffected, 0);
        equal((await db.execute("DELETE FROM ex")).rowsAffected, 2);
    },

    async values() {
        await fresh("val", "id INTEGER PRIMARY KEY, v");
        const when = new Date("2026-02-03T04:05:06.789Z");
        const text = "Zoë \u0000 \u{1F600} \"'\\ \u2028 \ud7ff 漢字";
        const given = [null, true, false, 0, -0.5, 1e300, 5e-324, 12345678901234567n, "", text, when,
                       new Uint8Array(0), new Uint8Array([0, 255, 1, 2]), "x".repeat(100000)];
        const back = [null, 1, 0, 0, -0.5, 1e300, 5e-324, undefined, "", text, when.valueOf(),
                      new ArrayBuffer(0), new Uint8Array([0, 255, 1, 2]).buffer,
                      "x".repeat(100000)];
        for (const [i, v] of given.entries()) {
            const [r] = await rows(back[i] === undefined ? "SELECT cast(? AS text)" : "SELECT ?", [v]);
            equal(r[0], back[i] === undefined ? String(v) : back[i], `value ${i}`);
            await db.execute({ sql: "INSERT INTO val VALUES (?, ?)", args: [i, v] });
        }
        for (const [i, v] of back.entries())
            if (v !== undefined)
                equal((await rows("SELECT v FROM val WHERE id = ?", [i]))[0][0], v, `kept ${i}`);
        equal((await rows("SELECT hex(v) FROM val WHERE id = 12"))[0][0], "00FF0102");
        equal((await rows("SELECT cast(x'ff41' AS text)"))[0][0], "\ufffdA");
        await fails(() => db.execute({ sql: "SELECT ?", args: [NaN] }));
        // This driver sends each number as a float.
        equal(await rows("SELECT typeof(?) AS a, typeof(?) AS b", [3, 3n]), [["real", "integer"]]);
    },

    async bigints() {
        await fresh("big", "v INTEGER");
        const numbers = [0n, -1n, 9007199254740991n, 9007199254740993n, 9223372036854775807n,
                         -9223372036854775808n];
        await db.batch(numbers.map((n) => ({ sql: "INSERT INTO big VALUES (?)", args: [n] })),
                       "write");
        const as = async (intMode) => {
            const client = createClient({ url, intMode });
            try {
                return (await client.execute("SELECT v FROM big ORDER BY rowid")).rows.map((r) => r.v);
            } finally {
                client.close();
            }
        };
        equal(await as("bigint"), numbers);
        equal(await as("string"), numbers.map(String));
        await fails(() => as("number"), undefined, /too large|safely/);
        await fails(() => db.execute({ sql: "SELECT ?", args: [9223372036854775808n] }));
        await db.execute("DELETE FROM big WHERE abs(v / 2) > 4503599627370495");
        equal(await as("number"), [0, -1, 9007199254740991]);
    },

    async batches() {
        await fresh("ba", "id INTEGER PRIMARY KEY, v NOT NULL");
        for (const mode of ["write", "deferred"]) {
            const r = await db.batch([
                { sql: "INSERT INTO ba(v) VALUES (?)", args: [mode] },
                { sql: "INSERT INTO ba(v) VALUES (:v) RETURNING v", args: { v: mode + 2 } },
                "UPDATE ba SET v = v || '!'",
                "SELECT count(*) AS n FROM ba",
            ], mode);
            equal(r.map((x) => x.rowsAffected), mode === "write" ? [1, 1, 2, 0] : [1, 1, 4, 0], mode);
            equal(r[1].rows[0].v, mode + 2);
            equal(r[3].rows[0].n, mode === "write" ? 2 : 4);
        }
        const read = await db.batch(["SELECT count(*) AS n FROM ba", "SELECT max(id) AS m FROM ba"],
                                    "read");
        equal([read[0].rows[0].n, read[1].rows[0].m], [4, 4]);
        const error = await fails(() => db.batch(["INSERT INTO ba(v) VALUES ('lost')",
            "INSERT INTO ba(v) VALUES (NULL)", "INSERT INTO ba(v) VALUES ('not run')"], "write"),
                                  "SQLITE_CONSTRAINT", /NOT NULL constraint failed: ba\.v/);
        equal(error.statementIndex, 1);
        await fails(() => db.batch(["INSERT INTO ba(v) VALUES ('refused')"], "read"),
                    "SQLITE_READONLY");
        equal((await rows("SELECT count(*) FROM ba"))[0][0], 4);
        // One error, which can be caught: a second one, of a step behind it, ends the process.
        const big = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 12) " +
                    "SELECT hex(zeroblob(500000)) FROM c";
        for (const mode of ["read", "deferred", "write"])
            await fails(() => db.batch(["SELECT 1", big, "SELECT 2"], mode), "RESPONSE_TOO_LARGE",
                        /^RESPONSE_TOO_LARGE: the answer /);
        await fails(() => db.batch(["DELETE FROM ba WHERE id > 3", big], "write"),
                    "RESPONSE_TOO_LARGE", /it was done, but /);
        equal((await rows("SELECT count(*) FROM ba"))[0][0], 3);
        const many = [...Array(500).keys()].map((i) => ({ sql: "INSERT INTO ba(v) VALUES (?)",
                                                          args: [i] }));
        equal((await db.batch(many, "write")).length, 500);
        equal((await rows("SELECT count(*) FROM ba"))[0][0], 503);
    },

    async transactions() {
        await fresh("tr", "id INTEGER PRIMARY KEY, v UNIQUE");
        let tx = await db.transaction("write");
        await tx.execute("INSERT INTO tr(v) VALUES (1)");
        equal((await tx.execute("SELECT count(*) AS n FROM tr")).rows[0].n, 1);
        equal((await rows("SELECT count(*) FROM tr"))[0][0], 0, "before its commit, outside");
        await tx.commit();
        equal(tx.closed, true);
        equal((await rows("SELECT count(*) FROM tr"))[0][0], 1);

        tx = await db.transaction("write");
        await tx.batch(["INSERT INTO tr(v) VALUES (2)", "INSERT INTO tr(v) VALUES (3)"]);
        await tx.rollback();
        await fails(() => tx.execute("SELECT 1"), "TRANSACTION_CLOSED");

        tx = await db.transaction("write");
        await tx.execute("INSERT INTO tr(v) VALUES (4)");
        tx.close(); // without commit: rolled back

        tx = await db.transaction("deferred");
        equal((await tx.execute("SELECT count(*) AS n FROM tr")).rows[0].n, 1);
        await tx.execute("INSERT INTO tr(v) VALUES (5)");
        await fails(() => tx.execute("INSERT INTO tr(v) VALUES (5)"), "SQLITE_CONSTRAINT",
                    /UNIQUE constraint failed: tr\.v/);
        await fails(() => tx.execute("not SQL"));
        await tx.executeMultiple("INSERT INTO tr(v) VALUES (6); INSERT INTO tr(v) VALUES (7);");
        await tx.commit(); // an error inside ends the statement, not the transaction
        equal(await rows("SELECT v FROM tr ORDER BY v"), [[1], [5], [6], [7]]);

        tx = await db.transaction("read");
        equal((await tx.execute("SELECT count(*) AS n FROM tr")).rows[0].n, 4);
        await db.execute("INSERT INTO tr(v) VALUES (8)");
        equal((await tx.execute("SELECT count(*) AS n FROM tr")).rows[0].n, 4, "its snapshot");
        await fails(() => tx.execute("INSERT INTO tr(v) VALUES (9)"), "SQLITE_READONLY");
        await tx.commit();
        equal((await rows("SELECT count(*) FROM tr"))[0][0], 5);
    },

    async migrations() {
        await db.execute("DROP TABLE IF EXISTS child");
        await fresh("parent", "id INTEGER PRIMARY KEY");
        await fresh("child", "id INTEGER PRIMARY KEY, parent REFERENCES parent(id)");
        await db.batch(["INSERT INTO parent VALUES (1)", "INSERT INTO child VALUES (1, 1)"],
                       "write");
        await fails(() => db.execute("DELETE FROM parent"), "SQLITE_CONSTRAINT",
                    /FOREIGN KEY constraint failed/);
        await db.migrate([ // SQLite's way to change a table: foreign keys are off meanwhile
            "CREATE TABLE parent_new(id INTEGER PRIMARY KEY, name TEXT NOT NULL DEFAULT 'x')",
            "INSERT INTO parent_new(id) SELECT id FROM parent",
            "DROP TABLE parent",
            "ALTER TABLE parent_new RENAME TO parent",
        ]);
        equal(await rows("SELECT name FROM parent"), [["x"]]);
        equal(await rows("SELECT parent FROM child"), [[1]]);
        await fails(() => db.execute("DELETE FROM parent"), "SQLITE_CONSTRAINT", /FOREIGN KEY/);
        await fails(() => db.migrate(["CREATE TABLE half(a)", "CREATE TABLE parent(a)"]));
        equal(await rows("SELECT count(*) FROM sqlite_schema WHERE name = 'half'"), [[0]]);
    },

    async texts() {
        await db.executeMultiple(`
            DROP TABLE IF EXISTS m; -- a comment; with a semicolon
            CREATE TABLE m(a);
            CREATE TRIGGER mt AFTER INSERT ON m BEGIN UPDATE m SET a = a || ';'; END;
            INSERT INTO m VALUES ('a;b');
            SELECT * FROM m;`);
        equal(await rows("SELECT a FROM m"), [["a;b;"]]);
        await db.executeMultiple("BEGIN; INSERT INTO m VALUES (2); INSERT INTO m VALUES (3); COMMIT");
        equal(await rows("SELECT count(*) FROM m"), [[3]]);
        await fails(() => db.executeMultiple("INSERT INTO m VALUES (4); nonsense; " +
                                             "INSERT INTO m VALUES (5)"));
        equal(await rows("SELECT count(*) FROM m"), [[4]], "each for itself, up to the error");
        await db.executeMultiple("");
    },

    async errors() {
        await fresh("er", "id INTEGER PRIMARY KEY, v UNIQUE, c CHECK (c < 5)");
        await db.execute("INSERT INTO er VALUES (1, 1, 1)");
        const unique = await fails(() => db.execute("INSERT INTO er VALUES (2, 1, 1)"),
                                   "SQLITE_CONSTRAINT", /UNIQUE constraint failed: er\.v/);
        expect(unique instanceof LibsqlError, "a LibsqlError");
        await fails(() => db.execute("INSERT INTO er VALUES (1, 2, 1)"), "SQLITE_CONSTRAINT",
                    /UNIQUE constraint failed: er\.id/);
        await fails(() => db.execute("INSERT INTO er VALUES (3, 3, 9)"), "SQLITE_CONSTRAINT",
                    /CHECK constraint failed/);
        await fails(() => db.execute("SELEKT 1"), undefined, /near "SELEKT": syntax error/);
        await fails(() => db.execute("SELECT * FROM nowhere"), undefined, /no such table: nowhere/);
        await fails(() => db.execute("SELECT 1; SELECT 2"), "SQL_MANY_STATEMENTS");
        await fails(() => db.execute(""), "SQL_NO_STATEMENT");
        await fails(() => db.execute({ sql: "SELECT ?, ?", args: [1] }), "ARGS_INVALID",
                    /no value for 2/);
        await fails(() => db.batch([{ sql: "INSERT INTO er VALUES (5, ?, :b)", args: { a: 1 } }],
                                   "write"), "ARGS_INVALID");
        await fails(() => db.execute({ sql: "SELECT ?", args: [1, 2] }), "ARGS_INVALID");
        await fails(() => db.execute({ sql: "SELECT :a", args: { b: 1 } }), "ARGS_INVALID");
        equal((await rows("SELECT count(*) FROM er"))[0][0], 1);
    },

    async large() {
        const n = 20000;
        const r = await db.execute(`WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c
            WHERE i < ${n}) SELECT i, 'row ' || i AS t, randomblob(20) AS b FROM c`);
        equal(r.rows.length, n);
        equal(r.rows[n - 1].t, `row ${n}`);
        equal(r.rows[7].b.byteLength, 20);
        const blob = new Uint8Array(4 << 20).map((_, i) => i * 31);
        await fresh("la", "b");
        await db.execute({ sql: "INSERT INTO la VALUES (?)", args: [blob] });
        const back = new Uint8Array((await db.execute("SELECT b FROM la")).rows[0].b);
        expect(Buffer.compare(back, blob) === 0, "4 MiB there and back");
    },

    async many_at_once() {
        await fresh("co", "id INTEGER PRIMARY KEY, v");
        await Promise.all([...Array(200).keys()].map((i) => i % 4 === 0
            ? db.batch([{ sql: "INSERT INTO co VALUES (?, 1)", args: [i] },
                        { sql: "UPDATE co SET v = 2 WHERE id = ?", args: [i] }], "write")
            : db.execute({ sql: "INSERT INTO co VALUES (?, 2)", args: [i] })));
        equal(await rows("SELECT count(*), min(v), max(v) FROM co"), [[200, 2, 2]]);
    },

    async own_writes() {
        await fresh("ow", "n");
        await db.execute("INSERT INTO ow VALUES (0)");
        for (let i = 1; i <= 100; i++) { // a follower answers when it has applied what it passed on
            await db.execute("UPDATE ow SET n = n + 1");
            equal((await rows("SELECT n FROM ow"))[0][0], i, "read after the write");
        }
    },

    async closed() {
        const client = createClient({ url });
        client.close();
        await fails(() => client.execute("SELECT 1"), undefined, /closed/);
        db.close();
    },
});
