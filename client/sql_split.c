/* Room: client.   Thread: the owner.   Owns: nothing.
 *
 * Two machines, one above the other. The scanner makes tokens of bytes, over any cut of the input;
 * the statement machine knows just enough grammar to see that the semicolons inside a trigger's
 * body end nothing. It is the machine that sqlite3_complete() documents (SQLite's src/complete.c),
 * and a test compares the two on random input.
 *
 *                      other            ;
 *          +---------> NORMAL ------------------> START <------------------+
 *          |             ^                          ^                      |
 *          |  other      | other (not TEMP)         | ;                    | ;
 *        START --------> CREATE --TRIGGER--> TRIGGER --;--> SEMI --END--> END
 *          |  CREATE                           ^  other     |  |           |
 *          +-------> EXPLAIN                   +------------+--+-----------+  other
 *
 * Invariants: no byte is looked at twice; a quoted name, a string and a comment hide every byte. */
#include "client/sql_split.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

enum scan {
    SCAN_PLAIN,
    SCAN_WORD,
    SCAN_DASH,    /* seen -, a comment if another follows */
    SCAN_SLASH,   /* seen /, a comment if * follows */
    SCAN_LINE,    /* -- comment */
    SCAN_BLOCK,   /* comment between slash-star and star-slash */
    SCAN_STAR,    /* in it, seen * */
    SCAN_BRACKET, /* [name] */
    SCAN_SINGLE,  /* quoted by ' " ` */
    SCAN_DOUBLE,
    SCAN_BACK,
};

enum statement {
    START,
    NORMAL,
    EXPLAIN,
    CREATE,
    TRIGGER,
    SEMI,
    END,
};

enum token {
    TOKEN_SEMI,
    TOKEN_OTHER,
    TOKEN_EXPLAIN,
    TOKEN_CREATE,
    TOKEN_TEMP,
    TOKEN_TRIGGER,
    TOKEN_END
};

/* Rows: where we are; columns: ; other EXPLAIN CREATE TEMP TRIGGER END. */
static const unsigned char next_statement[7][7] = {
    [START] = {START, NORMAL, EXPLAIN, CREATE, NORMAL, NORMAL, NORMAL},
    [NORMAL] = {START, NORMAL, NORMAL, NORMAL, NORMAL, NORMAL, NORMAL},
    [EXPLAIN] = {START, EXPLAIN, NORMAL, CREATE, NORMAL, NORMAL, NORMAL},
    [CREATE] = {START, NORMAL, NORMAL, NORMAL, CREATE, TRIGGER, NORMAL},
    [TRIGGER] = {SEMI, TRIGGER, TRIGGER, TRIGGER, TRIGGER, TRIGGER, TRIGGER},
    [SEMI] = {SEMI, TRIGGER, TRIGGER, TRIGGER, TRIGGER, TRIGGER, END},
    [END] = {START, TRIGGER, TRIGGER, TRIGGER, TRIGGER, TRIGGER, TRIGGER},
};

static void take_token(struct sql_split *s, enum token t)
{
    s->statement = next_statement[s->statement][t];
}

static enum token token_of_word(const struct sql_split *s)
{
    static const struct {
        const char *word;
        enum token token;
    } words[] = {{"explain", TOKEN_EXPLAIN}, {"create", TOKEN_CREATE},   {"temp", TOKEN_TEMP},
                 {"temporary", TOKEN_TEMP},  {"trigger", TOKEN_TRIGGER}, {"end", TOKEN_END}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (s->word_len == strlen(words[i].word) &&
            strncasecmp(s->word, words[i].word, s->word_len) == 0)
            return words[i].token;
    return TOKEN_OTHER;
}

/* SQLite's idea of a byte in a name: all of UTF-8's upper half counts. */
static bool name_byte(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$' || (c & 0x80) != 0;
}

static bool blank_byte(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f';
}

/* A byte outside of everything. True: it ended a statement. */
static bool begin_token(struct sql_split *s, char c)
{
    s->scan = SCAN_PLAIN;
    if (blank_byte(c))
        return false;
    if (c == ';') {
        bool was_blank = s->statement == START;
        take_token(s, TOKEN_SEMI);
        s->ended = true;
        return s->statement == START && !was_blank;
    }
    if (name_byte(c)) {
        s->scan = SCAN_WORD;
        s->word[0] = c;
        s->word_len = 1;
        return false;
    }
    switch (c) {
    case '-':
        s->scan = SCAN_DASH;
        return false;
    case '/':
        s->scan = SCAN_SLASH;
        return false;
    case '[':
        s->scan = SCAN_BRACKET;
        break;
    case '\'':
        s->scan = SCAN_SINGLE;
        break;
    case '"':
        s->scan = SCAN_DOUBLE;
        break;
    case '`':
        s->scan = SCAN_BACK;
        break;
    default:
        break;
    }
    take_token(s, TOKEN_OTHER);
    return false;
}

static bool take_byte(struct sql_split *s, char c)
{
    switch ((enum scan)s->scan) {
    case SCAN_PLAIN:
        return begin_token(s, c);
    case SCAN_WORD:
        if (!name_byte(c)) {
            take_token(s, token_of_word(s));
            return begin_token(s, c);
        }
        if (s->word_len < sizeof s->word)
            s->word[s->word_len++] = c;
        return false;
    case SCAN_DASH:
        if (c == '-') {
            s->scan = SCAN_LINE;
            return false;
        }
        take_token(s, TOKEN_OTHER);
        return begin_token(s, c);
    case SCAN_SLASH:
        if (c == '*') {
            s->scan = SCAN_BLOCK;
            return false;
        }
        take_token(s, TOKEN_OTHER);
        return begin_token(s, c);
    case SCAN_LINE:
        if (c == '\n')
            s->scan = SCAN_PLAIN;
        return false;
    case SCAN_BLOCK:
    case SCAN_STAR:
        if (c == '/' && s->scan == SCAN_STAR)
            s->scan = SCAN_PLAIN;
        else
            s->scan = c == '*' ? SCAN_STAR : SCAN_BLOCK;
        return false;
    case SCAN_BRACKET:
        s->scan = c == ']' ? SCAN_PLAIN : SCAN_BRACKET;
        return false;
    case SCAN_SINGLE:
        s->scan = c == '\'' ? SCAN_PLAIN : SCAN_SINGLE;
        return false;
    case SCAN_DOUBLE:
        s->scan = c == '"' ? SCAN_PLAIN : SCAN_DOUBLE;
        return false;
    case SCAN_BACK:
        s->scan = c == '`' ? SCAN_PLAIN : SCAN_BACK;
        return false;
    }
    return false;
}

void sql_split_init(struct sql_split *s)
{
    *s = (struct sql_split){.scan = SCAN_PLAIN, .statement = START};
}

size_t sql_split_feed(struct sql_split *s, const char *p, size_t n, bool *complete)
{
    *complete = false;
    for (size_t i = 0; i < n; i++) {
        if (take_byte(s, p[i])) {
            *complete = true;
            return i + 1;
        }
    }
    return n;
}

bool sql_split_blank(const struct sql_split *s)
{
    return s->statement == START && (s->scan == SCAN_PLAIN || s->scan == SCAN_LINE);
}

bool sql_split_complete(const struct sql_split *s)
{
    return s->ended && sql_split_blank(s);
}

size_t sql_split_first(const char *p, size_t n)
{
    struct sql_split s;
    sql_split_init(&s);
    bool complete;
    size_t used = sql_split_feed(&s, p, n, &complete);
    /* A comment that the text ends in is blank, too: SQLite takes it so. */
    if (!complete && s.statement == START && (s.scan == SCAN_BLOCK || s.scan == SCAN_STAR))
        return 0;
    return !complete && sql_split_blank(&s) ? 0 : used;
}
