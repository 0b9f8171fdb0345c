// drizzle-kit against a node: generate, migrate, push, and what it reads back (pull). Its files are
// those that its documentation has for dialect "turso".
import { createClient } from "@libsql/client";
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { equal, expect, run, url } from "./check.mjs";

const tool = new URL("node_modules/drizzle-kit/bin.cjs", import.meta.url).pathname;
const here = new URL("drizzle-kit/", import.meta.url).pathname;
const db = createClient({ url });
const tables = ["dk_post", "dk_author", "__drizzle_migrations"];

function kit(command, ...flags) {
    return execFileSync(process.execPath, [tool, command,
        "--config", "drizzle-kit/drizzle.config.js", ...flags], {
        encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

const schema = (more, more_of_posts = "") => writeFileSync(`${here}schema.js`, `
    import { sqliteTable, integer, text, index, uniqueIndex } from "drizzle-orm/sqlite-core";
    export const authors = sqliteTable("dk_author", {
        id: integer().primaryKey({ autoIncrement: true }),
        name: text().notNull().unique(),
        ${more}
    });
    export const posts = sqliteTable("dk_post", {
        id: integer().primaryKey(),
        title: text().notNull().default("untitled"),
        author: integer().notNull().references(() => authors.id, { onDelete: "cascade" }),
        ${more_of_posts}
    }, (t) => [index("dk_by_title").on(t.title), uniqueIndex("dk_once").on(t.author, t.title)]);`);

const born = "born: integer({ mode: 'timestamp' }),";

const columns = async (table) =>
    (await db.execute(`SELECT name FROM pragma_table_info('${table}')`)).rows.map((r) => r.name);

await run({
    async generate_and_migrate() {
        rmSync(here, { recursive: true, force: true });
        mkdirSync(here, { recursive: true });
        writeFileSync(`${here}drizzle.config.js`, `export default { dialect: "turso",
            schema: "./drizzle-kit/schema.js", out: "./drizzle-kit/out", tablesFilter: ["dk_*"],
            dbCredentials: { url: ${JSON.stringify(url)} } };`);
        for (const table of tables)
            await db.execute(`DROP TABLE IF EXISTS ${table}`);
        schema("");
        kit("generate", "--name", "first");
        kit("migrate");
        equal(await columns("dk_author"), ["id", "name"]);
        await db.execute("INSERT INTO dk_author(name) VALUES ('Ann')");
        await db.execute("INSERT INTO dk_post(author) VALUES (1)");
        schema(born);
        kit("generate", "--name", "second");
        kit("migrate");
        equal(await columns("dk_author"), ["id", "name", "born"]);
        equal((await db.execute("SELECT count(*) AS n FROM __drizzle_migrations")).rows[0].n, 2);
        equal(readdirSync(`${here}out`).filter((n) => n.endsWith(".sql")).length, 2);
    },

    async push() {
        expect(/No changes detected/.test(kit("push")), "what the migrations made is the schema");
        schema(`${born} height: integer().default(7),`, "stars: integer(),");
        kit("push", "--force");
        equal(await columns("dk_author"), ["id", "name", "born", "height"]);
        equal(await columns("dk_post"), ["id", "title", "author", "stars"]);
        equal((await db.execute("SELECT a.name, a.height, p.title FROM dk_author a " +
                                "JOIN dk_post p ON p.author = a.id")).rows.map((r) => ({ ...r })),
              [{ name: "Ann", height: 7, title: "untitled" }]);
        expect(/No changes detected/.test(kit("push")), "what it pushed is the schema");
    },

    // For another type it sends ALTER TABLE ... ALTER COLUMN, which libSQL has and SQLite has not:
    // nothing is changed then.
    async push_what_only_libsql_has() {
        schema(`${born} height: text().default('7'),`, "stars: integer(),");
        kit("push", "--force");
        equal((await db.execute("SELECT type FROM pragma_table_info('dk_author') " +
                                "WHERE name = 'height'")).rows[0].type, "INTEGER");
        equal((await db.execute("SELECT count(*) AS n FROM dk_post")).rows[0].n, 1);
    },

    async pull() {
        kit("pull");
        const text = readFileSync(`${here}out/schema.ts`, "utf8");
        for (const piece of ['sqliteTable("dk_author"', "autoIncrement: true", '.default("untitled")',
                             'onDelete: "cascade"', 'index("dk_by_title")', 'uniqueIndex("dk_once")'])
            expect(text.includes(piece), `no ${piece} in ${text}`);
        db.close();
    },
});
