/* Room: client.   Thread: one.   Owns: the text of one statement, the batch.
 *
 * Statements that change something are gathered in batches, in their order: outside of the file's
 * transactions each batch is a transaction of its own, inside of one a savepoint of it. All others
 * (BEGIN, COMMIT, PRAGMA, SELECT ...) go alone, when what was before them is done.
 *
 * A transaction of the file whose leader is lost is read once more from its BEGIN on, when the
 * input is a file that can be read again: nothing of it was written.
 *
 * Invariants: memory holds one statement and one batch; nothing runs after the first error. */
#include "client/shell_load.h"

#include "base/buf.h"
#include "base/sizes.h"
#include "client/shell_load_batch.h"
#include "client/sql_split.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>
#include <sys/types.h>

#define STATEMENT_MAX MIB(64) /* the server takes less */
#define READ_BYTES    65536u

/* A place in the input. */
struct place {
    uint64_t offset, line;
};

struct reading {
    struct load *load;
    FILE *in;
    struct load_batch *batch;
    struct sql_split split;
    struct buf text;
    struct place at, start; /* the next byte; where the statement's text begins */
    bool rewinds;           /* the input can be read again */
    bool has_begun;         /* a transaction of the file is open */
    struct place begun;     /* its BEGIN */
    uint64_t begun_statements;
    unsigned tries; /* of that transaction */
};

enum how { HOW_BATCHED, HOW_ALONE, HOW_BEGIN, HOW_END, HOW_ROLLBACK, HOW_FOREIGN_KEYS };

/* --- what a statement is ------------------------------------------------------------------------
 */

/* Past blanks, comments and semicolons. */
static const char *skip_blanks(const char *p)
{
    for (;;) {
        if (isspace((unsigned char)*p) || *p == ';') {
            p++;
        } else if (p[0] == '-' && p[1] == '-') {
            p += strcspn(p, "\n");
        } else if (p[0] == '/' && p[1] == '*') {
            const char *end = strstr(p + 2, "*/");
            p = end == NULL ? p + strlen(p) : end + 2;
        } else {
            return p;
        }
    }
}

static bool is_word(const char *p, const char *word)
{
    size_t n = strlen(word);
    return strncasecmp(p, word, n) == 0 && !isalnum((unsigned char)p[n]) && p[n] != '_';
}

/* Only what surely has no rows and no part in transactions is batched. */
static enum how how_to_run(const char *sql)
{
    static const char *const batched[] = {"INSERT", "REPLACE", "UPDATE", "DELETE",
                                          "CREATE", "DROP",    "ALTER"};
    const char *p = skip_blanks(sql);
    for (size_t i = 0; i < sizeof batched / sizeof batched[0]; i++)
        if (is_word(p, batched[i]))
            return HOW_BATCHED;
    if (is_word(p, "BEGIN"))
        return HOW_BEGIN;
    if (is_word(p, "COMMIT") || is_word(p, "END"))
        return HOW_END;
    if (is_word(p, "ROLLBACK"))
        return HOW_ROLLBACK;
    if (is_word(p, "PRAGMA") && is_word(skip_blanks(p + strlen("PRAGMA")), "foreign_keys"))
        return HOW_FOREIGN_KEYS;
    return HOW_ALONE;
}

/* --- running ------------------------------------------------------------------------------------
 */

static enum err at_line(uint64_t line, enum err e)
{
    char why[ERR_TEXT_MAX];
    (void)snprintf(why, sizeof why, "%s", err_text());
    return err_fail(e, "line %" PRIu64 ": %s", line, why);
}

static void count(struct reading *r, uint64_t statements)
{
    r->load->statements = statements;
}

static enum err flush(struct reading *r)
{
    uint64_t before = load_batch_done(r->batch);
    enum err e = load_batch_flush(r->batch);
    count(r, r->load->statements + load_batch_done(r->batch) - before);
    return e == ERR_OK ? ERR_OK : at_line(load_batch_place(r->batch), e);
}

static enum err add(struct reading *r, const char *sql, size_t n, uint64_t line)
{
    uint64_t before = load_batch_done(r->batch);
    enum err e = load_batch_add_sql(r->batch, sql, n, line);
    count(r, r->load->statements + load_batch_done(r->batch) - before);
    return e == ERR_OK ? ERR_OK : at_line(load_batch_place(r->batch), e);
}

static enum err run_alone(struct reading *r, const char *sql, uint64_t line)
{
    enum err e = load_run(r->load, sql, "");
    if (e != ERR_OK)
        return at_line(line, e);
    r->load->statements++;
    r->has_begun = r->has_begun && !lectern_get_autocommit(r->load->db);
    return ERR_OK;
}

static enum err begin(struct reading *r, const char *sql, uint64_t line)
{
    if (r->begun.offset != r->start.offset)
        r->tries = 0;
    r->has_begun = true;
    r->begun = r->start;
    r->begun_statements = r->load->statements;
    return run_alone(r, sql, line);
}

static enum err run(struct reading *r, const char *sql, size_t n, uint64_t line)
{
    bool atomic = r->load->atomic; /* one transaction around all is open */
    enum how how = how_to_run(sql);
    if (how == HOW_BATCHED)
        return add(r, sql, n, line);
    TRY(flush(r));
    switch (how) {
    case HOW_BATCHED:
    case HOW_ALONE:
        return run_alone(r, sql, line);
    case HOW_BEGIN:
        return atomic ? ERR_OK : begin(r, sql, line);
    case HOW_END:
        return atomic ? ERR_OK : run_alone(r, sql, line);
    case HOW_ROLLBACK:
        if (atomic)
            return err_fail(ERR_FORBIDDEN,
                            "line %" PRIu64 ": a ROLLBACK, which with --atomic would take back all",
                            line);
        return run_alone(r, sql, line);
    case HOW_FOREIGN_KEYS:
        return ERR_OK; /* off while loading, checked at the end */
    }
    return ERR_OK;
}

/* --- reading ------------------------------------------------------------------------------------
 */

static void advance(struct reading *r, const char *p, size_t n)
{
    r->at.offset += n;
    for (const char *nl = p; (nl = memchr(nl, '\n', n - (size_t)(nl - p))) != NULL; nl++)
        r->at.line++;
}

/* Not the line of the blank lines and comments above it. */
static uint64_t line_of_first_word(const struct reading *r, const char *text)
{
    const char *word = skip_blanks(text);
    uint64_t line = r->start.line;
    for (const char *p = text; p < word; p++)
        line += *p == '\n';
    return line;
}

static enum err run_collected(struct reading *r)
{
    size_t n = r->text.len;
    buf_put_u8(&r->text, 0);
    if (buf_status(&r->text) != ERR_OK)
        return err_fail(buf_status(&r->text), "line %" PRIu64 ": a statement of more than %llu MiB",
                        r->start.line, STATEMENT_MAX >> 20);
    const char *sql = (const char *)r->text.data;
    uint64_t line = line_of_first_word(r, sql);
    enum err e = ERR_OK;
    if (strlen(sql) != n)
        e = err_fail(ERR_FORMAT, "line %" PRIu64 ": a statement with a zero byte in it", line);
    else if (*skip_blanks(sql) == '.')
        e = err_fail(ERR_FORMAT,
                     "line %" PRIu64 ": a dot command: `lectern load` takes SQL; `.read` of the "
                     "shell takes both",
                     line);
    else if (*skip_blanks(sql) != 0)
        e = run(r, sql, n, line);
    buf_reset(&r->text);
    return e;
}

/* Takes N bytes, runs what is complete. */
static enum err take(struct reading *r, const char *p, size_t n)
{
    while (n > 0) {
        bool complete;
        if (r->text.len == 0)
            r->start = r->at;
        size_t used = sql_split_feed(&r->split, p, n, &complete);
        buf_put(&r->text, p, used);
        advance(r, p, used);
        p += used;
        n -= used;
        if (complete)
            TRY(run_collected(r));
        else if (sql_split_blank(&r->split))
            buf_reset(&r->text); /* comments between statements */
        if (buf_status(&r->text) != ERR_OK)
            return run_collected(r); /* says so */
    }
    return ERR_OK;
}

static enum err go_to(struct reading *r, struct place to)
{
    if (fseeko(r->in, (off_t)to.offset, SEEK_SET) != 0)
        return err_fail(ERR_IO, "cannot read %s again: %s", r->load->file, strerror(errno));
    r->at = to;
    sql_split_init(&r->split);
    buf_reset(&r->text);
    return ERR_OK;
}

/* To the lost transaction's BEGIN, when that is possible. */
static enum err begin_again(struct reading *r, enum err lost)
{
    if (lost != ERR_TXN_LOST || !r->rewinds || !r->has_begun || ++r->tries == LOAD_TXN_TRIES)
        return lost;
    load_batch_free(r->batch);
    r->batch = load_batch_new(r->load);
    if (r->batch == NULL)
        return err_fail(ERR_NOMEM, "out of memory");
    r->load->statements = r->begun_statements;
    return go_to(r, r->begun);
}

static enum err read_some(struct reading *r, bool *ended)
{
    static const char mark[] = "\xef\xbb\xbf"; /* the byte order mark that some editors put first */
    char piece[READ_BYTES];
    TRY(load_may_go_on());
    bool first = r->at.offset == 0;
    size_t n = fread(piece, 1, sizeof piece, r->in);
    *ended = n < sizeof piece;
    if (*ended && ferror(r->in)) {
        TRY(load_may_go_on()); /* Ctrl-C ends a read */
        return err_fail(ERR_IO, "cannot read %s: %s", r->load->file, strerror(errno));
    }
    size_t skip = first && n >= 3 && memcmp(piece, mark, 3) == 0 ? 3 : 0;
    r->at.offset += skip;
    TRY(take(r, piece + skip, n - skip));
    r->load->bytes = r->at.offset;
    progress_show(&r->load->progress, r->at.offset, r->load->total, NULL, r->at.offset,
                  r->load->file);
    if (!*ended)
        return ERR_OK;
    if (!sql_split_blank(&r->split) && r->text.len > 0)
        TRY(run_collected(r)); /* the last statement needs no semicolon */
    return flush(r);
}

/* The file ends, but its transaction does not. */
static enum err check_end(struct reading *r)
{
    if (lectern_get_autocommit(r->load->db))
        return ERR_OK;
    return err_fail(ERR_FORMAT, "the file ends inside of a transaction, which was rolled back");
}

static enum err read_once(struct reading *r)
{
    bool ended = false;
    while (!ended)
        TRY(read_some(r, &ended));
    return ERR_OK;
}

static enum err read_all(struct reading *r)
{
    bool ended = false;
    while (!ended) {
        enum err e = read_some(r, &ended);
        if (e != ERR_OK) {
            TRY(begin_again(r, e));
            ended = false;
        }
    }
    return check_end(r);
}

/* --atomic: the file's own BEGIN and COMMIT are left out. */
static enum err read_as_one(struct reading *r)
{
    for (r->tries = 0;;) {
        enum err e = load_begin(r->load);
        r->has_begun = true;
        if (e == ERR_OK)
            e = load_end(r->load, read_once(r));
        if (e == ERR_OK)
            return ERR_OK;
        TRY(begin_again(r, e));
    }
}

enum err load_sql(struct load *l, FILE *in)
{
    struct reading r = {.load = l, .in = in, .at.line = 1, .begun.line = 1};
    sql_split_init(&r.split);
    buf_init(&r.text, STATEMENT_MAX);
    off_t end = fseeko(in, 0, SEEK_END) == 0 ? ftello(in) : -1;
    r.rewinds = end >= 0 && fseeko(in, 0, SEEK_SET) == 0;
    clearerr(in);
    l->began = true;
    l->total = r.rewinds ? (uint64_t)end : 0;
    r.batch = load_batch_new(l);
    enum err e = r.batch == NULL ? err_fail(ERR_NOMEM, "out of memory") : ERR_OK;
    if (e == ERR_OK)
        e = l->atomic ? read_as_one(&r) : read_all(&r);
    if (e != ERR_OK && r.has_begun)
        l->statements = r.begun_statements; /* the rest was rolled back */
    load_batch_free(r.batch);
    buf_fini(&r.text);
    return e;
}
