// TypeORM with libsql in place of better-sqlite3: its Rust core, Hrana 3. Entities as schemas, for
// decorators need a compiler.
import { createRequire } from "node:module";
import Database from "libsql";
import { equal, expect, fails, run, url } from "./check.mjs";

const { DataSource, EntitySchema } = createRequire(import.meta.url)("typeorm");

const Author = new EntitySchema({ name: "Author", tableName: "to_author", columns: {
    id: { type: Number, primary: true, generated: true },
    name: { type: String, unique: true },
    born: { type: "datetime", nullable: true },
    active: { type: Boolean, default: true },
    photo: { type: "blob", nullable: true },
    notes: { type: "simple-json", nullable: true },
}, relations: {
    books: { type: "one-to-many", target: "Book", inverseSide: "author", cascade: true },
} });
const Book = new EntitySchema({ name: "Book", tableName: "to_book", columns: {
    id: { type: Number, primary: true, generated: true },
    title: { type: String },
}, relations: {
    author: { type: "many-to-one", target: "Author", inverseSide: "books", onDelete: "CASCADE",
              nullable: false },
    tags: { type: "many-to-many", target: "Tag", cascade: true, joinTable: { name: "to_book_tag" } },
} });
const Tag = new EntitySchema({ name: "Tag", tableName: "to_tag", columns: {
    word: { type: String, primary: true } } });

class Years1700000000000 {
    name = "Years1700000000000";
    async up(q) {
        await q.query("ALTER TABLE to_book ADD COLUMN year INTEGER");
        await q.query("INSERT INTO to_tag(word) VALUES ('migrated')");
    }
    async down(q) {
        await q.query("DELETE FROM to_tag WHERE word = 'migrated'");
        await q.query("ALTER TABLE to_book DROP COLUMN year");
    }
}

class Broken1800000000000 {
    name = "Broken1800000000000";
    async up(q) {
        await q.query("CREATE TABLE to_half(a)");
        await q.query("CREATE TABLE to_book(a)");
    }
    async down() {}
}

// Without a cache: a statement that was prepared outside of a transaction would end it.
const source = (more) => new DataSource({ type: "better-sqlite3", driver: Database, database: url,
    statementCacheSize: 0, entities: [Author, Book, Tag], migrationsTableName: "to_migrations", ...more });
const db = source({ migrations: [Years1700000000000] });

await run({
    async schema() {
        await db.initialize();
        for (const t of ["to_book_tag", "to_tag", "to_book", "to_author", "to_migrations"])
            await db.query(`DROP TABLE IF EXISTS ${t}`);
        await db.synchronize();
        equal((await db.driver.createSchemaBuilder().log()).upQueries.length, 0, "what it made");
    },

    async migrations() {
        equal((await db.runMigrations()).length, 1);
        equal((await db.runMigrations()).length, 0);
        equal(await db.query("SELECT word FROM to_tag"), [{ word: "migrated" }]);
        await db.undoLastMigration();
        equal(await db.query("SELECT count(*) AS n FROM to_tag"), [{ n: 0 }]);
        const other = source({ migrations: [Broken1800000000000] });
        await other.initialize();
        await fails(() => other.runMigrations(), undefined, /already exists/);
        equal(await db.query("SELECT count(*) AS n FROM sqlite_schema WHERE name = 'to_half'"),
              [{ n: 0 }]);
        await other.destroy();
    },

    async values() {
        const data = { name: "Ann", born: new Date("1901-02-03T04:05:06.007Z"), active: false,
                       photo: Buffer.from([0, 1, 255]), notes: { a: [1, "Zoë \u{1F600}"] } };
        const authors = db.getRepository(Author);
        equal((await authors.save({ ...data })).id, 1);
        const back = await authors.findOneBy({ name: "Ann" });
        for (const [key, value] of Object.entries(data))
            equal(key === "photo" ? Buffer.from(back[key]) : back[key], value, key);
        equal((await authors.save({ name: "Bob" })).active, true);
    },

    async relations() {
        const authors = db.getRepository(Author), books = db.getRepository(Book);
        await authors.save({ name: "Cay", books: [
            { title: "One", tags: [{ word: "red" }] },
            { title: "Two", tags: [{ word: "red" }, { word: "blue" }] }] });
        const cay = await authors.findOne({ where: { name: "Cay" }, relations: { books: { tags: true } },
                                            order: { books: { title: "ASC", tags: { word: "ASC" } } } });
        equal(cay.books.map((b) => [b.title, b.tags.map((t) => t.word)]),
              [["One", ["red"]], ["Two", ["blue", "red"]]]);
        const counts = await authors.createQueryBuilder("a").leftJoin("a.books", "b")
            .select("a.name", "name").addSelect("count(b.id)", "n").groupBy("a.id").orderBy("a.name")
            .getRawMany();
        equal(counts, [{ name: "Ann", n: 0 }, { name: "Bob", n: 0 }, { name: "Cay", n: 2 }]);
        equal((await books.update({ title: "One" }, { title: "1" })).affected, 1);
        equal(await books.countBy({ title: "1" }), 1);
        equal((await books.insert([...Array(100).keys()].map((i) => ({ title: `${i}`,
            author: { id: 1 } })))).identifiers.length, 100);
        await authors.remove(cay);
        equal(await books.count(), 100, "cascaded");
        const [page, all] = await books.findAndCount({ skip: 10, take: 5, order: { id: "ASC" } });
        equal([page.map((b) => b.title), all], [["10", "11", "12", "13", "14"], 100]);
    },

    async transactions() {
        await db.transaction(async (tx) => {
            const dan = await tx.save(Author, { name: "Dan" });
            await tx.save(Book, { title: "Three", author: dan });
        });
        await fails(() => db.transaction(async (tx) => {
            await tx.save(Author, { name: "lost" });
            throw new Error("no");
        }), undefined, /no/);
        await fails(() => db.transaction(async (tx) => {
            await tx.insert(Author, { name: "lost" });
            await tx.insert(Author, { name: "Dan" });
        }), undefined, /UNIQUE/);
        // The same statement, outside and in transactions.
        const up = (tx, year) => tx.query("UPDATE to_author SET born = ? WHERE name = 'Dan'", [year]);
        await up(db, 1);
        await db.transaction(async (tx) => {
            await up(tx, 2);
            await up(tx, 3);
        });
        await fails(() => db.transaction(async (tx) => {
            await up(tx, 4);
            await up(tx, 5);
            throw new Error("no");
        }), undefined, /^no$/);
        equal(await db.query("SELECT born FROM to_author WHERE name = 'Dan'"), [{ born: 3 }]);
        equal((await db.getRepository(Author).find({ order: { id: "ASC" } })).map((a) => a.name),
              ["Ann", "Bob", "Dan"]);
    },

    async errors() {
        const e = await fails(() => db.getRepository(Author).insert({ name: "Dan" }), undefined,
                              /UNIQUE constraint failed: to_author\.name/);
        equal(e.name, "QueryFailedError");
        await fails(() => db.getRepository(Book).insert({ title: "x", author: { id: 999 } }), undefined,
                    /FOREIGN KEY/);
        await fails(() => db.query("SELECT * FROM nowhere"), undefined, /no such table/);
        await db.destroy();
    },
});
