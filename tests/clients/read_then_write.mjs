// Transactions that read first and write then, of drivers and ORMs that begin by a plain BEGIN: several
// clients at once, and none of them tries again. For nodes with http-begin immediate.
import { createClient } from "@libsql/client";
import sqlite3 from "@libsql/sqlite3";
import Dialect from "@libsql/knex-libsql";
import { PrismaLibSql } from "@prisma/adapter-libsql";
import Knex from "knex";
import { QueryTypes, Sequelize } from "sequelize";
import { equal, run, url, urls } from "./check.mjs";
import { generate } from "./prisma_generate.mjs";

const clients = 4, each = 6;
const { PrismaClient } = await generate("counter", "prisma-counter");
const limits = { maxWait: 30000, timeout: 30000 };
const select = "SELECT n FROM counter WHERE name = ?", update = "UPDATE counter SET n = ? WHERE name = ?";

// Opens a client at a URL: its functions that raise the counter NAME, and end it.
const drivers = {
    client: (at, name) => {
        const db = createClient({ url: at });
        return [async () => {
            const tx = await db.transaction("deferred");
            try {
                const { rows } = await tx.execute({ sql: select, args: [name] });
                await tx.execute({ sql: update, args: [rows[0].n + 1, name] });
                await tx.commit();
            } finally {
                tx.close();
            }
        }, () => db.close()];
    },

    prisma: (at, name) => {
        const db = new PrismaClient({ adapter: new PrismaLibSql({ url: at }) });
        return [() => db.$transaction(async (tx) => {
            const { n } = await tx.counter.findUnique({ where: { name } });
            await tx.counter.update({ where: { name }, data: { n: n + 1 } });
        }, limits), () => db.$disconnect()];
    },

    knex: (at, name) => {
        const db = Knex({ client: Dialect.default ?? Dialect, useNullAsDefault: true,
                          connection: { filename: at } });
        return [() => db.transaction(async (tx) => {
            const { n } = await tx("counter").where({ name }).first("n");
            await tx("counter").where({ name }).update({ n: n + 1 });
        }), () => db.destroy()];
    },

    sequelize: (at, name) => {
        const db = new Sequelize({ dialect: "sqlite", dialectModule: sqlite3, storage: at, logging: false,
                                   dialectOptions: { mode: sqlite3.OPEN_READWRITE } });
        return [() => db.transaction(async (transaction) => {
            const [{ n }] = await db.query(select, { replacements: [name], transaction,
                                                     type: QueryTypes.SELECT });
            await db.query(update, { replacements: [n + 1, name], transaction });
        }), () => db.close()];
    },
};

const db = createClient({ url });
await db.execute("CREATE TABLE IF NOT EXISTS counter(name TEXT PRIMARY KEY, n INTEGER NOT NULL)");
await run(Object.fromEntries(Object.entries(drivers).map(([name, open]) => [name, async () => {
    await db.execute({ sql: "INSERT OR REPLACE INTO counter VALUES (?, 0)", args: [name] });
    await Promise.all(Array.from({ length: clients }, async (_, i) => {
        const [raise, close] = open(urls[i % urls.length], name);
        for (let k = 0; k < each; k++)
            await raise();
        await close();
    }));
    const { rows } = await db.execute({ sql: select, args: [name] });
    equal(rows[0].n, clients * each, "so often it was raised");
}])));
