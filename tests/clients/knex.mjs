// Knex with @libsql/knex-libsql (@libsql/sqlite3 on node-fetch, text/plain): its streams live on.
import Dialect from "@libsql/knex-libsql";
import Knex from "knex";
import { equal, fails, run, url } from "./check.mjs";

const knex = Knex({ client: Dialect.default ?? Dialect, useNullAsDefault: true,
                    connection: { filename: url } });

const steps = {
    "2026-01-people": {
        up: (k) => k.schema.createTable("kn_person", (t) => {
            t.increments("id");
            t.string("name").notNullable().unique();
        }),
        down: (k) => k.schema.dropTable("kn_person"),
    },
    "2026-02-pets": {
        up: (k) => k.schema.createTable("kn_pet", (t) => {
            t.increments("id");
            t.string("name");
            t.integer("owner").notNullable().references("kn_person.id").onDelete("CASCADE");
        }),
        down: (k) => k.schema.dropTable("kn_pet"),
    },
};
const migrationSource = {
    getMigrations: async () => Object.keys(steps),
    getMigrationName: (name) => name,
    getMigration: async (name) => steps[name],
};

await run({
    async migrations() {
        for (const t of ["kn_pet", "kn_person", "knex_migrations", "knex_migrations_lock"])
            await knex.schema.dropTableIfExists(t);
        const [, up] = await knex.migrate.latest({ migrationSource });
        equal(up, Object.keys(steps));
        const [, again] = await knex.migrate.latest({ migrationSource });
        equal(again, []);
    },

    async queries() {
        equal(await knex("kn_person").insert({ name: "Ann" }), [1]);
        await knex("kn_person").insert({ name: "Bob" });
        await knex("kn_pet").insert([{ name: "Rex", owner: 1 }, { name: "Tom", owner: 1 }]);
        const found = await knex("kn_person as p").leftJoin("kn_pet as t", "t.owner", "p.id")
            .groupBy("p.id").orderBy("p.id").select("p.name").count("t.id as pets");
        equal(found.map((r) => [r.name, r.pets]), [["Ann", 2], ["Bob", 0]]);
        equal(await knex("kn_pet").update({ name: "X" }).where("owner", 1), 2);
        await fails(() => knex("kn_person").insert({ name: "Ann" }), undefined,
                    /UNIQUE constraint failed: kn_person\.name/);
        await fails(() => knex("kn_pet").insert({ name: "x", owner: 9 }), undefined, /FOREIGN KEY/);
    },

    async transactions() {
        await knex.transaction(async (tx) => {
            await tx("kn_person").insert({ name: "Cay" });
            await tx("kn_pet").insert({ name: "Kit", owner: 3 });
        });
        await fails(() => knex.transaction(async (tx) => {
            await tx("kn_person").insert({ name: "lost" });
            throw new Error("no");
        }), undefined, /no/);
        equal((await knex("kn_person").select("name").orderBy("id")).map((r) => r.name),
              ["Ann", "Bob", "Cay"]);
        await knex("kn_person").where("name", "Ann").del();
        equal((await knex("kn_pet").select("name")).map((r) => r.name), ["Kit"], "cascaded");
        await knex.destroy();
    },
});
