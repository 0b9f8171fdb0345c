/* Room: node. `text REGEXP pattern`, that is regexp(pattern, text): Python's re.search by PCRE2.
 * Thread: the connection's.
 *
 * A search is bounded by its work, counted in callouts (functions_pattern.c), and by its memory,
 * which PCRE2 takes from the heap: no pattern can run forever or overflow the stack. In the
 * callouts it is asked, too, whether the statement shall stop. A pattern that is constant in its
 * statement is compiled once (sqlite3_set_auxdata).
 */
#include "node/functions_pattern.h"
#include "node/functions_state.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define PATTERN_MAX    32768       /* bytes */
#define WORK_MAX       20000000    /* some tenths of a second, ... */
#define WORK_PER_BYTE  16          /* ... and this much for each byte of the text */
#define WORK_PER_ASK   1000        /* between two looks at the clock: 10 to 100 us */
#define BYTES_PER_WORK 16          /* a step over so many bytes costs as much as one callout */
#define HEAP_KIB       (32 * 1024) /* for one search */
#define NESTED_MAX     250         /* groups in groups: bounds the compiler's stack */

struct regexp {
    pcre2_code *code;
    pcre2_match_data *data;
    pcre2_match_context *limits;
    bool has_references; /* (?P=name) and the like */
};

static void regexp_free(void *arg)
{
    struct regexp *r = arg;
    if (r == NULL)
        return;
    pcre2_match_data_free(r->data);
    pcre2_match_context_free(r->limits);
    pcre2_code_free(r->code);
    sqlite3_free(r);
}

/* NULL: the result is an error. */
static pcre2_code *compile_code(sqlite3_context *ctx, const struct pattern *p)
{
    pcre2_compile_context *how = pcre2_compile_context_create(NULL);
    int error = PCRE2_ERROR_NOMEMORY;
    size_t at = 0;
    pcre2_code *code = NULL;
    if (how != NULL) {
        (void)pcre2_set_newline(how, PCRE2_NEWLINE_LF);
        (void)pcre2_set_parens_nest_limit(how, NESTED_MAX);
        code = pcre2_compile((PCRE2_SPTR)p->text, p->n,
                             PCRE2_UTF | PCRE2_ALT_CIRCUMFLEX | PCRE2_NEVER_BACKSLASH_C |
                                 (p->ascii ? 0 : PCRE2_UCP),
                             &error, &at, how);
    }
    pcre2_compile_context_free(how);
    PCRE2_UCHAR text[160] = "";
    if (code == NULL && (error == PCRE2_ERROR_NOMEMORY || error == PCRE2_ERROR_HEAP_FAILED)) {
        sqlite3_result_error_nomem(ctx);
    } else if (code == NULL) {
        (void)pcre2_get_error_message(error, text, sizeof text);
        fn_raise(ctx, "bad regular expression: %s", (const char *)text);
    }
    return code;
}

static struct regexp *compile(sqlite3_context *ctx, sqlite3_value *v)
{
    struct pattern p;
    struct fn_string s;
    if (sqlite3_value_type(v) != SQLITE_TEXT) {
        fn_raise(ctx, "a regular expression is text");
        return NULL;
    }
    if (!fn_text(ctx, v, &s))
        return NULL;
    if (s.n > PATTERN_MAX) {
        fn_raise(ctx, "bad regular expression: longer than %d bytes", PATTERN_MAX);
        return NULL;
    }
    pattern_translate(s.p, s.n, &p);
    if (p.text == NULL) {
        if (p.why != NULL)
            fn_raise(ctx, "bad regular expression: %s at byte %d", p.why, (int)p.at);
        else
            sqlite3_result_error_nomem(ctx);
        return NULL;
    }
    pcre2_code *code = compile_code(ctx, &p);
    sqlite3_free(p.text);
    if (code == NULL)
        return NULL;
    struct regexp *r = sqlite3_malloc64(sizeof *r);
    if (r == NULL) {
        pcre2_code_free(code);
        sqlite3_result_error_nomem(ctx);
        return NULL;
    }
    uint32_t references = 0;
    (void)pcre2_pattern_info(code, PCRE2_INFO_BACKREFMAX, &references);
    *r = (struct regexp){code, pcre2_match_data_create(1, NULL), pcre2_match_context_create(NULL),
                         references > 0};
    if (r->data == NULL || r->limits == NULL) {
        regexp_free(r);
        sqlite3_result_error_nomem(ctx);
        return NULL;
    }
    (void)pcre2_set_heap_limit(r->limits, HEAP_KIB);
    return r;
}

/* --- what is searched --- */

/* Python's repr(float): the shortest digits that read back the same. */
static char *repr_real(double x)
{
    char digits[40];
    int precision = fabs(x) < 0x1p-1022 ? 0 : 14;
    if (isinf(x))
        return sqlite3_mprintf("%s", x > 0 ? "inf" : "-inf");
    do
        (void)snprintf(digits, sizeof digits, "%.*e", precision, x);
    while (strtod(digits, NULL) != x && ++precision < 17);
    char *e = strchr(digits, 'e'), *from = digits[0] == '-' ? digits + 1 : digits;
    int exponent = (int)strtol(e + 1, NULL, 10);
    char bare[24];
    int n = 0;
    for (const char *c = from; c < e; c++)
        if (*c != '.')
            bare[n++] = *c;
    while (n > 1 && bare[n - 1] == '0')
        n--;
    bare[n] = 0;
    const char *sign = from == digits ? "" : "-";
    if (exponent < -4 || exponent >= 16)
        return sqlite3_mprintf("%s%c%s%se%c%02d", sign, bare[0], n > 1 ? "." : "", bare + 1,
                               exponent < 0 ? '-' : '+', abs(exponent));
    if (exponent < 0)
        return sqlite3_mprintf("%s0.%.*s%s", sign, -exponent - 1, "0000", bare);
    if (n <= exponent + 1)
        return sqlite3_mprintf("%s%s%.*s.0", sign, bare, exponent + 1 - n, "0000000000000000");
    return sqlite3_mprintf("%s%.*s.%s", sign, exponent + 1, bare, bare + exponent + 1);
}

/* Python's str(bytes): b'...'. NULL: no memory, perhaps for P already (a zeroblob). */
static char *repr_blob(const unsigned char *p, size_t n)
{
    if (p == NULL && n > 0)
        return NULL;
    sqlite3_str *s = sqlite3_str_new(NULL);
    bool single = n > 0 && memchr(p, '\'', n) != NULL, twice = n > 0 && memchr(p, '"', n) != NULL;
    char quote = single && !twice ? '"' : '\'';
    sqlite3_str_appendf(s, "b%c", quote);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = p[i];
        if (c == (unsigned char)quote || c == '\\')
            sqlite3_str_appendf(s, "\\%c", c);
        else if (c == '\t' || c == '\n' || c == '\r')
            sqlite3_str_appendf(s, "\\%c", c == '\t' ? 't' : c == '\n' ? 'n' : 'r');
        else if (c < ' ' || c >= 0x7f)
            sqlite3_str_appendf(s, "\\x%02x", c);
        else
            sqlite3_str_appendchar(s, 1, (char)c);
    }
    sqlite3_str_appendchar(s, 1, quote);
    return sqlite3_str_finish(s);
}

/* V as str(v): *own is to be freed. */
static bool subject_of(sqlite3_context *ctx, sqlite3_value *v, const char **p, size_t *n,
                       char **own)
{
    *own = NULL;
    switch (sqlite3_value_type(v)) {
    case SQLITE_TEXT:
        *p = (const char *)sqlite3_value_text(v);
        *n = (size_t)sqlite3_value_bytes(v);
        if (*p == NULL)
            sqlite3_result_error_nomem(ctx);
        return *p != NULL;
    case SQLITE_INTEGER:
        *own = sqlite3_mprintf("%lld", (long long)sqlite3_value_int64(v));
        break;
    case SQLITE_FLOAT:
        *own = repr_real(sqlite3_value_double(v));
        break;
    default:
        /* Four times as long at most. */
        if (sqlite3_value_bytes(v) >
            sqlite3_limit(sqlite3_context_db_handle(ctx), SQLITE_LIMIT_LENGTH, -1) / 4) {
            sqlite3_result_error_toobig(ctx);
            return false;
        }
        *own = repr_blob(sqlite3_value_blob(v), (size_t)sqlite3_value_bytes(v));
        break;
    }
    if (*own == NULL) {
        sqlite3_result_error_nomem(ctx);
        return false;
    }
    *p = *own;
    *n = strlen(*own);
    return true;
}

/* --- the search --- */

struct search {
    sqlite3_context *ctx;
    uint64_t work, work_max, ask_at;
    size_t position; /* at the last callout */
    bool has_references;
};

/* Zero: go on. */
static int on_callout(pcre2_callout_block *b, void *arg)
{
    struct search *s = arg;
    size_t now = b->current_position;
    size_t moved = now > s->position ? now - s->position : s->position - now;
    /* A reference compares what its group has, without moving when that differs. (A lookbehind is
     * before the start.) */
    if (s->has_references && now > b->start_match)
        moved += now - b->start_match;
    s->position = now;
    s->work += 1 + moved / BYTES_PER_WORK;
    if (s->work > s->work_max)
        return PCRE2_ERROR_MATCHLIMIT;
    if (s->work < s->ask_at)
        return 0;
    s->ask_at = s->work + WORK_PER_ASK;
    return fn_go_on(s->ctx) ? 0 : PCRE2_ERROR_CALLOUT;
}

static void search(sqlite3_context *ctx, struct regexp *r, const char *p, size_t n)
{
    struct search s = {.ctx = ctx,
                       .work_max = WORK_MAX + (uint64_t)n * WORK_PER_BYTE,
                       .has_references = r->has_references};
    if (!fn_go_on(ctx)) /* many short ones, one after the other */
        return;
    (void)pcre2_set_callout(r->limits, on_callout, &s);
    int found = pcre2_match(r->code, (PCRE2_SPTR)p, n, 0, 0, r->data, r->limits);
    if (found == PCRE2_ERROR_CALLOUT)
        return; /* the result is set */
    PCRE2_UCHAR text[160] = "";
    if (found >= 0 || found == PCRE2_ERROR_NOMATCH) {
        sqlite3_result_int(ctx, found >= 0);
    } else if (found == PCRE2_ERROR_NOMEMORY) {
        sqlite3_result_error_nomem(ctx);
    } else if (found == PCRE2_ERROR_MATCHLIMIT || found == PCRE2_ERROR_DEPTHLIMIT ||
               found == PCRE2_ERROR_HEAPLIMIT) {
        fn_raise(ctx, "REGEXP: the search takes too many steps or too much memory: the pattern "
                      "tries too many ways to match this text");
    } else {
        (void)pcre2_get_error_message(found, text, sizeof text);
        fn_raise(ctx, "REGEXP: %s", (const char *)text);
    }
}

static void regexp(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    const char *subject;
    size_t length;
    char *own;
    if (fn_any_null(n, v))
        return;
    struct regexp *r = sqlite3_get_auxdata(ctx, 0), *fresh = NULL;
    if (r == NULL)
        r = fresh = compile(ctx, v[0]);
    if (r == NULL)
        return;
    if (subject_of(ctx, v[1], &subject, &length, &own)) {
        search(ctx, r, subject, length);
        sqlite3_free(own);
    }
    if (fresh != NULL) /* may free it at once */
        sqlite3_set_auxdata(ctx, 0, fresh, regexp_free);
}

const struct function functions_regexp[] = {
    {"regexp", 2, SQLITE_DETERMINISTIC, regexp, NULL, NULL},
    {NULL, 0, 0, NULL, NULL, NULL},
};
