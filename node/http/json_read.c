/* Room: node/http.   Thread: any, one at a time.   Owns: yajl's parser.
 * Invariants: `open[depth - 1]` is the array or object that the next value belongs to.
 * Not here: what the values mean (hrana_json.c), and writing (json_write.c). */
#include "node/http/json_read.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_parse.h>

struct json_reader {
    struct arena *arena;
    yajl_handle yajl;
    struct json *root;
    struct json *open[JSON_DEPTH_MAX];
    uint32_t depth;
    const char *refused; /* why we ended the parse, beyond what yajl checks; or NULL */
    bool too_deep;
    uint64_t taken; /* bytes of the pieces before */
    /* The escape that is being read: letters of `\uXXXX` so far, 0 none; its number; and the first
     * half of a surrogate pair that waits for the second. */
    unsigned escape, code;
    bool half;
    bool torn;       /* there was a half without the other one */
    const char *key; /* of the next value */
    size_t key_len;
};

/* --- what yajl lets through --- */

/* It writes '?', or what is no UTF-8, for half a surrogate pair, and so changes what was sent.
 * Looks at the escapes alone; yajl will see whether the rest is right. */
static bool pairs_are_whole(struct json_reader *r, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t c = p[i];
        if (r->escape == 0) {
            if (r->half && c != '\\')
                return false;
            const uint8_t *next = memchr(p + i, '\\', n - i);
            if (next == NULL)
                return true;
            i = (size_t)(next - p);
            r->escape = 1;
        } else if (r->escape == 1) {
            if (r->half && c != 'u')
                return false;
            r->escape = c == 'u' ? 2 : 0;
            r->code = 0;
        } else {
            unsigned digit = c >= 'a'   ? c - 'a' + 10u
                             : c >= 'A' ? c - 'A' + 10u
                                        : c - (unsigned)'0';
            r->code = r->code << 4 | (digit & 15);
            if (++r->escape < 6)
                continue;
            bool second = r->code >= 0xdc00 && r->code <= 0xdfff;
            if (second != r->half)
                return false;
            r->half = r->code >= 0xd800 && r->code <= 0xdbff;
            r->escape = 0;
        }
    }
    return true;
}

/* --- yajl's events: 0 ends the parse --- */

static struct json *add(struct json_reader *r, enum json_type type)
{
    struct json *v = arena_zeroed(r->arena, sizeof *v);
    if (v == NULL)
        return NULL;
    v->type = type;
    v->key = r->key;
    v->key_len = r->key_len;
    r->key = NULL;
    if (r->depth == 0) {
        CHECK(r->root == NULL); /* yajl takes one value */
        r->root = v;
        return v;
    }
    struct json *parent = r->open[r->depth - 1];
    if (parent->last == NULL)
        parent->first = v;
    else
        parent->last->next = v;
    parent->last = v;
    parent->n_children++;
    return v;
}

static int on_null(void *ctx)
{
    return add(ctx, JSON_NULL) != NULL;
}

static int on_boolean(void *ctx, int value)
{
    return add(ctx, value ? JSON_TRUE : JSON_FALSE) != NULL;
}

static int add_text(struct json_reader *r, enum json_type type, const void *p, size_t n)
{
    struct json *v = add(r, type);
    if (v == NULL)
        return 0;
    v->text = arena_copy(r->arena, p, n);
    v->len = n;
    return v->text != NULL;
}

static int on_number(void *ctx, const char *p, size_t n)
{
    return add_text(ctx, JSON_NUMBER, p, n);
}

/* yajl takes overlong forms and surrogates for UTF-8. What is torn is refused in the end. */
static bool is_text(struct json_reader *r, const void *p, size_t n)
{
    if (r->torn || utf8_valid(p, n))
        return true;
    r->refused = "a string is not UTF-8";
    return false;
}

static int on_string(void *ctx, const unsigned char *p, size_t n)
{
    return is_text(ctx, p, n) && add_text(ctx, JSON_STRING, p, n);
}

static int on_key(void *ctx, const unsigned char *p, size_t n)
{
    struct json_reader *r = ctx;
    if (!is_text(r, p, n))
        return 0;
    r->key = arena_copy(r->arena, p, n);
    r->key_len = n;
    return r->key != NULL;
}

static int begin(struct json_reader *r, enum json_type type)
{
    if (r->depth == JSON_DEPTH_MAX) {
        r->too_deep = true;
        return 0;
    }
    struct json *v = add(r, type);
    if (v == NULL)
        return 0;
    r->open[r->depth++] = v;
    return 1;
}

static int on_object(void *ctx)
{
    return begin(ctx, JSON_OBJECT);
}

static int on_array(void *ctx)
{
    return begin(ctx, JSON_ARRAY);
}

static int on_end(void *ctx)
{
    struct json_reader *r = ctx;
    CHECK(r->depth > 0); /* yajl matches the brackets */
    r->depth--;
    return 1;
}

static const yajl_callbacks callbacks = {.yajl_null = on_null,
                                         .yajl_boolean = on_boolean,
                                         .yajl_number = on_number,
                                         .yajl_string = on_string,
                                         .yajl_start_map = on_object,
                                         .yajl_map_key = on_key,
                                         .yajl_end_map = on_end,
                                         .yajl_start_array = on_array,
                                         .yajl_end_array = on_end};

/* --- the reader --- */

static void *yajl_malloc(void *ctx, size_t n)
{
    (void)ctx;
    return mem_alloc(n);
}

static void *yajl_realloc(void *ctx, void *p, size_t n)
{
    (void)ctx;
    return mem_realloc(p, n);
}

static void yajl_release(void *ctx, void *p)
{
    (void)ctx;
    free(p);
}

struct json_reader *json_reader_new(struct arena *arena)
{
    static yajl_alloc_funcs memory = {yajl_malloc, yajl_realloc, yajl_release, NULL};
    struct json_reader *r = MEM_NEW(struct json_reader);
    r->arena = arena;
    r->yajl = yajl_alloc(&callbacks, &memory, r);
    CHECK(r->yajl != NULL);
    return r;
}

void json_reader_free(struct json_reader *r)
{
    if (r == NULL)
        return;
    yajl_free(r->yajl);
    free(r);
}

static enum err fail(struct json_reader *r, yajl_status status)
{
    if (r->too_deep)
        return err_fail(ERR_TOO_BIG, "the JSON text nests deeper than %u levels", JSON_DEPTH_MAX);
    if (r->refused != NULL)
        return err_fail(ERR_PROTOCOL, "not JSON: %s", r->refused);
    if (status == yajl_status_client_canceled)
        return err_fail(ERR_TOO_BIG, "the JSON text takes more than %zu bytes of memory",
                        r->arena->max);
    unsigned char *why = yajl_get_error(r->yajl, 0, NULL, 0); /* ends with a newline */
    size_t n = strcspn((const char *)why, "\n");
    uint64_t at = r->taken + yajl_get_bytes_consumed(r->yajl);
    enum err e =
        err_fail(ERR_PROTOCOL, "not JSON: %.*s, near byte %" PRIu64, (int)n, (const char *)why, at);
    yajl_free_error(r->yajl, why);
    return e;
}

enum err json_feed(struct json_reader *r, const void *p, size_t n)
{
    r->torn = r->torn || !pairs_are_whole(r, p, n);
    yajl_status status = yajl_parse(r->yajl, p, n);
    if (status != yajl_status_ok)
        return fail(r, status);
    r->taken += n;
    return ERR_OK;
}

enum err json_end(struct json_reader *r, const struct json **root)
{
    yajl_status status = yajl_complete_parse(r->yajl);
    if (status != yajl_status_ok)
        return fail(r, status);
    if (r->root == NULL || r->depth != 0 || (r->half && !r->torn))
        return err_fail(ERR_PROTOCOL, "not JSON: the text is empty or not complete");
    *root = r->root;
    if (r->torn)
        return err_fail(ERR_PROTOCOL, "not JSON: half of a surrogate pair (\\uD800 to \\uDFFF)");
    return ERR_OK;
}

/* --- values --- */

bool json_is(const struct json *v, enum json_type type)
{
    return v != NULL && v->type == type;
}

const struct json *json_get(const struct json *object, const char *key)
{
    const struct json *found = NULL;
    size_t n = strlen(key);
    if (!json_is(object, JSON_OBJECT))
        return NULL;
    JSON_EACH(v, object)
    {
        if (v->key_len == n && memcmp(v->key, key, n) == 0)
            found = v;
    }
    return found;
}

/* Digits, with a sign before them if SIGNED, and nothing else: strtoll takes blanks, + and less. */
static bool is_whole(const struct json *v, bool with_sign)
{
    if (v == NULL || (v->type != JSON_NUMBER && v->type != JSON_STRING))
        return false;
    size_t i = with_sign && v->len > 0 && v->text[0] == '-' ? 1 : 0;
    if (i == v->len)
        return false;
    for (; i < v->len; i++)
        if (v->text[i] < '0' || v->text[i] > '9')
            return false;
    return true;
}

bool json_int64(const struct json *v, int64_t *out)
{
    if (!is_whole(v, true))
        return false;
    errno = 0;
    *out = strtoll(v->text, NULL, 10);
    return errno == 0;
}

bool json_uint64(const struct json *v, uint64_t *out)
{
    if (!is_whole(v, false))
        return false;
    errno = 0;
    *out = strtoull(v->text, NULL, 10);
    return errno == 0;
}

/* The grammar is checked: strtod takes all of it. 1e999 is infinity, as JavaScript reads it; SQLite
 * stores that. */
bool json_double(const struct json *v, double *out)
{
    if (!json_is(v, JSON_NUMBER))
        return false;
    *out = strtod(v->text, NULL);
    return true;
}
