/* Room: node. Thread: any; pure functions of the text. */
#include "node/sqltext.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

struct cursor {
    const char *p, *end;
};

static bool skip_comment(struct cursor *c)
{
    if (c->end - c->p < 2)
        return false;
    if (c->p[0] == '-' && c->p[1] == '-') {
        const char *newline = memchr(c->p, '\n', (size_t)(c->end - c->p));
        c->p = newline == NULL ? c->end : newline + 1;
        return true;
    }
    if (c->p[0] == '/' && c->p[1] == '*') {
        for (c->p += 2; c->p < c->end; c->p++) {
            if (c->end - c->p >= 2 && c->p[0] == '*' && c->p[1] == '/') {
                c->p += 2;
                return true;
            }
        }
        return true; /* SQLite, too, lets a comment run to the end */
    }
    return false;
}

/* SQLite takes a UTF-8 byte order mark for a space, anywhere between two words. */
static bool skip_byte_order_mark(struct cursor *c)
{
    if (c->end - c->p < 3 || memcmp(c->p, "\xef\xbb\xbf", 3) != 0)
        return false;
    c->p += 3;
    return true;
}

static void skip(struct cursor *c, bool semicolons)
{
    while (c->p < c->end) {
        if (isspace((unsigned char)*c->p) || (semicolons && *c->p == ';'))
            c->p++;
        else if (!skip_byte_order_mark(c) && !skip_comment(c))
            return;
    }
}

size_t sql_skip_space(const char *sql, size_t n)
{
    struct cursor c = {sql, sql + n};
    skip(&c, true);
    return (size_t)(c.p - sql);
}

/* What SQLite takes into a word: in it, a byte order mark is no space either. */
static bool in_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$' || (c & 0x80) != 0;
}

/* The next word, after space; empty when something else comes. */
static size_t word(struct cursor *c, const char **start)
{
    skip(c, false);
    *start = c->p;
    while (c->p < c->end && in_word(*c->p))
        c->p++;
    return (size_t)(c->p - *start);
}

static bool is(const char *start, size_t n, const char *keyword)
{
    return n == strlen(keyword) && strncasecmp(start, keyword, n) == 0;
}

/* SQLite's rule for a number: its lowest eight bits count, and 0 what does not fit into 31. */
static bool number_is_on(const char *digits, size_t n)
{
    uint64_t value = 0;
    for (size_t i = 0; i < n && value <= INT32_MAX; i++)
        value = value * 10 + (uint64_t)(digits[i] - '0');
    return value <= INT32_MAX && (value & 0xff) != 0;
}

/* The value of a switch: a number with or without a sign, a word, or one of these in quotes. False:
 * something else, for SQLite to judge. */
static bool switch_value(struct cursor *c, int *value)
{
    static const char *const on[] = {"on", "true", "yes"};
    const char *w;
    skip(c, false);
    char first = c->p < c->end ? *c->p : 0;
    char quote = first == '\'' || first == '"' ? first : 0;
    if (quote != 0 || first == '+' || first == '-')
        c->p++;
    const char *start = c->p;
    size_t n = word(c, &w), digits = 0;
    while (digits < n && isdigit((unsigned char)w[digits]))
        digits++;
    if (n == 0 || (digits > 0 && digits < n) || (quote == 0 && first != *w && digits == 0))
        return false;
    if (quote != 0 && (w != start || c->p == c->end || *c->p++ != quote))
        return false;
    *value = digits > 0 && first != '-' && number_is_on(w, n);
    for (size_t i = 0; i < sizeof on / sizeof on[0]; i++)
        if (is(w, n, on[i]))
            *value = 1;
    return true; /* any other word is off to SQLite, too */
}

/* Behind PRAGMA: is it foreign_keys, whole and alone? VALUE: 1 on, 0 off, -1 when it asks. */
static bool parse_foreign_keys(struct cursor c, int *value)
{
    const char *w;
    size_t n = word(&c, &w);
    *value = -1;
    skip(&c, false);
    if (c.p < c.end && *c.p == '.') { /* PRAGMA main.foreign_keys */
        c.p++;
        n = word(&c, &w);
        skip(&c, false);
    }
    if (!is(w, n, "foreign_keys"))
        return false;
    char sign = c.p < c.end ? *c.p : 0;
    if (sign == '=' || sign == '(') {
        c.p++;
        if (!switch_value(&c, value))
            return false;
        skip(&c, false);
        if (sign == '(' && (c.p == c.end || *c.p++ != ')'))
            return false;
        skip(&c, false);
    }
    if (c.p < c.end && *c.p != ';')
        return false;
    skip(&c, true);
    return c.p == c.end; /* more text: another statement, which must not be lost in silence */
}

/* Steps over a string or a name in quotes; without a closing one it runs to the end. */
static void skip_quoted(struct cursor *c)
{
    char close = *c->p == '[' ? ']' : *c->p;
    c->p++;
    const char *end = memchr(c->p, close, (size_t)(c->end - c->p));
    c->p = end == NULL ? c->end : end + 1; /* a doubled quote begins the next one */
}

static bool is_quote(char c)
{
    return c == '\'' || c == '"' || c == '`' || c == '[';
}

/* Behind WITH: the first word outside all parentheses that cannot be a table's name decides. A
 * reader must not judge a write by the tables that it knows: it may be behind. */
static enum sql_kind classify_with(struct cursor c)
{
    int depth = 0;
    for (skip(&c, false); c.p < c.end; skip(&c, false)) {
        const char *w;
        size_t n = word(&c, &w);
        if (n == 0 && is_quote(*c.p)) {
            skip_quoted(&c);
        } else if (n == 0) {
            depth += *c.p == '(' ? 1 : *c.p == ')' ? -1 : 0;
            c.p++;
        } else if (depth == 0 && (is(w, n, "SELECT") || is(w, n, "VALUES"))) {
            return SQL_READ;
        } else if (depth == 0 && (is(w, n, "INTO") || is(w, n, "UPDATE") || is(w, n, "DELETE"))) {
            return SQL_WRITE; /* INTO: of INSERT, or of REPLACE, which may be a table's name */
        }
    }
    return SQL_READ;
}

enum sql_kind sql_classify(const char *sql, size_t n)
{
    static const struct {
        const char *keyword;
        enum sql_kind kind;
    } known[] = {
        {"SELECT", SQL_READ},           {"VALUES", SQL_READ},          {"EXPLAIN", SQL_READ},
        {"PRAGMA", SQL_READ},           {"VACUUM", SQL_ALONE},         {"BEGIN", SQL_TRANSACTION},
        {"SAVEPOINT", SQL_TRANSACTION}, {"COMMIT", SQL_TRANSACTION},   {"END", SQL_TRANSACTION},
        {"RELEASE", SQL_TRANSACTION},   {"ROLLBACK", SQL_TRANSACTION},
    };
    struct cursor c = {sql, sql + n};
    const char *w;
    skip(&c, true);
    if (c.p == c.end)
        return SQL_EMPTY;
    size_t len = word(&c, &w);
    int value;
    if (is(w, len, "PRAGMA") && parse_foreign_keys(c, &value))
        return SQL_FOREIGN_KEYS;
    if (is(w, len, "WITH"))
        return classify_with(c);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (is(w, len, known[i].keyword))
            return known[i].kind;
    return SQL_WRITE;
}

bool sql_is_query(const char *sql, size_t n)
{
    struct cursor c = {sql, sql + n};
    const char *w;
    skip(&c, true);
    size_t len = word(&c, &w);
    return is(w, len, "SELECT") || is(w, len, "VALUES") ||
           (is(w, len, "WITH") && classify_with(c) == SQL_READ);
}

bool sql_is_rollback(const char *sql, size_t n)
{
    struct cursor c = {sql, sql + n};
    const char *w;
    skip(&c, true);
    size_t len = word(&c, &w);
    if (!is(w, len, "ROLLBACK"))
        return false;
    len = word(&c, &w);
    if (is(w, len, "TRANSACTION"))
        len = word(&c, &w);
    return !is(w, len, "TO");
}

/* Behind BEGIN. Transactions may have a name in SQLite's grammar, which it ignores: READONLY reads
 * as one behind TRANSACTION, and is a syntax error alone. */
static enum sql_step step_of_begin(struct cursor *c)
{
    enum sql_step step = SQL_STEP_BEGIN;
    const char *w;
    size_t len = word(c, &w);
    if (is(w, len, "IMMEDIATE") || is(w, len, "EXCLUSIVE"))
        step = SQL_STEP_WRITE;
    if (step == SQL_STEP_WRITE || is(w, len, "DEFERRED"))
        len = word(c, &w);
    else if (is(w, len, "READONLY"))
        return SQL_STEP_READONLY;
    if (is(w, len, "TRANSACTION")) {
        len = word(c, &w);
        if (step == SQL_STEP_BEGIN && is(w, len, "READONLY"))
            return SQL_STEP_READONLY;
    }
    return len == 0 ? step : SQL_STEP_NONE;
}

enum sql_step sql_step_of(const char *sql, size_t n)
{
    struct cursor c = {sql, sql + n};
    enum sql_step step = SQL_STEP_NONE;
    const char *w;
    skip(&c, true);
    size_t len = word(&c, &w);
    if (is(w, len, "BEGIN"))
        step = step_of_begin(&c);
    else if (is(w, len, "COMMIT") || is(w, len, "END"))
        step = SQL_STEP_COMMIT;
    else if (is(w, len, "ROLLBACK"))
        step = SQL_STEP_ROLLBACK;
    else
        return SQL_STEP_NONE;
    if (step == SQL_STEP_COMMIT || step == SQL_STEP_ROLLBACK) {
        struct cursor before = c;
        if (!is(w, word(&c, &w), "TRANSACTION"))
            c = before;
    }
    skip(&c, true);
    return c.p == c.end ? step : SQL_STEP_NONE;
}

int sql_foreign_keys_value(const char *sql, size_t n)
{
    struct cursor c = {sql, sql + n};
    const char *w;
    int value;
    skip(&c, true);
    (void)word(&c, &w); /* PRAGMA */
    return parse_foreign_keys(c, &value) ? value : -1;
}
