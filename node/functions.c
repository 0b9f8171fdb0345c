/* Room: node. Thread: the connection's.
 *
 * Owns: struct functions, one for each connection, freed by SQLite with the connection.
 * Not here: what the functions do (functions_*.c); SQLite's own functions, which are left as they
 * are, also where old Djangos replaced them (docs/FUNCTIONS.md says why). */
#include "node/functions.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "node/functions_state.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define ASK_NS 1000000 /* between two questions whether to stop */

static void state_free(void *arg)
{
    struct functions *f = arg;
    zones_fini(&f->zones);
    free(f);
}

void functions_register(sqlite3 *conn, int (*stop)(void *ctx), void *ctx)
{
    const struct function *const lists[] = {functions_bits,   functions_date,   functions_hash,
                                            functions_number, functions_regexp, functions_stat,
                                            functions_text,   functions_uuid};
    struct functions *f = MEM_NEW(struct functions);
    f->stop = stop;
    f->stop_ctx = ctx;
    f->asked_ns = clock_mono_ns();
    void (*destroy)(void *) = state_free; /* of the first function: all go together */
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        for (const struct function *d = lists[i]; d->name != NULL; d++) {
            int rc = sqlite3_create_function_v2(conn, d->name, d->arguments, SQLITE_UTF8 | d->flags,
                                                f, d->call, d->step, d->final, destroy);
            /* Only memory can be missing, and then the process ends, as in base/mem.h. */
            CHECK(rc == SQLITE_OK);
            destroy = NULL;
        }
}

void fn_raise(sqlite3_context *ctx, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    char *text = sqlite3_vmprintf(format, ap);
    va_end(ap);
    if (text == NULL)
        sqlite3_result_error_nomem(ctx);
    else
        sqlite3_result_error(ctx, text, -1);
    sqlite3_free(text);
}

bool fn_go_on(sqlite3_context *ctx)
{
    struct functions *f = sqlite3_user_data(ctx);
    if (f->stop == NULL)
        return true;
    uint64_t now = clock_mono_ns();
    if (now - f->asked_ns < ASK_NS)
        return true;
    f->asked_ns = now;
    if (f->stop(f->stop_ctx) == 0)
        return true;
    sqlite3_result_error_code(ctx, SQLITE_INTERRUPT);
    return false;
}

bool fn_any_null(int n, sqlite3_value **v)
{
    for (int i = 0; i < n; i++)
        if (sqlite3_value_type(v[i]) == SQLITE_NULL)
            return true;
    return false;
}

/* --- text --- */

/* Bytes of the character at P, as Python decodes UTF-8 (no surrogates, nothing overlong); 0: none.
 * RFC 3629, section 4. */
static size_t utf8_step(const unsigned char *p, const unsigned char *end)
{
    unsigned char c = p[0];
    if (c < 0x80)
        return 1;
    size_t n = c >= 0xc2 && c <= 0xdf ? 2 : (c & 0xf0) == 0xe0 ? 3 : c >= 0xf0 && c <= 0xf4 ? 4 : 0;
    if (n == 0 || (size_t)(end - p) < n)
        return 0;
    unsigned char low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    unsigned char high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

bool fn_text(sqlite3_context *ctx, sqlite3_value *v, struct fn_string *s)
{
    s->is_text = true;
    s->p = (const char *)sqlite3_value_text(v);
    s->n = (size_t)sqlite3_value_bytes(v);
    s->units = 0;
    if (s->p == NULL) {
        sqlite3_result_error_nomem(ctx);
        return false;
    }
    const unsigned char *p = (const unsigned char *)s->p, *end = p + s->n;
    while (p < end) {
        size_t n = utf8_step(p, end);
        if (n == 0) {
            fn_raise(ctx, "the text is not UTF-8: byte %lld of %lld is 0x%02x",
                     (long long)(p - (const unsigned char *)s->p), (long long)s->n, *p);
            return false;
        }
        p += n;
        s->units++;
    }
    return true;
}

bool fn_string(sqlite3_context *ctx, sqlite3_value *v, const char *name, struct fn_string *s)
{
    switch (sqlite3_value_type(v)) {
    case SQLITE_TEXT:
        return fn_text(ctx, v, s);
    case SQLITE_BLOB:
        s->p = sqlite3_value_blob(v);
        s->n = (size_t)sqlite3_value_bytes(v);
        if (s->p == NULL && s->n > 0) {
            sqlite3_result_error_nomem(ctx);
            return false;
        }
        if (s->p == NULL)
            s->p = "";
        s->units = (int64_t)s->n;
        s->is_text = false;
        return true;
    default:
        fn_raise(ctx, "%s() takes text or a blob, not a number", name);
        return false;
    }
}

char *fn_room(sqlite3_context *ctx, uint64_t n)
{
    if (n > (uint64_t)sqlite3_limit(sqlite3_context_db_handle(ctx), SQLITE_LIMIT_LENGTH, -1)) {
        sqlite3_result_error_toobig(ctx);
        return NULL;
    }
    char *p = sqlite3_malloc64(n + 1); /* never 0 bytes: that would be NULL */
    if (p == NULL)
        sqlite3_result_error_nomem(ctx);
    return p;
}

void fn_result(sqlite3_context *ctx, char *p, size_t n, bool is_text)
{
    if (is_text)
        sqlite3_result_text64(ctx, p, n, sqlite3_free, SQLITE_UTF8);
    else
        sqlite3_result_blob64(ctx, p, n, sqlite3_free);
}
