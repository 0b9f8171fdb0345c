/* Room: node. UUIDV4() and UUIDV7() (RFC 9562): 32 hexadecimal digits, as Django stores a UUID in
 * SQLite. Thread: the connection's.
 *
 * A UUIDV7 begins with the milliseconds since 1970. The 12 bits behind them are the fraction of the
 * millisecond (method 3 of section 6.2), so those of one node are in order, a quarter of a
 * microsecond apart. */
#include "base/clock.h"
#include "node/functions_state.h"

#define BYTES   16
#define MS_NS   1000000
#define VARIANT 0x80 /* of RFC 9562, in the upper two bits of the eighth byte */

static void result_uuid(sqlite3_context *ctx, uint8_t bytes[BYTES], uint8_t version)
{
    static const char digits[] = "0123456789abcdef";
    char hex[2 * BYTES];
    bytes[6] = (uint8_t)(version << 4 | (bytes[6] & 0x0f));
    bytes[8] = (uint8_t)(VARIANT | (bytes[8] & 0x3f));
    for (int i = 0; i < BYTES; i++) {
        hex[2 * i] = digits[bytes[i] >> 4];
        hex[2 * i + 1] = digits[bytes[i] & 15];
    }
    sqlite3_result_text(ctx, hex, (int)sizeof hex, SQLITE_TRANSIENT);
}

static void uuidv4(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    uint8_t bytes[BYTES];
    (void)n, (void)v;
    sqlite3_randomness((int)sizeof bytes, bytes);
    result_uuid(ctx, bytes, 4);
}

static void uuidv7(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    uint8_t bytes[BYTES];
    (void)n, (void)v;
    uint64_t now = clock_wall_ns(), ms = now / MS_NS, fraction = (now % MS_NS << 12) / MS_NS;
    sqlite3_randomness((int)sizeof bytes, bytes);
    for (int i = 0; i < 6; i++)
        bytes[i] = (uint8_t)(ms >> (40 - 8 * i));
    bytes[6] = (uint8_t)(fraction >> 8);
    bytes[7] = (uint8_t)fraction;
    result_uuid(ctx, bytes, 7);
}

const struct function functions_uuid[] = {
    {"uuidv4", 0, 0, uuidv4, NULL, NULL},
    {"uuidv7", 0, 0, uuidv7, NULL, NULL},
    {NULL, 0, 0, NULL, NULL, NULL},
};
