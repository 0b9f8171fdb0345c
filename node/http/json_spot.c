/* Room: node/http.   Thread: any.   Owns: nothing.
 * Invariants: a sentence is bounded whatever the text holds (err_text cuts it).
 * Not here: what the members mean (hrana_json_read.c, hrana_json_oldest.c). */
#include "node/http/json_spot.h"

#include "node/http/base64.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* --- where, and what is wrong there --- */

static void path_of(const struct spot *s, char *out, size_t size)
{
    if (s->up == NULL) {
        out[0] = 0;
        return;
    }
    path_of(s->up, out, size);
    size_t n = strlen(out);
    if (s->key != NULL)
        (void)snprintf(out + n, size - n, "%s%s", n == 0 ? "" : ".", s->key);
    else
        (void)snprintf(out + n, size - n, "[%u]", s->index);
}

enum err spot_fail(const struct spot *s, const char *format, ...)
{
    char path[160], what[200];
    va_list args;
    path_of(s, path, sizeof path);
    va_start(args, format);
    (void)vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return err_fail(ERR_PROTOCOL, "%s: %s", path[0] == 0 ? "the message" : path, what);
}

/* --- members and plain values --- */

bool spot_is_there(const struct spot *s)
{
    return s->v != NULL && s->v->type != JSON_NULL;
}

struct spot spot_get(const struct spot *object, const char *key)
{
    return (struct spot){.v = json_get(object->v, key), .up = object, .key = key};
}

struct spot spot_first(const struct spot *array)
{
    return (struct spot){.v = array->v->first, .up = array};
}

void spot_next(struct spot *child)
{
    child->v = child->v->next;
    child->index++;
}

enum err spot_need(const struct spot *s, enum json_type type, const char *what)
{
    if (json_is(s->v, type))
        return ERR_OK;
    return s->v == NULL ? spot_fail(s, "is missing, and must be %s", what)
                        : spot_fail(s, "must be %s", what);
}

enum err spot_text(const struct spot *s, struct hrana_text *out)
{
    TRY(spot_need(s, JSON_STRING, "a string"));
    *out = (struct hrana_text){.p = s->v->text, .n = s->v->len};
    return ERR_OK;
}

enum err spot_maybe_text(const struct spot *s, struct hrana_text *out)
{
    return spot_is_there(s) ? spot_text(s, out) : ERR_OK;
}

enum err spot_int32(const struct spot *s, int32_t *out)
{
    int64_t v;
    TRY(spot_need(s, JSON_NUMBER, "a whole number of 32 bits"));
    if (!json_int64(s->v, &v) || v < INT32_MIN || v > INT32_MAX)
        return spot_fail(s, "must be a whole number of 32 bits");
    *out = (int32_t)v;
    return ERR_OK;
}

enum err spot_uint32(const struct spot *s, uint32_t *out)
{
    uint64_t v;
    TRY(spot_need(s, JSON_NUMBER, "a whole number of 32 bits, not below zero"));
    if (!json_uint64(s->v, &v) || v > UINT32_MAX)
        return spot_fail(s, "must be a whole number of 32 bits, not below zero");
    *out = (uint32_t)v;
    return ERR_OK;
}

enum err spot_array(const struct spot *s, struct arena *arena, size_t size, uint32_t *n, void **out)
{
    *n = 0;
    *out = NULL;
    if (!spot_is_there(s))
        return ERR_OK;
    TRY(spot_need(s, JSON_ARRAY, "an array"));
    *out = arena_zeroed(arena, size * s->v->n_children);
    if (*out == NULL)
        return hrana_no_room(arena);
    *n = s->v->n_children;
    return ERR_OK;
}

enum err spot_bytes(const struct spot *s, enum wire_value_type type, const char *p, size_t n,
                    struct wire_value *out)
{
    if (n > UINT32_MAX)
        return spot_fail(s, "is longer than 4 GiB");
    out->type = type;
    out->text.bytes = p;
    out->text.len = (uint32_t)n;
    return ERR_OK;
}

enum err spot_base64(const struct spot *s, struct arena *arena, struct wire_value *out)
{
    size_t n;
    TRY(spot_need(s, JSON_STRING, "a string of base64"));
    char *bytes = arena_take(arena, BASE64_ROOM(s->v->len));
    if (bytes == NULL)
        return hrana_no_room(arena);
    if (!base64_decode(s->v->text, s->v->len, bytes, &n))
        return spot_fail(s, "is not base64");
    return spot_bytes(s, WIRE_BLOB, bytes, n, out);
}

enum err spot_replication_index(const struct spot *object, uint64_t *out)
{
    struct spot s = spot_get(object, "replication_index");
    uint64_t v;
    if (!spot_is_there(&s))
        return ERR_OK;
    if (!json_uint64(s.v, &v))
        return spot_fail(&s, "must be a whole number, or one in a string");
    if (v > *out)
        *out = v;
    return ERR_OK;
}

enum err spot_type(const struct spot *s, struct spot *type)
{
    TRY(spot_need(s, JSON_OBJECT, "an object"));
    *type = spot_get(s, "type");
    return spot_need(type, JSON_STRING, "a string");
}

bool spot_is_word(const struct spot *s, const char *word)
{
    return s->v->len == strlen(word) && memcmp(s->v->text, word, s->v->len) == 0;
}

enum err spot_unknown(const struct spot *type, const char *what)
{
    int n = type->v->len > 60 ? 60 : (int)type->v->len;
    return spot_fail(type, "unknown %s \"%.*s\"", what, n, type->v->text);
}
