// Kysely with @libsql/kysely-libsql (which brings an @libsql/client of 2024): Migrator, queries,
// transactions.
import { LibsqlDialect } from "@libsql/kysely-libsql";
import { Kysely, sql } from "kysely";
import { Migrator } from "kysely/migration";
import { equal, fails, run, url } from "./check.mjs";

const db = new Kysely({ dialect: new LibsqlDialect({ url }) });

const steps = {
    "2026-01-people": {
        async up(k) {
            await k.schema.createTable("ky_person")
                .addColumn("id", "integer", (c) => c.primaryKey().autoIncrement())
                .addColumn("name", "text", (c) => c.notNull())
                .addColumn("email", "text", (c) => c.unique()).execute();
        },
        async down(k) {
            await k.schema.dropTable("ky_person").execute();
        },
    },
    "2026-02-pets": {
        async up(k) {
            await k.schema.createTable("ky_pet")
                .addColumn("id", "integer", (c) => c.primaryKey())
                .addColumn("name", "text", (c) => c.notNull())
                .addColumn("photo", "blob")
                .addColumn("owner", "integer",
                           (c) => c.references("ky_person.id").onDelete("cascade").notNull()).execute();
            await k.schema.createIndex("ky_pet_owner").on("ky_pet").column("owner").execute();
        },
        async down(k) {
            await k.schema.dropTable("ky_pet").execute();
        },
    },
};

function migrator(names) {
    return new Migrator({ db, provider: {
        async getMigrations() {
            return Object.fromEntries(names.map((n) => [n, steps[n]]));
        },
    } });
}

async function succeeds({ error, results }) {
    if (error !== undefined)
        throw error;
    return results.map((r) => `${r.direction} ${r.migrationName} ${r.status}`);
}

await run({
    async migrations() {
        for (const t of ["ky_pet", "ky_person", "kysely_migration", "kysely_migration_lock"])
            await db.schema.dropTable(t).ifExists().execute();
        const [first, second] = Object.keys(steps);
        equal(await succeeds(await migrator([first]).migrateToLatest()), [`Up ${first} Success`]);
        const both = migrator([first, second]);
        equal(await succeeds(await both.migrateToLatest()), [`Up ${second} Success`]);
        equal(await succeeds(await both.migrateToLatest()), []);
        equal(await succeeds(await both.migrateDown()), [`Down ${second} Success`]);
        equal(await succeeds(await both.migrateToLatest()), [`Up ${second} Success`]);
        equal((await db.introspection.getTables()).map((t) => t.name).filter((n) => /^ky_/.test(n)),
              ["ky_person", "ky_pet"]);
    },

    async queries() {
        const ann = await db.insertInto("ky_person").values({ name: "Ann", email: "a@x" })
            .executeTakeFirstOrThrow();
        equal(ann.insertId, 1n);
        equal(ann.numInsertedOrUpdatedRows, 1n);
        const bob = await db.insertInto("ky_person").values({ name: "Bob" }).returningAll()
            .executeTakeFirstOrThrow();
        equal(bob, { id: 2, name: "Bob", email: null });
        await db.insertInto("ky_pet").values([
            { id: 1, name: "Rex", photo: new Uint8Array([0, 9]), owner: 1 },
            { id: 2, name: "Tom", owner: 1, photo: null }]).execute();
        const found = await db.selectFrom("ky_person as p")
            .leftJoin("ky_pet as t", "t.owner", "p.id").groupBy("p.id").orderBy("p.id")
            .select(["p.name", (e) => e.fn.count("t.id").as("pets")]).execute();
        equal(found.map((r) => ({ ...r })), [{ name: "Ann", pets: 2 }, { name: "Bob", pets: 0 }]);
        const photo = await db.selectFrom("ky_pet").select("photo").where("id", "=", 1)
            .executeTakeFirstOrThrow();
        equal([...new Uint8Array(photo.photo)], [0, 9]);
        const u = await db.updateTable("ky_pet").set({ name: sql`upper(name)` })
            .executeTakeFirstOrThrow();
        equal(u.numUpdatedRows, 2n);
        await fails(() => db.insertInto("ky_pet").values({ id: 3, name: "x", owner: 9 }).execute(),
                    "SQLITE_CONSTRAINT", /FOREIGN KEY/);
        await fails(() => db.insertInto("ky_person").values({ name: "y", email: "a@x" }).execute(),
                    "SQLITE_CONSTRAINT", /UNIQUE constraint failed: ky_person\.email/);
    },

    async transactions() {
        await db.transaction().execute(async (tx) => {
            const { id } = await tx.insertInto("ky_person").values({ name: "Cay" }).returning("id")
                .executeTakeFirstOrThrow();
            await tx.insertInto("ky_pet").values({ id: 4, name: "Kit", owner: id }).execute();
        });
        await fails(() => db.transaction().execute(async (tx) => {
            await tx.insertInto("ky_person").values({ name: "lost" }).execute();
            throw new Error("no");
        }));
        await fails(() => db.transaction().execute(async (tx) => {
            await tx.insertInto("ky_person").values({ name: "lost" }).execute();
            await tx.insertInto("ky_person").values({ id: 1, name: "twice" }).execute();
        }), "SQLITE_CONSTRAINT");
        equal((await db.selectFrom("ky_person").select("name").orderBy("id").execute())
            .map((r) => r.name), ["Ann", "Bob", "Cay"]);
        const gone = await db.deleteFrom("ky_person").where("name", "!=", "Bob")
            .executeTakeFirstOrThrow();
        equal(gone.numDeletedRows, 2n);
        equal(await db.selectFrom("ky_pet").select("id").execute(), [], "cascaded");
    },
});
