// What the programs share: expectations, and a run of named parts. Arguments: URL [URL...].
import { isDeepStrictEqual, inspect } from "node:util";

export const urls = process.argv.slice(2);
export const url = urls[0];
if (url === undefined) {
    console.error("usage: PROGRAM URL [URL...]");
    process.exit(2);
}

export function expect(condition, what) {
    if (!condition)
        throw new Error(what);
}

export function equal(found, wanted, what = "value") {
    if (!isDeepStrictEqual(found, wanted))
        throw new Error(`${what}: found ${inspect(found, { depth: 6 })}, ` +
                        `wanted ${inspect(wanted, { depth: 6 })}`);
}

// The error of ACTION, which must fail; its code and message, when they are given, must fit.
export async function fails(action, code, message) {
    let result;
    try {
        result = await action();
    } catch (e) {
        if (code !== undefined)
            equal(e.code, code, `code of "${e.message}"`);
        if (message !== undefined)
            expect(message.test(e.message), `"${e.message}" does not say ${message}`);
        return e;
    }
    throw new Error(`wanted an error ${code ?? ""}, got ${inspect(result)}`);
}

// Runs the parts, an object of functions, one after the other. The process ends with 1 when one
// has failed: the others are run nevertheless.
export async function run(parts) {
    let failed = 0;
    for (const [name, part] of Object.entries(parts)) {
        const began = performance.now();
        try {
            await part();
            console.log(`ok   ${name} (${(performance.now() - began).toFixed(0)} ms)`);
        } catch (e) {
            failed++;
            console.log(`FAIL ${name}: ${e.stack}${e.cause ? `\n  cause: ${inspect(e.cause)}` : ""}`);
        }
    }
    console.log(`${Object.keys(parts).length - failed} parts passed, ${failed} failed`);
    process.exit(failed === 0 ? 0 : 1);
}
