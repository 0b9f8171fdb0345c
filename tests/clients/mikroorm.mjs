// MikroORM with @mikro-orm/libsql: libSQL's Rust core below Knex. Entities as schemas.
import { EntitySchema } from "@mikro-orm/core";
import { MikroORM } from "@mikro-orm/libsql";
import { LibSqlKnexDialect } from "@mikro-orm/knex";
import { equal, expect, fails, run, url } from "./check.mjs";

const Author = new EntitySchema({ name: "Author", tableName: "mi_author", properties: {
    id: { type: "number", primary: true },
    name: { type: "string", unique: true },
    born: { type: "datetime", nullable: true },
    active: { type: "boolean", default: true },
    photo: { type: "blob", nullable: true },
    notes: { type: "json", nullable: true },
    big: { type: "bigint", nullable: true },
    books: { kind: "1:m", entity: () => "Book", mappedBy: "author", orphanRemoval: true },
} });
const Book = new EntitySchema({ name: "Book", tableName: "mi_book", properties: {
    id: { type: "number", primary: true },
    title: { type: "string" },
    author: { kind: "m:1", entity: () => "Author", deleteRule: "cascade" },
    tags: { kind: "m:n", entity: () => "Tag", pivotTable: "mi_book_tag" },
} });
const Tag = new EntitySchema({ name: "Tag", tableName: "mi_tag", properties: {
    word: { type: "string", primary: true } } });

// The Rust core does not see a BEGIN that is run as a query, as @mikro-orm/libsql does: the next
// statement that is none closes its stream, and with it the transaction, whatever the server is.
class Dialect extends LibSqlKnexDialect {
    getCallMethod(asked) {
        return /^(begin|commit|rollback)/i.test(asked.sql) ? "run" : super.getCallMethod(asked);
    }
}

const orm = await MikroORM.init({ dbName: url, entities: [Author, Book, Tag], ensureDatabase: false,
                                  driverOptions: { client: Dialect } });

await run({
    async schema() {
        await orm.schema.refreshDatabase();
        equal(await orm.schema.getUpdateSchemaSQL(), "", "what it made");
    },

    async values() {
        const data = { name: "Ann", born: new Date("1901-02-03T04:05:06.007Z"), active: false,
                       photo: Buffer.from([0, 1, 255]), notes: { a: [1, "Zoë \u{1F600}"] }, big: 12n };
        const ann = orm.em.fork();
        ann.create(Author, data);
        await ann.flush();
        const back = await orm.em.fork().findOneOrFail(Author, { name: "Ann" });
        for (const [key, value] of Object.entries(data))
            equal(key === "photo" ? Buffer.from(back[key]) : back[key], value, key);
    },

    async relations() {
        const em = orm.em.fork();
        const red = em.create(Tag, { word: "red" }), blue = em.create(Tag, { word: "blue" });
        em.create(Author, { name: "Bob" });
        em.create(Author, { name: "Cay", books: [{ title: "One", tags: [red] },
                                                 { title: "Two", tags: [red, blue] }] });
        await em.flush();
        const cay = await orm.em.fork().findOneOrFail(Author, { name: "Cay" }, {
            populate: ["books.tags"], orderBy: { books: { title: "asc", tags: { word: "asc" } } } });
        equal(cay.books.map((b) => [b.title, b.tags.map((t) => t.word)]),
              [["One", ["red"]], ["Two", ["blue", "red"]]]);
        equal(await orm.em.fork().count(Book, { author: { name: "Cay" } }), 2);
        const one = orm.em.fork();
        const loaded = await one.findOneOrFail(Author, { name: "Cay" }, { populate: ["books"] });
        loaded.books.remove(loaded.books.getItems()[0]);
        loaded.active = false;
        await one.flush();
        equal(await orm.em.fork().count(Book), 1, "the orphan is gone");
        equal(await orm.em.fork().nativeUpdate(Book, {}, { title: "X" }), 1);
        equal(await orm.em.fork().nativeDelete(Author, { name: "Cay" }), 1);
        equal(await orm.em.fork().count(Book), 0, "cascaded");
        const many = orm.em.fork();
        for (let i = 0; i < 100; i++)
            many.create(Book, { title: `${i}`, author: 1 });
        await many.flush();
        const [page, all] = await orm.em.fork().findAndCount(Book, {}, { offset: 10, limit: 3,
                                                                         orderBy: { id: "asc" } });
        equal([page.map((b) => b.title), all], [["10", "11", "12"], 100]);
    },

    async transactions() {
        await orm.em.fork().transactional(async (em) => {
            em.create(Author, { name: "Dan", books: [{ title: "Three" }] });
        });
        await fails(() => orm.em.fork().transactional(async (em) => {
            em.create(Author, { name: "lost" });
            await em.flush();
            throw new Error("no");
        }), undefined, /no/);
        await fails(() => orm.em.fork().transactional(async (em) => {
            await em.insert(Author, { name: "lost" });
            await em.insert(Author, { name: "Dan" });
        }));
        equal((await orm.em.fork().findAll(Author, { orderBy: { id: "asc" } })).map((a) => a.name),
              ["Ann", "Bob", "Dan"]);
    },

    async errors() {
        const unique = await fails(() => orm.em.fork().insert(Author, { name: "Dan" }), undefined,
                                   /UNIQUE constraint failed: mi_author\.name/);
        equal(unique.name, "UniqueConstraintViolationException");
        const foreign = await fails(() => orm.em.fork().insert(Book, { title: "x", author: 999 }),
                                    undefined, /FOREIGN KEY/);
        equal(foreign.name, "ForeignKeyConstraintViolationException");
        const missing = await fails(() => orm.em.fork().execute("SELECT * FROM nowhere"));
        equal(missing.name, "TableNotFoundException");
        await orm.close();
    },
});
