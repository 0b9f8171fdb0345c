/* Room: node. Thread: any; pure functions of the text. */
#include "node/sqltext.h"

#include <ctype.h>
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

static void skip(struct cursor *c, bool semicolons)
{
    while (c->p < c->end) {
        if (isspace((unsigned char)*c->p) || (semicolons && *c->p == ';'))
            c->p++;
        else if (!skip_comment(c))
            return;
    }
}

size_t sql_skip_space(const char *sql, size_t n)
{
    struct cursor c = {sql, sql + n};
    skip(&c, true);
    return (size_t)(c.p - sql);
}

/* The next word of letters, digits and underscores, after space; empty when something else comes.
 */
static size_t word(struct cursor *c, const char **start)
{
    skip(c, false);
    *start = c->p;
    while (c->p < c->end && (isalnum((unsigned char)*c->p) || *c->p == '_'))
        c->p++;
    return (size_t)(c->p - *start);
}

static bool is(const char *start, size_t n, const char *keyword)
{
    return n == strlen(keyword) && strncasecmp(start, keyword, n) == 0;
}

static bool pragma_is_foreign_keys(struct cursor c)
{
    const char *w;
    size_t n = word(&c, &w);
    skip(&c, false);
    if (c.p < c.end && *c.p == '.') { /* PRAGMA main.foreign_keys */
        c.p++;
        n = word(&c, &w);
    }
    return is(w, n, "foreign_keys");
}

enum sql_kind sql_classify(const char *sql, size_t n)
{
    static const struct {
        const char *keyword;
        enum sql_kind kind;
    } known[] = {
        {"SELECT", SQL_READ},       {"VALUES", SQL_READ},           {"EXPLAIN", SQL_READ},
        {"WITH", SQL_READ},         {"PRAGMA", SQL_READ},           {"VACUUM", SQL_ALONE},
        {"BEGIN", SQL_TRANSACTION}, {"SAVEPOINT", SQL_TRANSACTION}, {"COMMIT", SQL_TRANSACTION},
        {"END", SQL_TRANSACTION},   {"RELEASE", SQL_TRANSACTION},   {"ROLLBACK", SQL_TRANSACTION},
    };
    struct cursor c = {sql, sql + n};
    const char *w;
    skip(&c, true);
    if (c.p == c.end)
        return SQL_EMPTY;
    size_t len = word(&c, &w);
    if (is(w, len, "PRAGMA") && pragma_is_foreign_keys(c))
        return SQL_FOREIGN_KEYS;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (is(w, len, known[i].keyword))
            return known[i].kind;
    return SQL_WRITE;
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

int sql_foreign_keys_value(const char *sql, size_t n)
{
    static const char *const on[] = {"1", "on", "true", "yes"};
    struct cursor c = {sql, sql + n};
    const char *w;
    skip(&c, true);
    (void)word(&c, &w); /* PRAGMA */
    (void)word(&c, &w); /* foreign_keys, or the schema's name */
    skip(&c, false);
    if (c.p < c.end && *c.p == '.') {
        c.p++;
        (void)word(&c, &w);
        skip(&c, false);
    }
    if (c.p == c.end || (*c.p != '=' && *c.p != '('))
        return -1;
    c.p++;
    skip(&c, false);
    if (c.p < c.end && (*c.p == '\'' || *c.p == '"'))
        c.p++;
    size_t len = word(&c, &w);
    for (size_t i = 0; i < sizeof on / sizeof on[0]; i++)
        if (is(w, len, on[i]))
            return 1;
    return 0; /* what SQLite makes of any other word */
}
