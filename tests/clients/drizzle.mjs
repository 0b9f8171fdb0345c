// Drizzle on @libsql/client: migration files, relations, the query builder, transactions.
import { createClient } from "@libsql/client";
import { and, avg, count, desc, eq, gt, inArray, like, relations, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/libsql";
import { migrate } from "drizzle-orm/libsql/migrator";
import { blob, integer, primaryKey, real, sqliteTable, text } from "drizzle-orm/sqlite-core";
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { equal, expect, fails, run, url } from "./check.mjs";

const authors = sqliteTable("dz_author", {
    id: integer("id").primaryKey({ autoIncrement: true }),
    name: text("name").notNull().unique(),
    born: integer("born", { mode: "timestamp_ms" }),
    active: integer("active", { mode: "boolean" }).notNull().default(true),
    extra: text("extra", { mode: "json" }),
    big: blob("big", { mode: "bigint" }),
    photo: blob("photo", { mode: "buffer" }),
});
const books = sqliteTable("dz_book", {
    id: integer("id").primaryKey(),
    title: text("title").notNull(),
    price: real("price"),
    author: integer("author").notNull().references(() => authors.id, { onDelete: "cascade" }),
});
const tags = sqliteTable("dz_tag", { id: integer("id").primaryKey(), word: text("word").notNull() });
const booksToTags = sqliteTable("dz_book_tag", {
    book: integer("book").notNull().references(() => books.id, { onDelete: "cascade" }),
    tag: integer("tag").notNull().references(() => tags.id),
}, (t) => [primaryKey({ columns: [t.book, t.tag] })]);
const schema = {
    authors, books, tags, booksToTags,
    authorRelations: relations(authors, ({ many }) => ({ books: many(books) })),
    bookRelations: relations(books, ({ one, many }) => ({
        writer: one(authors, { fields: [books.author], references: [authors.id] }),
        tags: many(booksToTags),
    })),
    tagRelations: relations(booksToTags, ({ one }) => ({
        book: one(books, { fields: [booksToTags.book], references: [books.id] }),
        word: one(tags, { fields: [booksToTags.tag], references: [tags.id] }),
    })),
};

// As drizzle-kit writes them.
const migrations = [
    ["0000_first", ["CREATE TABLE `dz_author` (\n\t`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,\n" +
        "\t`name` text NOT NULL,\n\t`born` integer,\n\t`active` integer DEFAULT true NOT NULL,\n" +
        "\t`extra` text,\n\t`big` blob\n);",
        "CREATE UNIQUE INDEX `dz_author_name` ON `dz_author` (`name`);",
        "CREATE TABLE `dz_book` (\n\t`id` integer PRIMARY KEY NOT NULL,\n\t`title` text NOT NULL,\n" +
        "\t`author` integer NOT NULL,\n" +
        "\tFOREIGN KEY (`author`) REFERENCES `dz_author`(`id`) ON DELETE cascade\n);",
        "INSERT INTO dz_author(name) VALUES ('before')",
        "INSERT INTO dz_book(title, author) VALUES ('before', 1)"]],
    ["0001_second", ["PRAGMA foreign_keys=OFF;",
        "CREATE TABLE `__new_dz_book` (\n\t`id` integer PRIMARY KEY NOT NULL,\n" +
        "\t`title` text NOT NULL,\n\t`price` real,\n\t`author` integer NOT NULL,\n" +
        "\tFOREIGN KEY (`author`) REFERENCES `dz_author`(`id`) ON DELETE cascade\n);",
        "INSERT INTO `__new_dz_book`(id, title, author) SELECT id, title, author FROM `dz_book`;",
        "DROP TABLE `dz_book`;", "ALTER TABLE `__new_dz_book` RENAME TO `dz_book`;",
        "PRAGMA foreign_keys=ON;",
        "ALTER TABLE `dz_author` ADD `photo` blob;",
        "CREATE TABLE `dz_tag` (`id` integer PRIMARY KEY NOT NULL, `word` text NOT NULL);",
        "CREATE TABLE `dz_book_tag` (`book` integer NOT NULL, `tag` integer NOT NULL," +
        " PRIMARY KEY(`book`, `tag`)," +
        " FOREIGN KEY (`book`) REFERENCES `dz_book`(`id`) ON DELETE cascade," +
        " FOREIGN KEY (`tag`) REFERENCES `dz_tag`(`id`));"]],
];

// The directory that drizzle-kit would have made, with the first N migrations.
function folder(n) {
    const dir = mkdtempSync(join(tmpdir(), "drizzle-"));
    mkdirSync(join(dir, "meta"));
    const entries = migrations.slice(0, n).map(([tag, statements], idx) => {
        writeFileSync(join(dir, `${tag}.sql`), statements.join("\n--> statement-breakpoint\n"));
        return { idx, version: "6", when: 1700000000000 + idx, tag, breakpoints: true };
    });
    writeFileSync(join(dir, "meta", "_journal.json"),
                  JSON.stringify({ version: "7", dialect: "sqlite", entries }));
    return dir;
}

const client = createClient({ url });
const db = drizzle(client, { schema });

await run({
    async migrations() {
        await client.migrate(["dz_book_tag", "dz_tag", "dz_book", "dz_author", "__drizzle_migrations"]
            .map((t) => `DROP TABLE IF EXISTS ${t}`));
        await migrate(db, { migrationsFolder: folder(1) });
        equal((await db.all(sql`SELECT count(*) AS n FROM dz_book`))[0].n, 1);
        await migrate(db, { migrationsFolder: folder(2) });
        await migrate(db, { migrationsFolder: folder(2) }); // nothing to do
        equal(await db.$count(books), 1, "books survive that their table is made anew");
        equal((await db.all(sql`SELECT count(*) AS n FROM __drizzle_migrations`))[0].n, 2);
        await db.delete(authors);
        equal(await db.$count(books), 0, "foreign keys are on");
    },

    async values() {
        const born = new Date("1901-02-03T04:05:06.007Z");
        const [a] = await db.insert(authors).values({
            name: "Ann", born, active: false, extra: { a: [1, null, "Ü"] }, big: 2n ** 62n + 1n,
            photo: Buffer.from([0, 1, 255]) }).returning();
        equal([a.born, a.active, a.extra, a.big], [born, false, { a: [1, null, "Ü"] }, 2n ** 62n + 1n]);
        equal([...a.photo], [0, 1, 255]);
        const [b] = await db.insert(authors).values({ name: "Bob" }).returning();
        equal([b.active, b.born, b.extra, b.big, b.photo], [true, null, null, null, null]);
        equal(b.id, a.id + 1);
    },

    async builder() {
        const [ann, bob] = await db.select().from(authors).orderBy(authors.name);
        await db.insert(books).values([
            { id: 1, title: "One", price: 10, author: ann.id },
            { id: 2, title: "Two", price: 20.5, author: ann.id },
            { id: 3, title: "Three", author: bob.id }]);
        await db.insert(tags).values([{ id: 1, word: "red" }, { id: 2, word: "blue" }]);
        await db.insert(booksToTags).values([{ book: 1, tag: 1 }, { book: 1, tag: 2 },
                                             { book: 3, tag: 2 }]);
        equal(await db.select({ name: authors.name, n: count(books.id), mean: avg(books.price) })
            .from(authors).leftJoin(books, eq(books.author, authors.id)).groupBy(authors.id)
            .orderBy(desc(count(books.id))),
              [{ name: "Ann", n: 2, mean: "15.25" }, { name: "Bob", n: 1, mean: null }]);
        equal((await db.select().from(books).where(and(gt(books.price, 15), like(books.title, "T%"))))
            .map((x) => x.id), [2]);
        const r = await db.update(books).set({ price: sql`${books.price} * 2` })
            .where(inArray(books.id, [1, 2]));
        equal(r.rowsAffected, 2);
        await db.insert(books).values({ id: 1, title: "Again", author: bob.id })
            .onConflictDoUpdate({ target: books.id, set: { title: "One, again" } });
        equal((await db.select().from(books).where(eq(books.id, 1)).get()).title, "One, again");
        const prepared = db.select().from(books).where(eq(books.id, sql.placeholder("id"))).prepare();
        equal((await prepared.get({ id: 2 })).price, 41);
        equal(await prepared.get({ id: 99 }), undefined);
    },

    async relational() {
        const found = await db.query.authors.findMany({
            columns: { name: true }, orderBy: authors.name,
            with: { books: { columns: { title: true }, orderBy: books.id,
                             with: { tags: { with: { word: true }, columns: {} } } } } });
        equal(found.map((a) => [a.name, a.books.map((b) => [b.title,
                                                            b.tags.map((t) => t.word.word).sort()])]),
              [["Ann", [["One, again", ["blue", "red"]], ["Two", []]]],
               ["Bob", [["Three", ["blue"]]]]]);
        const book = await db.query.books.findFirst({ where: eq(books.id, 3), with: { writer: true } });
        equal(book.writer.name, "Bob");
    },

    async transactions() {
        await db.transaction(async (tx) => {
            await tx.insert(tags).values({ id: 3, word: "green" });
            equal(await tx.$count(tags), 3);
            equal(await db.$count(tags), 2, "from outside");
            await fails(() => tx.transaction(async (inner) => { // a savepoint
                await inner.insert(tags).values({ id: 4, word: "lost" });
                throw new Error("no");
            }));
        });
        equal((await db.select().from(tags)).length, 3);
        await fails(() => db.transaction(async (tx) => {
            await tx.insert(tags).values({ id: 5, word: "lost" });
            tx.rollback();
        }));
        const e = await fails(() => db.transaction(async (tx) => {
            await tx.insert(tags).values({ id: 6, word: "lost" });
            await tx.insert(tags).values({ id: 6, word: "twice" });
        }));
        expect(/UNIQUE constraint failed: dz_tag\.id/.test(e.cause?.message ?? e.message), e.message);
        equal(e.cause?.code ?? e.code, "SQLITE_CONSTRAINT");
        equal(await db.$count(tags), 3);
        const [inserted, all] = await db.batch([
            db.insert(tags).values({ id: 7, word: "batch" }).returning(), db.select().from(tags)]);
        equal([inserted[0].id, all.length], [7, 4]);
    },
});
