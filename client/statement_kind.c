/* Room: client.   Thread: any.   Owns: nothing.
 *
 * Invariants: a statement that could change something is never called a read.
 *
 * Not here: parsing SQL. The server's SQLite knows (sqlite3_stmt_readonly); we only need to be
 * right when we say "read". */
#include "client/statement_kind.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

static const char *skip_blanks(const char *p, const char *end)
{
    while (p < end) {
        if (isspace((unsigned char)*p) || *p == ';') {
            p++;
        } else if (end - p >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0) {
            p += 3; /* a byte order mark: a space to SQLite */
        } else if (end - p >= 2 && p[0] == '-' && p[1] == '-') {
            const char *newline = memchr(p, '\n', (size_t)(end - p));
            p = newline == NULL ? end : newline + 1;
        } else if (end - p >= 2 && p[0] == '/' && p[1] == '*') {
            const char *close = memmem(p + 2, (size_t)(end - p - 2), "*/", 2);
            p = close == NULL ? end : close + 2;
        } else {
            break;
        }
    }
    return p;
}

static bool word_char(char c)
{
    return isalnum((unsigned char)c) || c == '_' || (c & 0x80) != 0;
}

static size_t word_len(const char *p, const char *end)
{
    size_t n = 0;
    while (p + n < end && word_char(p[n]))
        n++;
    return n;
}

static bool is_word(const char *p, size_t n, const char *word)
{
    return strlen(word) == n && strncasecmp(p, word, n) == 0;
}

static bool is_write_word(const char *p, size_t n)
{
    static const char *const words[] = {"insert", "update", "delete", "replace"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (is_word(p, n, words[i]))
            return true;
    return false;
}

/* Any of the words that make a WITH a write, also where they are only a name or inside a string. */
static bool has_write_word(const char *p, const char *end)
{
    while (p < end) {
        size_t n = word_len(p, end);
        if (is_write_word(p, n))
            return true;
        p += n == 0 ? 1 : n;
    }
    return false;
}

enum statement_kind statement_kind(const char *sql, size_t n)
{
    const char *end = sql + n, *p = skip_blanks(sql, end);
    size_t len = word_len(p, end);
    if (is_word(p, len, "select") || is_word(p, len, "values") || is_word(p, len, "explain"))
        return STATEMENT_READ;
    if (is_word(p, len, "with"))
        return has_write_word(p, end) ? STATEMENT_WRITE : STATEMENT_READ;
    if (is_word(p, len, "begin"))
        return STATEMENT_BEGIN;
    if (is_word(p, len, "savepoint"))
        return STATEMENT_SAVEPOINT;
    if (is_word(p, len, "commit") || is_word(p, len, "end") || is_word(p, len, "release"))
        return STATEMENT_COMMIT;
    return STATEMENT_WRITE;
}

bool statement_counts(const char *sql, size_t n)
{
    const char *end = sql + n, *p = skip_blanks(sql, end);
    size_t len = word_len(p, end);
    return is_write_word(p, len) || (is_word(p, len, "with") && has_write_word(p, end));
}

int statement_explains(const char *sql, size_t n)
{
    const char *end = sql + n, *p = skip_blanks(sql, end);
    size_t len = word_len(p, end);
    if (!is_word(p, len, "explain"))
        return 0;
    p = skip_blanks(p + len, end);
    return is_word(p, word_len(p, end), "query") ? 2 : 1;
}
