/* Room: node/http.   Thread: loop.   Owns: the texts and outcomes of the request under way.
 * Invariants: steps are told in their order; after on_over nothing is told; hrana_run_go is not
 *   entered twice: what is answered at once is seen by its loop.
 *
 * A batch is run in one of three ways:
 *
 *   HRANA_AS_ONE        an atomic batch that writes: one BATCH, one round trip, nobody else waits.
 *                       It failed, and nothing was done: step by step, for each step's own error.
 *   HRANA_IN_SNAPSHOT   an atomic batch that looks as if it only read: a read transaction here. A
 *                       step that writes after all: void, and HRANA_AS_ONE. Who cannot take back
 *                       what was told has only those run so that cannot turn out to write.
 *   HRANA_STEP_BY_STEP  all others.
 *
 * Not here: conditions and shapes (hrana_batch.c), requests to the session (hrana_ask.c). */
#include "node/http/hrana_state.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "client/sql_split.h"

#include <stdlib.h>
#include <string.h>

/* --- telling --- */

static void tell_step(struct hrana_stream *s, uint32_t step, const struct wire_done *d,
                      bool read_only) ON_LOOP
{
    s->told = true;
    s->outcomes[step] = HRANA_SUCCEEDED;
    if (s->events.on_step != NULL)
        s->events.on_step(s->events.ctx, step, d, read_only);
}

static void tell_error(struct hrana_stream *s, uint32_t step, struct hrana_error *e) ON_LOOP
{
    s->told = true;
    s->outcomes[step] = HRANA_FAILED;
    if (s->events.on_step_error != NULL)
        s->events.on_step_error(s->events.ctx, step, e);
    else
        hrana_error_free(e);
}

/* Nothing was told, or it can be taken back. */
static bool may_restart(const struct hrana_stream *s) ON_LOOP
{
    return !s->told || s->events.on_restart != NULL;
}

static void restart(struct hrana_stream *s, enum hrana_mode mode) ON_LOOP
{
    if (s->told)
        s->events.on_restart(s->events.ctx);
    s->told = false;
    s->mode = mode;
    s->step = 0;
    memset(s->outcomes, 0, s->n_steps * sizeof *s->outcomes); /* HRANA_NOT_RUN */
}

/* --- frames of an answer --- */

static bool is_read(const struct hrana_text *t) ON_LOOP
{
    enum sql_kind kind = sql_classify(t->p, t->n);
    return kind != SQL_WRITE && kind != SQL_ALONE;
}

/* Which of the answered statements want their rows told. */
static bool wants_rows(const struct hrana_stream *s) ON_LOOP
{
    if (s->q->type == HRANA_SEQUENCE)
        return false;
    return s->steps[s->step].stmt.want_rows;
}

static void tell_rows(struct hrana_stream *s, struct wire_frame *f) ON_LOOP
{
    size_t n = hrana_rows_bytes(f);
    if (wants_rows(s) && !s->cancelled && s->events.on_rows != NULL) {
        s->told = true;
        s->events.on_rows(s->events.ctx, s->step, f);
    } else {
        hrana_stream_took(s, n);
    }
}

/* BEGIN of a batch that runs as one is told when something of the batch is known to be done. */
static void tell_begin(struct hrana_stream *s) ON_LOOP
{
    if (s->mode == HRANA_AS_ONE && s->outcomes[0] == HRANA_NOT_RUN)
        tell_step(s, 0, &(struct wire_done){0}, true);
}

void hrana_run_frame(struct hrana_stream *s, struct wire_frame *f)
{
    struct wire_step w;
    tell_begin(s);
    switch ((int)f->type) {
    case WIRE_COLUMNS:
        if (wants_rows(s) && s->events.on_columns != NULL) {
            s->told = true;
            s->events.on_columns(s->events.ctx, s->step, f);
        }
        return;
    case WIRE_ROWS:
        tell_rows(s, f);
        return;
    case WIRE_STEP: /* of a BATCH: what is between BEGIN and COMMIT */
        if (wire_get_step(f, &w) == ERR_OK && s->mode == HRANA_AS_ONE &&
            s->step < s->shape.first + s->shape.n) {
            struct wire_done d = {.changes = w.changes, .last_insert_rowid = w.last_insert_rowid};
            tell_step(s, s->step, &d, is_read(&s->texts[s->step]));
            s->step++;
        }
        return;
    case WIRE_DESCRIPTION:
        if (s->events.on_description != NULL)
            s->events.on_description(s->events.ctx, f);
        return;
    default: /* the leader's, if it is broken: the end of the answer says what became of it */
        return;
    }
}

/* --- an atomic batch as one --- */

/* What is wrong with its statements, or too much, hrana_ask_batch finds. */
static bool may_run_as_one(const struct hrana_stream *s) ON_LOOP
{
    return s->shape.n > 0 && !s->in_transaction && !s->lost;
}

static void as_one_done(struct hrana_stream *s) ON_LOOP
{
    uint32_t commit = s->shape.first + s->shape.n;
    if (s->step != commit) { /* a leader that says less than it was asked */
        hrana_over(s, hrana_error_of(ERR_ROWS_LOST, "the answer to a batch is not complete"));
        return;
    }
    tell_begin(s);
    tell_step(s, commit, &(struct wire_done){0}, true);
    hrana_over(s, NULL);
}

/* Nothing of it was done and its own statements are the reason: their errors are told best when
 * they are run one by one. */
static bool failed_by_itself(enum err code)
{
    return code == ERR_SQL || code == ERR_MISUSE || code == ERR_FORBIDDEN || code == ERR_TOO_BIG;
}

static void as_one_answered(struct hrana_stream *s, struct hrana_error *error) ON_LOOP
{
    if (error == NULL) {
        as_one_done(s);
    } else if (failed_by_itself(s->ask.code) && may_restart(s)) {
        hrana_error_free(error);
        restart(s, HRANA_STEP_BY_STEP);
    } else if (may_restart(s)) { /* as if BEGIN had failed: nothing behind it was run */
        restart(s, HRANA_STEP_BY_STEP);
        tell_error(s, 0, error);
        hrana_over(s, NULL);
    } else {
        hrana_over(s, error);
    }
}

static void begin_as_one(struct hrana_stream *s) ON_LOOP
{
    s->step = s->shape.first;
    struct hrana_error *error = hrana_ask_batch(s, s->shape.first, s->shape.n);
    if (error != NULL) {
        hrana_error_free(error);
        restart(s, HRANA_STEP_BY_STEP);
    }
}

/* --- step by step --- */

/* After a lost transaction nothing runs by itself until the program has ended what it began, or
 * begins anew: no program does that within a transaction. */
static struct hrana_error *refuse_lost(struct hrana_stream *s, const struct hrana_text *t,
                                       bool *done) ON_LOOP
{
    enum sql_step step = sql_step_of(t->p, t->n);
    *done = false;
    if (!s->lost)
        return NULL;
    if (step != SQL_STEP_NONE)
        s->lost = false;
    if (step == SQL_STEP_BEGIN || step == SQL_STEP_WRITE || step == SQL_STEP_READONLY)
        return NULL;
    *done = step == SQL_STEP_ROLLBACK; /* what it would do is done already */
    return *done ? NULL
                 : hrana_error_new(s->time_up ? "TRANSACTION_TIMEOUT" : "TRANSACTION_CLOSED",
                                   "the transaction was rolled back: begin it again");
}

/* TEXT, or what it is taken as. */
static const struct hrana_text *text_to_ask(const struct hrana_stream *s,
                                            const struct hrana_text *text) ON_LOOP
{
    static const struct hrana_text readonly = {"BEGIN READONLY", 14};
    static const struct hrana_text immediate = {"BEGIN IMMEDIATE", 15};
    if (s->mode == HRANA_IN_SNAPSHOT && s->step == 0)
        return &readonly;
    bool begins = s->wish.begin_immediate && sql_step_of(text->p, text->n) == SQL_STEP_BEGIN;
    return begins ? &immediate : text;
}

/* Asks for the step, or tells its error. */
static void begin_step(struct hrana_stream *s) ON_LOOP
{
    const struct hrana_stmt *stmt = &s->steps[s->step].stmt;
    const struct hrana_text *text = &s->texts[s->step];
    bool done = false;
    struct hrana_error *error = hrana_text_of(s, stmt, &s->texts[s->step]);
    if (error == NULL)
        error = refuse_lost(s, text, &done);
    if (done) {
        s->ask.began_ns = clock_mono_ns(); /* nothing has to be asked */
        tell_step(s, s->step++, &(struct wire_done){0}, true);
        return;
    }
    if (error == NULL)
        error = hrana_ask_statement(s, WIRE_QUERY, text_to_ask(s, text), stmt);
    if (error != NULL)
        tell_error(s, s->step++, error);
}

/* A read transaction that turns out to write is none. */
static bool writes_after_all(const struct hrana_stream *s) ON_LOOP
{
    return s->mode == HRANA_IN_SNAPSHOT && !s->shape.read_only && s->ask.code == ERR_FORBIDDEN &&
           (s->ask.sqlite_code & 0xff) == 8; /* SQLITE_READONLY */
}

static void step_answered(struct hrana_stream *s, struct hrana_error *error) ON_LOOP
{
    if (error == NULL) {
        struct wire_done d = s->ask.done;
        tell_step(s, s->step, &d, s->ask.read_only);
        s->step++;
    } else if (writes_after_all(s) && may_restart(s)) {
        hrana_error_free(error);
        static const struct hrana_text rollback = {"ROLLBACK", 8};
        static const struct hrana_stmt nothing;
        restart(s, HRANA_STEP_BY_STEP);
        s->leaving = true;
        hrana_error_free(hrana_ask_statement(s, WIRE_QUERY, &rollback, &nothing));
    } else {
        tell_error(s, s->step, error);
        s->step++;
    }
}

/* Steps whose condition does not hold are passed over. */
static bool step_is_due(struct hrana_stream *s) ON_LOOP
{
    while (s->step < s->n_steps) {
        const struct hrana_cond *c = s->steps[s->step].condition;
        if (c == NULL || hrana_condition_holds(c, s->outcomes, !s->in_transaction))
            return true;
        s->step++;
    }
    return false;
}

/* --- a text of several statements --- */

static void go_on_sequence(struct hrana_stream *s) ON_LOOP
{
    static const struct hrana_stmt nothing;
    struct hrana_error *error = hrana_text_of(s, &s->q->stmt, &s->texts[0]);
    if (error != NULL) {
        hrana_over(s, error);
        return;
    }
    const char *p = s->texts[0].p + s->sequence_at;
    size_t left = s->texts[0].n - s->sequence_at;
    bool done;
    if (sql_classify(p, left) == SQL_EMPTY) {
        hrana_over(s, NULL);
        return;
    }
    size_t n = sql_split_first(p, left);
    struct hrana_text one = {p, n == 0 ? left : n};
    s->sequence_at += one.n;
    error = refuse_lost(s, &one, &done);
    if (error == NULL && !done)
        error = hrana_ask_statement(s, WIRE_QUERY, text_to_ask(s, &one), &nothing);
    if (error != NULL)
        hrana_over(s, error);
}

/* --- the request --- */

static void go_on_batch(struct hrana_stream *s) ON_LOOP
{
    if (s->mode == HRANA_AS_ONE)
        begin_as_one(s);
    else if (step_is_due(s))
        begin_step(s);
    else
        hrana_over(s, NULL);
}

static void describe(struct hrana_stream *s) ON_LOOP
{
    struct hrana_text text;
    struct hrana_error *error = hrana_text_of(s, &s->q->stmt, &text);
    static const struct hrana_stmt nothing;
    if (error == NULL)
        error = hrana_ask_statement(s, WIRE_DESCRIBE, &text, &nothing);
    if (error != NULL)
        hrana_over(s, error);
}

/* A request that no session is needed for is over at once. */
static void go_on(struct hrana_stream *s) ON_LOOP
{
    if (s->cancelled) {
        hrana_over(s, hrana_error_new("SQLITE_INTERRUPT", "interrupted"));
        return;
    }
    switch ((int)s->q->type) {
    case HRANA_EXECUTE:
    case HRANA_BATCH:
        go_on_batch(s);
        return;
    case HRANA_SEQUENCE:
        go_on_sequence(s);
        return;
    case HRANA_DESCRIBE:
        describe(s);
        return;
    case HRANA_STORE_SQL:
        hrana_over(s, hrana_store(s, s->q->sql_id, &s->q->stmt.sql));
        return;
    case HRANA_CLOSE_SQL:
        hrana_forget(s, s->q->sql_id);
        hrana_over(s, NULL);
        return;
    default: /* GET_AUTOCOMMIT: the caller knows */
        hrana_over(s, NULL);
        return;
    }
}

static void take_answer(struct hrana_stream *s) ON_LOOP
{
    struct hrana_error *error = s->ask.error;
    s->ask.error = NULL;
    s->ask.ended = false;
    if (s->leaving) { /* the snapshot; whatever it said */
        s->leaving = false;
        hrana_error_free(error);
        s->mode = may_run_as_one(s) ? HRANA_AS_ONE : HRANA_STEP_BY_STEP;
    } else if (s->q->type == HRANA_SEQUENCE) {
        if (error != NULL) /* else its next statement's turn comes */
            hrana_over(s, error);
    } else if (s->q->type == HRANA_DESCRIBE) {
        hrana_over(s, error);
    } else if (s->mode == HRANA_AS_ONE) {
        as_one_answered(s, error);
    } else {
        step_answered(s, error);
    }
}

static void go_on_until(struct hrana_stream *s, uint64_t end_ns) ON_LOOP
{
    while (s->q != NULL && !s->ask.under_way && !s->closing && !s->paused) {
        if (s->ask.ended) {
            take_answer(s);
        } else if (uv_hrtime() < end_ns) {
            go_on(s);
        } else {
            list_push_back(&s->channel.node->hrana_rests, &s->rests);
            return;
        }
    }
}

void hrana_run_go(struct hrana_stream *s)
{
    struct node *n = s->channel.node;
    if (s->busy)
        return; /* the loop below goes on with it */
    s->busy = true;
    list_remove(&s->rests);
    uint64_t begun = uv_hrtime();
    go_on_until(s, begun + HRANA_TURN_NS - n->hrana_spent_ns);
    uint64_t spent = n->hrana_spent_ns + (uv_hrtime() - begun);
    n->hrana_spent_ns = spent < HRANA_TURN_NS ? spent : HRANA_TURN_NS;
    s->busy = false;
    if (s->closing)
        hrana_stream_close(s);
}

/* All texts are there, or the batch is run step by step: then those that are not are errors. A
 * stored text may stand in each step, and all that stand there are looked at before the first one
 * is run: together they are to be no longer than those that a body has room for. */
static bool find_texts(struct hrana_stream *s) ON_LOOP
{
    bool all = true;
    uint64_t bytes = 0, max = s->channel.node->config->http_body_bytes;
    for (uint32_t i = 0; i < s->n_steps && all; i++) {
        struct hrana_error *error = hrana_text_of(s, &s->steps[i].stmt, &s->texts[i]);
        bytes += s->texts[i].n;
        all = error == NULL && bytes <= max;
        hrana_error_free(error);
    }
    return all;
}

/* A batch that is to fail may leave its transaction open: that one has to be what it asked for. */
static bool may_read_here(const struct hrana_stream *s) ON_LOOP
{
    const struct hrana_shape *p = &s->shape;
    return p->read_only || p->surely || (p->reads && s->events.on_restart != NULL);
}

static enum hrana_mode mode_of(struct hrana_stream *s) ON_LOOP
{
    if (s->q->type != HRANA_BATCH || s->in_transaction || s->lost || !find_texts(s) ||
        !hrana_shape_of(&s->q->batch, s->texts, &s->shape))
        return HRANA_STEP_BY_STEP;
    if (may_read_here(s))
        return HRANA_IN_SNAPSHOT;
    return may_run_as_one(s) ? HRANA_AS_ONE : HRANA_STEP_BY_STEP;
}

void hrana_run_begin(struct hrana_stream *s)
{
    const struct hrana_request *q = s->q;
    s->step = 0;
    s->told = false;
    s->sequence_at = 0;
    s->one = (struct hrana_step){.stmt = q->stmt};
    s->steps = q->type == HRANA_BATCH ? q->batch.steps : &s->one;
    s->n_steps = q->type == HRANA_BATCH ? q->batch.n_steps : 1;
    s->texts = mem_zalloc((s->n_steps + 1) * sizeof *s->texts);
    s->outcomes = mem_zalloc((s->n_steps + 1) * sizeof *s->outcomes);
    s->mode = mode_of(s);
    hrana_run_go(s);
}
