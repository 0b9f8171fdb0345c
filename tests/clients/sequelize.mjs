// Sequelize with @libsql/sqlite3 in place of sqlite3, as libSQL documents it: text/plain by node-fetch,
// and streams that live on.
import sqlite3 from "@libsql/sqlite3";
import { DataTypes, Op, Sequelize } from "sequelize";
import { equal, expect, fails, run, url } from "./check.mjs";

const db = new Sequelize({ dialect: "sqlite", dialectModule: sqlite3, storage: url, logging: false });

const Person = db.define("person", {
    name: { type: DataTypes.STRING, allowNull: false, unique: true },
    born: DataTypes.DATE,
    active: { type: DataTypes.BOOLEAN, defaultValue: true },
    photo: DataTypes.BLOB,
    notes: DataTypes.JSON,
    height: DataTypes.DECIMAL(5, 2),
}, { tableName: "se_person" });
const Pet = db.define("pet", { name: DataTypes.STRING }, { tableName: "se_pet", timestamps: false });
const Tag = db.define("tag", { word: { type: DataTypes.STRING, primaryKey: true } },
                      { tableName: "se_tag", timestamps: false });
Person.hasMany(Pet, { foreignKey: { name: "owner", allowNull: false }, onDelete: "CASCADE" });
Pet.belongsTo(Person, { foreignKey: "owner" });
Person.belongsToMany(Tag, { through: "se_person_tag", timestamps: false });
Tag.belongsToMany(Person, { through: "se_person_tag", timestamps: false });

await run({
    async schema() {
        await db.authenticate();
        const schema = db.getQueryInterface();
        for (const table of ["se_person_tag", "se_tag", "se_pet", "se_person"])
            await schema.dropTable(table);
        for (const model of [Person, Pet, Tag, db.model("se_person_tag")])
            await schema.createTable(model.getTableName(), model.tableAttributes);
        await schema.addColumn("se_pet", "age", { type: DataTypes.INTEGER, defaultValue: 3 });
        await schema.addIndex("se_pet", ["name"]);
        expect((await schema.showAllTables()).includes("se_tag"), "its tables");
    },

    // sync() writes into the rows that tell of indexes. Those of @libsql/sqlite3 cannot be written to,
    // whatever the server is.
    async sync() {
        await fails(() => Person.sync(), undefined, /read only property 'unique'/);
        class Database extends sqlite3.Database {
            all(sql, values, done) {
                return super.all(sql, values, function (e, rows) {
                    done.call(this, e, rows?.map((row) => ({ ...row })));
                });
            }
        }
        const other = new Sequelize({ dialect: "sqlite", storage: url, logging: false,
                                      dialectModule: { ...sqlite3, Database } });
        const schema = other.getQueryInterface();
        const House = (columns) => other.define("house", {
            street: { type: DataTypes.STRING, unique: true }, ...columns }, { tableName: "se_house" });
        await House({}).sync({ force: true });
        await House({}).create({ street: "High" });
        await House({ rooms: { type: DataTypes.INTEGER, defaultValue: 2 } }).sync({ alter: true });
        await schema.changeColumn("se_house", "street", { type: DataTypes.TEXT, allowNull: false });
        const columns = await schema.describeTable("se_house");
        equal(Object.keys(columns), ["id", "street", "createdAt", "updatedAt", "rooms"]);
        equal([columns.street.type, columns.street.allowNull], ["TEXT", false]);
        equal(await other.query("SELECT street, rooms FROM se_house", { type: "SELECT" }),
              [{ street: "High", rooms: 2 }]);
        await schema.removeColumn("se_house", "rooms"); // makes the table anew
        equal(Object.keys(await schema.describeTable("se_house")).length, 4);
        await other.close();
    },

    async values() {
        const data = { name: "Ann", born: new Date("1901-02-03T04:05:06.007Z"), active: false,
                       photo: Buffer.from([0, 1, 255]), notes: { a: [1, "Zoë \u{1F600}"] },
                       height: 1.75 };
        const ann = await Person.create(data);
        equal(ann.id, 1);
        const back = await Person.findByPk(1);
        for (const [key, value] of Object.entries(data))
            equal(key === "photo" ? Buffer.from(back[key]) : back[key], value, key);
        equal((await Person.create({ name: "Bob" })).active, true);
        equal(await Person.count({ where: { born: { [Op.lt]: new Date("1950-01-01") } } }), 1);
    },

    async relations() {
        const cay = await Person.create({ name: "Cay", pets: [{ name: "Rex" }, { name: "Tom" }],
                                          tags: [{ word: "red" }] }, { include: [Pet, Tag] });
        await cay.addTag(await Tag.create({ word: "blue" }));
        const found = await Person.findOne({ where: { name: "Cay" }, include: [Pet, Tag],
                                             order: [[Pet, "id", "ASC"], [Tag, "word", "ASC"]] });
        equal(found.pets.map((p) => p.name), ["Rex", "Tom"]);
        equal(found.tags.map((t) => t.word), ["blue", "red"]);
        const counts = await Person.findAll({ attributes: ["name",
            [db.fn("COUNT", db.col("pets.id")), "n"]], include: [{ model: Pet, attributes: [] }],
            group: ["person.id"], order: ["name"], raw: true });
        equal(counts.map((r) => [r.name, r.n]), [["Ann", 0], ["Bob", 0], ["Cay", 2]]);
        equal(await Pet.update({ name: "X" }, { where: { owner: cay.id } }), [2]);
        equal(await Pet.bulkCreate([...Array(300).keys()].map((i) => ({ name: `${i}`, owner: 1 })))
            .then((list) => list.length), 300);
        await Person.destroy({ where: { name: ["Cay", "Ann"] } });
        equal(await Pet.count(), 0, "cascaded");
        const [made, isNew] = await Tag.findOrCreate({ where: { word: "red" } });
        equal([made.word, isNew], ["red", false]);
        await Tag.upsert({ word: "green" });
        await Tag.upsert({ word: "green" });
        equal(await Tag.count(), 3);
    },

    async transactions() {
        await db.transaction(async (transaction) => {
            const dan = await Person.create({ name: "Dan" }, { transaction });
            await Pet.create({ name: "Kit", owner: dan.id }, { transaction });
        });
        await fails(() => db.transaction(async (transaction) => {
            await Person.create({ name: "lost" }, { transaction });
            throw new Error("no");
        }), undefined, /no/);
        await fails(() => db.transaction(async (transaction) => {
            await Person.create({ name: "lost" }, { transaction });
            await Person.create({ name: "Dan" }, { transaction });
        }));
        equal((await Person.findAll({ order: ["id"] })).map((p) => p.name), ["Bob", "Dan"]);
    },

    async errors() {
        const unique = await fails(() => Person.create({ name: "Dan" }));
        equal(unique.name, "SequelizeUniqueConstraintError", unique.message);
        equal(unique.fields, ["name"]);
        const foreign = await fails(() => Pet.create({ name: "x", owner: 999 }));
        equal(foreign.name, "SequelizeForeignKeyConstraintError", foreign.message);
        const missing = await fails(() => db.query("SELECT * FROM nowhere"));
        equal(missing.name, "SequelizeDatabaseError");
        expect(/no such table: nowhere/.test(missing.message), missing.message);
        await fails(() => db.query("SELEKT"), undefined, /syntax error/);
        await db.close();
    },
});
