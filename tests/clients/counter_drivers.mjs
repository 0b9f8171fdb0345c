// One piece of work of counter.mjs, as each driver's users would write it: a row, a row that refers
// to it, and one more on the counter NAME, all or nothing.
//
// Each is a function that loads its packages and returns one that opens a client at a URL: { work(id),
// close() }. What work() throws has before_commit set when COMMIT was certainly not sent.
import { generate } from "./prisma_generate.mjs";

// Runs BODY by BEGIN, which commits behind it.
async function inTransaction(begin, body) {
    let committing = false;
    try {
        await begin(async (tx) => {
            await body(tx);
            committing = true;
        });
    } catch (e) {
        e.before_commit = !committing;
        throw e;
    }
}

// The same by hand: BEGIN, then WORK and COMMIT; GIVE_UP without them.
async function byHand(work, commit, give_up) {
    try {
        await work();
    } catch (e) {
        await Promise.resolve(give_up()).catch(() => {}); // it may be broken, too
        e.before_commit = true;
        throw e;
    }
    await commit();
}

const insert = (table, column) => `INSERT INTO ${table}(${column}) VALUES (?)`;
const work = insert("work", "id"), part = insert("part", "work");
const count = "UPDATE counter SET n = n + 1 WHERE name = ?";

export const drivers = {
    // A batch of @libsql/client.
    batch: async (name) => {
        const { createClient } = await import("@libsql/client");
        return (url) => {
            const db = createClient({ url });
            return { close: () => db.close(), work: (id) => db.batch([
                { sql: work, args: [id] }, { sql: part, args: [id] }, { sql: count, args: [name] },
            ], "write") };
        };
    },

    // An interactive transaction of @libsql/client, which carries a value through the program.
    transaction: async (name) => {
        const { createClient } = await import("@libsql/client");
        return (url) => {
            const db = createClient({ url });
            return { close: () => db.close(), work: async (id) => {
                const tx = await db.transaction("write");
                await byHand(async () => {
                    await tx.execute({ sql: work, args: [id] });
                    await tx.execute({ sql: part, args: [id] });
                    const found = await tx.execute({ sql: "SELECT n FROM counter WHERE name = ?",
                                                     args: [name] });
                    await tx.execute({ sql: "UPDATE counter SET n = ? WHERE name = ?",
                                       args: [found.rows[0].n + 1, name] });
                }, () => tx.commit(), () => tx.close());
            } };
        };
    },

    drizzle: async (name) => {
        const { createClient } = await import("@libsql/client");
        const { drizzle } = await import("drizzle-orm/libsql");
        const { eq, sql } = await import("drizzle-orm");
        const { integer, sqliteTable, text } = await import("drizzle-orm/sqlite-core");
        const works = sqliteTable("work", { id: text().primaryKey() });
        const parts = sqliteTable("part", { work: text().notNull() });
        const counter = sqliteTable("counter", { name: text().primaryKey(), n: integer() });
        return (url) => {
            const client = createClient({ url });
            const db = drizzle(client);
            return { close: () => client.close(), work: (id) => inTransaction(
                (body) => db.transaction(body),
                async (tx) => {
                    await tx.insert(works).values({ id });
                    await tx.insert(parts).values({ work: id });
                    await tx.update(counter).set({ n: sql`n + 1` }).where(eq(counter.name, name));
                }) };
        };
    },

    kysely: async (name) => {
        const { LibsqlDialect } = await import("@libsql/kysely-libsql");
        const { Kysely } = await import("kysely");
        return (url) => {
            const db = new Kysely({ dialect: new LibsqlDialect({ url }) });
            return { close: () => db.destroy(), work: (id) => inTransaction(
                (body) => db.transaction().execute(body),
                async (tx) => {
                    await tx.insertInto("work").values({ id }).execute();
                    await tx.insertInto("part").values({ work: id }).execute();
                    await tx.updateTable("counter").set((e) => ({ n: e("n", "+", 1) }))
                        .where("name", "=", name).execute();
                }) };
        };
    },

    prisma: async (name) => {
        const { PrismaLibSql } = await import("@prisma/adapter-libsql");
        const { PrismaClient } = await generate("counter", "prisma-counter");
        // Its own are 2 and 5 seconds: on a loaded machine the others' turns take that long.
        const limits = { maxWait: 30000, timeout: 30000 };
        return (url) => {
            const db = new PrismaClient({ adapter: new PrismaLibSql({ url }) });
            return { close: () => db.$disconnect(), work: (id) => inTransaction(
                (body) => db.$transaction(body, limits),
                async (tx) => {
                    await tx.work.create({ data: { id, part: { create: {} } } });
                    await tx.counter.update({ where: { name }, data: { n: { increment: 1 } } });
                }) };
        };
    },

    knex: async (name) => {
        const { default: Knex } = await import("knex");
        const { default: Dialect } = await import("@libsql/knex-libsql");
        return (url) => {
            const db = Knex({ client: Dialect.default ?? Dialect, useNullAsDefault: true,
                              connection: { filename: url } });
            return { close: () => db.destroy(), work: (id) => inTransaction(
                (body) => db.transaction(body),
                async (tx) => {
                    await tx("work").insert({ id });
                    await tx("part").insert({ work: id });
                    await tx("counter").where({ name }).increment("n", 1);
                }) };
        };
    },

    sequelize: async (name) => {
        const { default: sqlite3 } = await import("@libsql/sqlite3");
        const { DataTypes, Sequelize } = await import("sequelize");
        const options = { timestamps: false, freezeTableName: true };
        const key = () => ({ type: DataTypes.TEXT, primaryKey: true });
        return (url) => {
            const db = new Sequelize({ dialect: "sqlite", dialectModule: sqlite3, storage: url,
                                       logging: false });
            const works = db.define("work", { id: key() }, options);
            const parts = db.define("part", { work: key() }, options);
            const counter = db.define("counter", { name: key(), n: DataTypes.INTEGER }, options);
            return { close: () => db.close(), work: (id) => inTransaction(
                (body) => db.transaction(body),
                async (transaction) => {
                    await works.create({ id }, { transaction });
                    await parts.create({ work: id }, { transaction });
                    await counter.increment("n", { where: { name }, transaction });
                }) };
        };
    },

    // Its batch takes texts only.
    serverless: async (name) => {
        const { connect } = await import("@tursodatabase/serverless");
        return (url) => {
            const db = connect({ url });
            return { close: () => db.close(), work: (id) => db.batch([
                `INSERT INTO work(id) VALUES ('${id}')`, `INSERT INTO part(work) VALUES ('${id}')`,
                `UPDATE counter SET n = n + 1 WHERE name = '${name}'`], "immediate") };
        };
    },

    // libSQL's Rust core: a connection is one stream, so each piece of work has its own.
    rust: async (name) => {
        const { default: Database } = await import("libsql/promise");
        return (url) => ({ close: () => {}, work: async (id) => {
            const db = new Database(url);
            try {
                await byHand(async () => {
                    await db.exec("BEGIN IMMEDIATE");
                    await db.exec(`INSERT INTO work(id) VALUES ('${id}')`);
                    await db.exec(`INSERT INTO part(work) VALUES ('${id}')`);
                    await db.exec(`UPDATE counter SET n = n + 1 WHERE name = '${name}'`);
                }, () => db.exec("COMMIT"), () => db.exec("ROLLBACK"));
            } finally {
                db.close();
            }
        } });
    },
};
