/* Room: client.   Thread: under the cluster's lock.   Owns: bound values.
 *
 * Values stay bound until they are bound anew or cleared, over any number of runs, as in SQLite. A
 * text that is not LECTERN_TRANSIENT is only pointed to: it is copied into the request at each run.
 * Destructors are called as sqlite3_bind_* do: also when the call fails, but not for NULL.
 *
 * Invariants: a value beyond n_bound is NULL; each destructor is called once.
 * Not here: whether the values fit the statement: the node says so. */
#include "base/check.h"
#include "client/statement.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the values --- */

void bound_clear(struct lectern_stmt *s, uint32_t i)
{
    if (i >= s->n_bound)
        return;
    struct bound *b = &s->bound[i], old = *b;
    *b = (struct bound){.v.type = WIRE_NULL};
    if (old.owned)
        free(old.memory);
    else if (old.destructor != NULL)
        old.destructor(old.memory);
}

void bound_free_all(struct lectern_stmt *s)
{
    for (uint32_t i = 0; i < s->n_bound; i++)
        bound_clear(s, i);
    free(s->bound);
    s->bound = NULL;
    s->n_bound = 0;
}

uint32_t bound_count(const struct lectern_stmt *s)
{
    return s->n_bound < s->n_params ? s->n_bound : s->n_params;
}

void bound_encode(const struct lectern_stmt *s, struct buf *b)
{
    for (uint32_t i = 0; i < bound_count(s); i++) {
        const struct bound *v = &s->bound[i];
        if (!v->zeros) {
            wire_put_param(b, "", &v->v);
            continue;
        }
        buf_put_cstr(b, "");
        buf_put_u8(b, WIRE_BLOB);
        buf_put_u32(b, v->v.text.len);
        void *zeros = buf_extend(b, v->v.text.len);
        if (zeros != NULL)
            memset(zeros, 0, v->v.text.len);
    }
}

/* Room for value INDEX (from 1), doubling. False: no memory. */
static bool make_room(struct lectern_stmt *s, uint32_t index)
{
    if (index <= s->n_bound)
        return true;
    uint32_t n = s->n_bound == 0 ? 4 : s->n_bound * 2;
    n = n < index ? index : n;
    struct bound *bound = realloc(s->bound, n * sizeof *bound);
    if (bound == NULL)
        return false;
    for (uint32_t i = s->n_bound; i < n; i++)
        bound[i] = (struct bound){.v.type = WIRE_NULL};
    s->bound = bound;
    s->n_bound = n;
    return true;
}

/* Enters and empties value INDEX. LECTERN_OK: the lock is held and *OUT is to be filled. */
static int bind_enter(struct lectern_stmt *s, int index, struct bound **out)
{
    if (!statement_enter(s))
        return LECTERN_MISUSE;
    struct lectern *db = s->handle.db;
    uint32_t last = s->lazy ? SQL_PARAMS_MAX : s->n_params;
    int code = LECTERN_OK;
    if (s->state != STATEMENT_READY)
        code = session_fail(db, LECTERN_MISUSE, "bind on a busy prepared statement: [%.200s]",
                            s->text == NULL ? "" : s->text->sql);
    else if (index < 1 || (uint32_t)index > last)
        code = session_fail(db, LECTERN_RANGE, "%s", "");
    else if (!make_room(s, (uint32_t)index))
        code = session_fail(db, LECTERN_NOMEM, "%s", "");
    if (code != LECTERN_OK) {
        session_leave(db->cluster);
        return code;
    }
    if (s->lazy && (uint32_t)index > s->n_params)
        s->n_params = (uint32_t)index;
    bound_clear(s, (uint32_t)index - 1);
    *out = &s->bound[index - 1];
    return LECTERN_OK;
}

static int bind_leave(struct lectern_stmt *s)
{
    int code = session_ok(s->handle.db);
    session_leave(s->handle.db->cluster);
    return code;
}

static int bind_value(lectern_stmt *s, int index, const struct wire_value *v)
{
    struct bound *b;
    int code = bind_enter(s, index, &b);
    if (code != LECTERN_OK)
        return code;
    b->v = *v;
    return bind_leave(s);
}

/* --- the calls --- */

int lectern_bind_null(lectern_stmt *s, int index)
{
    return bind_value(s, index, &(struct wire_value){.type = WIRE_NULL});
}

int lectern_bind_int64(lectern_stmt *s, int index, int64_t value)
{
    return bind_value(s, index, &(struct wire_value){.type = WIRE_INTEGER, .integer = value});
}

int lectern_bind_int(lectern_stmt *s, int index, int value)
{
    return lectern_bind_int64(s, index, value);
}

int lectern_bind_double(lectern_stmt *s, int index, double value)
{
    if (isnan(value))
        return lectern_bind_null(s, index); /* as SQLite */
    return bind_value(s, index, &(struct wire_value){.type = WIRE_FLOAT, .real = value});
}

static bool is_function(lectern_destructor d)
{
    return d != LECTERN_STATIC && d != LECTERN_TRANSIENT;
}

/* BYTES are the caller's, untouched through a pointer that only its destructor may write to. */
static void *to_destroy(const void *bytes)
{
    void *p;
    memcpy(&p, &bytes, sizeof p);
    return p;
}

/* Fills B, for N bytes. LECTERN_OK, TOOBIG, NOMEM. */
static int fill(struct bound *b, enum wire_value_type type, const void *bytes, size_t n,
                lectern_destructor destructor)
{
    if (n > BOUND_MAX)
        return LECTERN_TOOBIG;
    const void *kept = bytes;
    if (destructor == LECTERN_TRANSIENT) {
        b->memory = malloc(n + 1);
        if (b->memory == NULL)
            return LECTERN_NOMEM;
        if (n != 0)
            memcpy(b->memory, bytes, n);
        b->owned = true;
        kept = b->memory;
    } else if (destructor != LECTERN_STATIC) {
        b->memory = to_destroy(bytes);
        b->destructor = destructor;
    }
    b->v.type = type;
    b->v.text.bytes = kept;
    b->v.text.len = (uint32_t)n;
    return LECTERN_OK;
}

static int bind_bytes(lectern_stmt *s, int index, enum wire_value_type type, const void *bytes,
                      size_t n, lectern_destructor destructor)
{
    struct bound *b;
    int code = bind_enter(s, index, &b);
    if (code != LECTERN_OK) {
        if (bytes != NULL && is_function(destructor))
            destructor(to_destroy(bytes));
        return code;
    }
    if (bytes == NULL)
        return bind_leave(s); /* NULL it is */
    code = fill(b, type, bytes, n, destructor);
    if (code == LECTERN_OK)
        return bind_leave(s);
    struct lectern *db = s->handle.db;
    if (code == LECTERN_TOOBIG)
        (void)session_fail(db, code, "a value has up to %llu bytes, this one %zu", BOUND_MAX, n);
    else
        (void)session_fail(db, code, "%s", "");
    session_leave(db->cluster);
    if (is_function(destructor))
        destructor(to_destroy(bytes));
    return code;
}

int lectern_bind_text(lectern_stmt *s, int index, const char *text, int n,
                      lectern_destructor destructor)
{
    size_t len = text == NULL ? 0 : n < 0 ? strlen(text) : (size_t)n;
    return bind_bytes(s, index, WIRE_TEXT, text, len, destructor);
}

int lectern_bind_blob(lectern_stmt *s, int index, const void *bytes, int n,
                      lectern_destructor destructor)
{
    if (bytes == NULL || n >= 0)
        return bind_bytes(s, index, WIRE_BLOB, bytes, (size_t)(n < 0 ? 0 : n), destructor);
    if (!statement_enter(s))
        return LECTERN_MISUSE;
    struct lectern *db = s->handle.db;
    int code = session_fail(db, LECTERN_MISUSE, "a blob of %d bytes", n);
    session_leave(db->cluster);
    return code;
}

int lectern_bind_zeroblob(lectern_stmt *s, int index, int n)
{
    struct bound *b;
    int code = bind_enter(s, index, &b);
    if (code != LECTERN_OK)
        return code;
    size_t len = n < 0 ? 0 : (size_t)n; /* as SQLite */
    if (len > BOUND_MAX) {
        struct lectern *db = s->handle.db;
        code = session_fail(db, LECTERN_TOOBIG, "a value has up to %llu bytes, this one %zu",
                            BOUND_MAX, len);
        session_leave(db->cluster);
        return code;
    }
    b->zeros = true;
    b->v.type = WIRE_BLOB;
    b->v.text.bytes = NULL;
    b->v.text.len = (uint32_t)len;
    return bind_leave(s);
}

int lectern_clear_bindings(lectern_stmt *s)
{
    if (!statement_enter(s))
        return LECTERN_MISUSE;
    for (uint32_t i = 0; i < s->n_bound; i++)
        bound_clear(s, i);
    return bind_leave(s);
}

/* --- the parameters --- */

int lectern_bind_parameter_count(lectern_stmt *s)
{
    if (!statement_enter(s))
        return 0;
    int n = s->lazy ? 0 : (int)s->n_params;
    session_leave(s->handle.db->cluster);
    return n;
}

int lectern_bind_parameter_index(lectern_stmt *s, const char *name)
{
    if (name == NULL || !statement_enter(s))
        return 0;
    int index = 0;
    for (uint32_t i = 0; s->params != NULL && i < s->n_params && index == 0; i++)
        if (s->params[i] != NULL && strcmp(s->params[i], name) == 0)
            index = (int)i + 1;
    session_leave(s->handle.db->cluster);
    return index;
}

const char *lectern_bind_parameter_name(lectern_stmt *s, int index)
{
    if (!statement_enter(s))
        return NULL;
    const char *name = NULL;
    if (s->params != NULL && index >= 1 && (uint32_t)index <= s->n_params)
        name = s->params[index - 1];
    session_leave(s->handle.db->cluster);
    return name;
}
