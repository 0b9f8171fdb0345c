// Counts through failures of nodes, until its input ends. Arguments: DRIVER NAME TIMEOUT_MS URL
// [URL...]; the next URL is taken when the node behind this one is gone, or has not answered for
// TIMEOUT_MS. Prints a line when it begins to work, and one of JSON at its end: what was acknowledged,
// what is in doubt, which errors it saw, and which of them a program cannot know what to do with.
//
// Each piece of work has an id of its own (counter_drivers.mjs). Only errors that say that nothing
// was done are answered by a second try of the same id. What is in doubt is not tried again: it must
// then be there once or not at all.
import { drivers } from "./counter_drivers.mjs";

const [driver, name, timeout, ...urls] = process.argv.slice(2);
const WORKERS = 2;
let at = 0;
let stopped = false;
process.stdin.on("end", () => { stopped = true; }).resume();

// Not done, says the node. Prisma has it in its sentence only, Sequelize drops the code.
const NOT_DONE =
    /\b(SQLITE_BUSY|TRANSACTION_(CLOSED|TIMEOUT)|STREAM_EXPIRED)\b|transaction was rolled back/;
const NOT_HERE = /\bSTOPPED\b|\bHTTP status 503\b|node is stopping/;
const NOT_SENT = /\bECONNREFUSED\b|Connection refused/;
// Nobody answered, or the node does not know: each driver in its own words.
const NOT_KNOWN = /fetch failed|socket|ECONN|terminated|Hrana\(Http|\bSQLITE_IOERR\b/i;

class TimedOut extends Error {}

// The code of E or of what caused it.
function codes(e) {
    const all = [];
    for (; e; e = e.cause) {
        if (e.code !== undefined)
            all.push(e.code);
        all.push(...(e.errors ?? []).flatMap(codes));
    }
    return all;
}

// { refused: nothing was done, says the node; stopped: and never will be, here; unsent: nobody
//   listened; lost: nobody answered }
function judge(e) {
    const all = codes(e);
    const said = `${all.join(" ")} ${e.message} ${e.cause?.message ?? ""}`;
    return {
        refused: NOT_DONE.test(said),
        stopped: NOT_HERE.test(said),
        unsent: NOT_SENT.test(said),
        lost: e instanceof TimedOut || NOT_KNOWN.test(said),
        key: `${all.join("<") || "none"}${e.before_commit ? " before COMMIT" : ""}: ` +
             `${e.message.slice(0, 200)}`,
    };
}

async function inTime(promise) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new TimedOut("no answer")), Number(timeout));
    });
    promise.catch(() => {}); // what it says later is of no use
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const open = await drivers[driver](name);
const done = [], doubtful = [], errors = {}, unexpected = [];
let longest = 0;

// Does ID, trying again as long as nothing was done; the client to go on with.
async function work(id, client) {
    for (;;) {
        try {
            await inTime(client.db.work(id));
            done.push(id);
            return client;
        } catch (e) {
            const { refused, stopped, unsent, lost, key } = judge(e);
            errors[key] = (errors[key] ?? 0) + 1;
            if (!refused && !stopped && !unsent && !lost)
                unexpected.push(e.stack ?? key);
            if (!refused) {
                if (client.at === at) // nobody took the next one already
                    at = (at + 1) % urls.length;
                Promise.resolve(client.db.close()).catch(() => {});
                client = { at, db: open(urls[at]) };
            }
            if (!refused && !stopped && !unsent && !e.before_commit) {
                doubtful.push(id);
                return client;
            }
            await new Promise((next) => setTimeout(next, 20));
        }
    }
}

async function worker(number) {
    let client = { at, db: open(urls[at]) };
    for (let i = 0; !stopped; i++) {
        const began = performance.now();
        client = await work(`${name}-${number}-${i}`, client);
        longest = Math.max(longest, performance.now() - began);
    }
}

console.log("working");
await Promise.all([...Array(WORKERS).keys()].map(worker));
console.log(JSON.stringify({ done, doubtful, errors, unexpected, longest: Math.round(longest) }));
process.exit(0);
