/* Room: node/http.   Thread: loop.
 * Owns: the stream in whose read transaction all is read; the schema; a piece of text.
 * Invariants: memory holds the schema and a window of rows, never a table; a text that ends with
 *   COMMIT is whole: one that cannot be completed ends with the connection.
 *
 *     BEGIN READONLY -> TABLES, OTHERS: the schema -> each table: CREATE, then its rows
 *                                                  -> indexes, triggers, views -> COMMIT
 *
 * Not here: what is written, and how (client/sql_dump.h, which the shell's .dump uses as well). */
#include "node/http/dump.h"

#include "base/check.h"
#include "base/mem.h"
#include "client/sql_dump.h"
#include "node/http/hrana_error.h"
#include "node/http/hrana_stream.h"
#include "node/http/hrana_wish.h"
#include "node/node.h"

#include <stdlib.h>

enum phase { BEGIN, TABLES, OTHERS, ROWS };

struct dump {
    struct exchange *x;
    struct hrana_wish wish;
    struct hrana_stream *stream;
    struct hrana_request request; /* the one that runs */
    enum phase phase;
    struct buf tables, others; /* cells of the schema: str */
    struct rd next;            /* in `tables` */
    struct sql_dump text;      /* into `out` */
    uint32_t n_columns;
    struct hrana_error *error;
    bool running, going;
    size_t owed; /* bytes of rows that were written and the client has not taken */
    struct buf out;
};

static const char begin_sql[] = "BEGIN READONLY";

static const char tables_sql[] = SQL_DUMP_TABLES("");
static const char others_sql[] = SQL_DUMP_OTHERS("");

static struct sql_text next_cell(struct rd *r)
{
    struct sql_text cell;
    cell.p = rd_str(r, &cell.n);
    return cell;
}

/* A client may take a dump for as long as it likes: what reads have to share is left to them. */
static unsigned dumps_max(const struct node *n) ON_LOOP
{
    unsigned share = (unsigned)n->config->read_transactions / 4;
    return share == 0 ? 1 : share;
}

/* --- what is read --- */

static void on_columns(void *ctx, uint32_t step, struct wire_frame *f)
{
    struct dump *d = ctx;
    struct rd columns;
    (void)step;
    thread_expect_loop();
    if (wire_get_columns(f, &d->n_columns, &columns) != ERR_OK)
        d->n_columns = 0; /* the rows will not fit it */
}

static enum err take_cells(struct dump *d, uint32_t rows, struct rd *values) ON_LOOP
{
    struct buf *to = d->phase == TABLES ? &d->tables : &d->others;
    for (uint64_t i = 0; i < (uint64_t)rows * d->n_columns; i++) {
        struct wire_value v;
        TRY(wire_get_value(values, &v));
        bool text = v.type == WIRE_TEXT;
        buf_put_str(to, text ? v.text.bytes : "", text ? v.text.len : 0);
    }
    return buf_status(to);
}

static enum err take_rows(struct dump *d, struct wire_frame *f) ON_LOOP
{
    uint32_t rows;
    struct rd values;
    TRY(wire_get_rows(f, d->n_columns, &rows, &values));
    if (d->phase != ROWS)
        return take_cells(d, rows, &values);
    for (uint32_t i = 0; i < rows; i++) {
        for (uint32_t column = 0; column < d->n_columns; column++) {
            struct wire_value v;
            TRY(wire_get_value(&values, &v));
            sql_dump_value(&d->text, column, &v);
        }
        sql_dump_end_row(&d->text);
    }
    TRY(buf_status(&d->out));
    exchange_put(d->x, &d->out);
    return ERR_OK;
}

static void on_rows(void *ctx, uint32_t step, struct wire_frame *f)
{
    struct dump *d = ctx;
    size_t n = hrana_rows_bytes(f);
    (void)step;
    thread_expect_loop();
    enum err e = d->error == NULL ? take_rows(d, f) : ERR_OK;
    if (e != ERR_OK) {
        d->error = hrana_error_of(e, err_text());
        hrana_stream_cancel(d->stream);
    }
    if (d->phase == ROWS && d->error == NULL && exchange_is_full(d->x))
        d->owed += n;
    else
        hrana_stream_took(d->stream, n);
}

static void on_step_error(void *ctx, uint32_t step, struct hrana_error *error)
{
    struct dump *d = ctx;
    (void)step;
    thread_expect_loop();
    if (d->error == NULL)
        d->error = error;
    else
        hrana_error_free(error);
}

static void go(struct dump *d) ON_LOOP;

static void on_query_over(void *ctx, struct hrana_error *error)
{
    struct dump *d = ctx;
    thread_expect_loop();
    if (error != NULL)
        on_step_error(d, 0, error);
    d->running = false;
    go(d);
}

static void query(struct dump *d, const char *sql, size_t n) ON_LOOP
{
    const struct hrana_events events = {.ctx = d,
                                        .on_columns = on_columns,
                                        .on_rows = on_rows,
                                        .on_step_error = on_step_error,
                                        .on_over = on_query_over};
    d->request = (struct hrana_request){.type = HRANA_EXECUTE,
                                        .stmt = {.sql = {.p = sql, .n = n}, .want_rows = true}};
    d->n_columns = 0;
    d->running = true;
    hrana_stream_run(d->stream, &d->request, &d->wish, &events);
}

/* --- from one to the next --- */

static void begin_text(struct dump *d) ON_LOOP
{
    d->next = rd_of(d->tables.data, d->tables.len);
    exchange_begin(d->x, 200, "text/plain; charset=utf-8");
    sql_dump_begin(&d->text, &d->out);
}

static void end_text(struct dump *d) ON_LOOP
{
    struct rd others = rd_of(d->others.data, d->others.len);
    while (rd_left(&others) > 0)
        sql_dump_other(&d->text, next_cell(&others));
    sql_dump_end(&d->text, true);
    exchange_put(d->x, &d->out);
    exchange_finish(d->x);
}

/* The next table; false: there is none left, and all was said. D is gone then. */
static bool next_table(struct dump *d) ON_LOOP
{
    if (rd_left(&d->next) == 0) {
        end_text(d);
        return false;
    }
    struct sql_text name = next_cell(&d->next), sql = next_cell(&d->next),
                    select = next_cell(&d->next);
    if (sql_dump_table(&d->text, name, sql) && select.n > 0)
        query(d, select.p, select.n);
    return true;
}

/* D is gone after. */
static void fail(struct dump *d) ON_LOOP
{
    if (d->x->answered) {
        exchange_break(d->x);
        return;
    }
    struct hrana_error *e = d->error;
    d->error = NULL;
    exchange_fail(d->x, hrana_error_status(e), e->code, e->message);
    hrana_error_free(e);
}

/* False: D is gone. */
static bool go_on(struct dump *d) ON_LOOP
{
    if (d->error != NULL) {
        fail(d);
        return false;
    }
    switch (d->phase) {
    case BEGIN:
        d->phase = TABLES;
        query(d, tables_sql, sizeof tables_sql - 1);
        return true;
    case TABLES:
        d->phase = OTHERS;
        query(d, others_sql, sizeof others_sql - 1);
        return true;
    case OTHERS:
        d->phase = ROWS;
        begin_text(d);
        return true;
    case ROWS:
        return next_table(d);
    }
    UNREACHABLE("all phases are above");
}

static void go(struct dump *d)
{
    if (d->going)
        return; /* an answer came at once: the loop below sees it */
    d->going = true;
    while (!d->running)
        if (!go_on(d))
            return;
    d->going = false;
}

static void on_end(struct exchange *x)
{
    static const struct hrana_memory fresh = {.foreign_keys = true};
    struct hrana_wish wish;
    thread_expect_loop();
    if (!exchange_knows_params(x, "read, timeout"))
        return;
    if (hrana_wish_of(x, &wish) != ERR_OK) {
        exchange_fail(x, 400, HRANA_PROTOCOL_ERROR, err_text());
        return;
    }
    if (x->verb == HTTP_VERB_HEAD) {
        exchange_answer(x, 200, "text/plain; charset=utf-8", NULL);
        return;
    }
    if (x->node->n_dumps >= dumps_max(x->node)) {
        exchange_fail(x, 503, "BUSY",
                      "as many dumps are under way as this node makes at once, a quarter of "
                      "read-transactions: try again later");
        return;
    }
    x->node->n_dumps++;
    struct dump *d = MEM_NEW(struct dump);
    d->x = x;
    d->wish = wish;
    if (d->wish.timeout_ms == 0) /* of each table: how long that takes is up to the client */
        d->wish.timeout_ms = HRANA_WISH_MS_MAX;
    d->stream = hrana_stream_open(x->node, &fresh);
    hrana_stream_take_time(d->stream);
    hrana_stream_follow_client(d->stream);
    buf_init(&d->tables, SIZE_MAX);
    buf_init(&d->others, SIZE_MAX);
    buf_init(&d->out, SIZE_MAX);
    x->state = d;
    d->going = true;
    query(d, begin_sql, sizeof begin_sql - 1);
    d->going = false;
    if (!d->running)
        go(d);
}

static void on_drain(struct exchange *x)
{
    struct dump *d = x->state;
    thread_expect_loop();
    if (d == NULL)
        return;
    size_t n = d->owed;
    d->owed = 0;
    hrana_stream_took(d->stream, n);
}

static void on_over(struct exchange *x)
{
    struct dump *d = x->state;
    thread_expect_loop();
    if (d == NULL)
        return;
    x->node->n_dumps--;
    hrana_stream_close(d->stream);
    hrana_error_free(d->error);
    buf_fini(&d->tables);
    buf_fini(&d->others);
    buf_fini(&d->out);
    free(d);
}

const struct handler dump_handler = {
    .on_end = on_end, .on_drain = on_drain, .on_over = on_over, .gives_data = true};
