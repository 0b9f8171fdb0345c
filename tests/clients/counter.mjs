// Counts through failures of nodes, until its input ends. Arguments: DRIVER URL [URL...]; the next
// URL is taken when the node behind this one is gone. Prints one line of JSON: what was acknowledged,
// what is in doubt, and which errors it saw.
//
// Each piece of work has an id of its own: it inserts a row (and a row that refers to it) and counts
// up. Only errors that say that nothing was done are answered by a second try of the same id. What is
// in doubt is not tried again: it must then be there once or not at all.
import { createClient } from "@libsql/client";
import KnexDialect from "@libsql/knex-libsql";
import { LibsqlDialect } from "@libsql/kysely-libsql";
import { PrismaLibSql } from "@prisma/adapter-libsql";
import { connect } from "@tursodatabase/serverless";
import { drizzle } from "drizzle-orm/libsql";
import { sql } from "drizzle-orm";
import Knex from "knex";
import { Kysely } from "kysely";
import { generate } from "./prisma_generate.mjs";

const [driver, ...urls] = process.argv.slice(2);
let at = 0;
let stopped = false;
process.stdin.on("end", () => { stopped = true; }).resume();

// Not done, says the node. Anything else that is not an error of the statement: in doubt.
const NOT_DONE = new Set(["SQLITE_BUSY", "TRANSACTION_CLOSED", "STREAM_EXPIRED"]);
// Nobody listens: not sent.
const NOT_SENT = new Set(["ECONNREFUSED"]);

// Runs BODY by BEGIN, which commits behind it; an error says whether it came before that.
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

const drivers = {
    // One statement of its own, and one that refers to it, in a batch.
    batch: (url) => {
        const db = createClient({ url });
        return { close: () => db.close(), work: (id) => db.batch([
            { sql: "INSERT INTO work(id) VALUES (?)", args: [id] },
            { sql: "INSERT INTO part(work) VALUES (?)", args: [id] },
            "UPDATE counter SET n = n + 1"], "write") };
    },
    // An interactive transaction.
    transaction: (url) => {
        const db = createClient({ url });
        return { close: () => db.close(), work: async (id) => {
            const tx = await db.transaction("write");
            try {
                await tx.execute({ sql: "INSERT INTO work(id) VALUES (?)", args: [id] });
                await tx.execute({ sql: "INSERT INTO part(work) VALUES (?)", args: [id] });
                const n = (await tx.execute("SELECT n FROM counter")).rows[0].n;
                await tx.execute({ sql: "UPDATE counter SET n = ?", args: [n + 1] });
            } catch (e) {
                tx.close();
                e.before_commit = true; // never committed: nothing was done
                throw e;
            }
            await tx.commit();
        } };
    },
    drizzle: (url) => {
        const client = createClient({ url });
        const db = drizzle(client);
        return { close: () => client.close(), work: (id) => inTransaction((body) => db.transaction(body),
            async (tx) => {
                await tx.run(sql`INSERT INTO work(id) VALUES (${id})`);
                await tx.run(sql`INSERT INTO part(work) VALUES (${id})`);
                await tx.run(sql`UPDATE counter SET n = n + 1`);
            }) };
    },
    kysely: (url) => {
        const db = new Kysely({ dialect: new LibsqlDialect({ url }) });
        return { close: () => db.destroy(), work: (id) => inTransaction(
            (body) => db.transaction().execute(body),
            async (tx) => {
                await tx.insertInto("work").values({ id }).execute();
                await tx.insertInto("part").values({ work: id }).execute();
                await tx.updateTable("counter").set((e) => ({ n: e("n", "+", 1) })).execute();
            }) };
    },
    prisma: (url) => {
        const db = new PrismaClient({ adapter: new PrismaLibSql({ url }) });
        return { close: () => db.$disconnect(), work: (id) => inTransaction(
            (body) => db.$transaction(body),
            async (tx) => {
                await tx.$executeRaw`INSERT INTO work(id) VALUES (${id})`;
                await tx.$executeRaw`INSERT INTO part(work) VALUES (${id})`;
                await tx.$executeRaw`UPDATE counter SET n = n + 1`;
            }) };
    },
    knex: (url) => {
        const db = Knex({ client: KnexDialect.default ?? KnexDialect, useNullAsDefault: true,
                          connection: { filename: url } });
        return { close: () => db.destroy(), work: (id) => inTransaction(
            (body) => db.transaction(body),
            async (tx) => {
                await tx("work").insert({ id });
                await tx("part").insert({ work: id });
                await tx("counter").increment("n", 1);
            }) };
    },
    serverless: (url) => {
        const db = connect({ url });
        return { close: () => db.close(), work: (id) => db.batch([
            `INSERT INTO work(id) VALUES ('${id}')`, `INSERT INTO part(work) VALUES ('${id}')`,
            "UPDATE counter SET n = n + 1"], "immediate") };
    },
};

// The code of E or of what caused it.
function codes(e) {
    const all = [];
    for (; e; e = e.cause) {
        if (e.code !== undefined)
            all.push(e.code);
        all.push(...(e.errors ?? []).flatMap(codes));
    }
    return all.length > 0 ? all : ["none"];
}

const { PrismaClient } = driver === "prisma" ? await generate() : {};
const done = [];
const doubtful = [];
const errors = {};
let longest = 0;

async function worker(number) {
    let db = drivers[driver](urls[at]);
    let mine = at;
    for (let i = 0; !stopped; i++) {
        const id = `${number}-${i}`;
        const began = performance.now();
        for (;;) {
            try {
                await db.work(id);
                done.push(id);
                break;
            } catch (e) {
                const all = codes(e);
                const refused = all.some((c) => NOT_DONE.has(c));
                const unsent = all.some((c) => NOT_SENT.has(c)) || // of a WebSocket: in the sentence
                               /connect ECONNREFUSED/.test(e.message);
                const key = `${all.join("<")}${e.before_commit ? " before COMMIT" : ""}: ` +
                            `${e.message.slice(0, 160)}`;
                errors[key] = (errors[key] ?? 0) + 1;
                if (!refused && (unsent || !e.code || /fetch|socket|ECONN/.test(all.join(" ") + e.message))) {
                    if (mine === at) // nobody took the next one already
                        at = (at + 1) % urls.length;
                    mine = at;
                    db.close();
                    db = drivers[driver](urls[at]);
                }
                if (!refused && !unsent && !e.before_commit) {
                    doubtful.push(id);
                    break;
                }
                await new Promise((next) => setTimeout(next, 20));
            }
        }
        longest = Math.max(longest, performance.now() - began);
    }
}

await Promise.all([0, 1, 2, 3].map(worker));
console.log(JSON.stringify({ done, doubtful, errors, longest: Math.round(longest) }));
process.exit(0);
