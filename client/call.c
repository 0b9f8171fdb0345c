/* Room: client.   Thread: the loop's.   Owns: a call on its way: its turn, its node, its deadline.
 *
 * Invariants: exactly one on_end for each call_start, and never from the caller's own stack; a call
 * that may have been done is ended by its outcome or by ERR_UNKNOWN; every state has its timer, so
 * no call outlives its deadline by more than the grace.
 *
 * Not here: the bytes (call_send.c), what an answer means (call_answer.c), order and transaction of
 * the session (stream.c). */
#include "client/stream.h"

#include "base/check.h"
#include "base/sizes.h"
#include "client/call_state.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a QUERY has besides its statements, and a statement besides its text and parameters. */
#define FRAME_OVERHEAD     256u
#define STATEMENT_OVERHEAD 16u
#define STATEMENTS_FIRST   4u

static void on_timer(struct loop_timer *t);

/* --- making a call ---------------------------------------------------------------------------- */

enum err call_new(struct stream *s, enum wire_type type, enum call_kind kind,
                  const struct call_events *events, struct call **out)
{
    struct call *c = *out = calloc(1, sizeof *c);
    if (c == NULL)
        return err_fail(ERR_NOMEM, "out of memory for a request");
    c->stream = s;
    c->type = type;
    c->kind = kind;
    c->events = *events;
    c->level = WIRE_SESSION;
    c->timer.fire = on_timer;
    list_init(&c->in_stream);
    list_init(&c->in_member);
    buf_init(&c->bytes, WIRE_FRAME_MAX);
    buf_init(&c->said, KIB(64));
    s->n_calls++;
    return ERR_OK;
}

void call_free(struct call *c)
{
    if (c == NULL)
        return;
    CHECK(c->state == CALL_NEW || c->state == CALL_OVER);
    call_took(c, UINT32_MAX); /* what was handed on and is now of no use */
    c->stream->n_calls--;
    buf_fini(&c->bytes);
    buf_fini(&c->said);
    free(c->statements);
    free(c->change);
    free(c);
}

static enum err grow_statements(struct call *c)
{
    if (c->n_statements < c->statements_cap)
        return ERR_OK;
    uint32_t cap = c->statements_cap == 0 ? 1 : c->statements_cap * STATEMENTS_FIRST;
    struct call_statement *grown = realloc(c->statements, cap * sizeof *grown);
    if (grown == NULL)
        return err_fail(ERR_NOMEM, "out of memory for a statement");
    c->statements = grown;
    c->statements_cap = cap;
    return ERR_OK;
}

enum err call_add_statement(struct call *c, uint32_t keep, const char *sql, size_t sql_len,
                            const void *params, size_t params_len, uint32_t n_params)
{
    CHECK(c->state == CALL_NEW);
    if (sql_len > SQL_TEXT_MAX)
        return err_fail(ERR_TOO_BIG, "a statement of %zu bytes; the limit is %llu", sql_len,
                        SQL_TEXT_MAX);
    if (n_params > SQL_PARAMS_MAX)
        return err_fail(ERR_TOO_BIG, "%u parameters; the limit is %u", n_params, SQL_PARAMS_MAX);
    if (c->n_statements == BATCH_STATEMENTS_MAX)
        return err_fail(ERR_TOO_BIG, "more than %u statements in one batch", BATCH_STATEMENTS_MAX);
    size_t overhead = FRAME_OVERHEAD + STATEMENT_OVERHEAD * ((size_t)c->n_statements + 1);
    if (params_len > WIRE_FRAME_MAX ||
        c->bytes.len + sql_len + params_len + overhead > WIRE_FRAME_MAX)
        return err_fail(ERR_TOO_BIG, "a request of more than %llu bytes", WIRE_FRAME_MAX);
    TRY(grow_statements(c));
    size_t begun = c->bytes.len;
    buf_put(&c->bytes, sql, sql_len);
    buf_put(&c->bytes, params, params_len);
    enum err e = buf_status(&c->bytes);
    if (e != ERR_OK) {
        c->bytes.len = begun;
        c->bytes.failed = ERR_OK;
        return err_fail(e, "out of memory for a statement of %zu bytes", sql_len + params_len);
    }
    c->statements[c->n_statements++] = (struct call_statement){.keep = keep,
                                                               .n_params = n_params,
                                                               .sql = begun,
                                                               .sql_len = sql_len,
                                                               .params = begun + sql_len,
                                                               .params_len = params_len};
    return ERR_OK;
}

enum err call_set_change(struct call *c, const struct wire_cluster *change)
{
    CHECK(c->state == CALL_NEW);
    if (c->change == NULL && (c->change = malloc(sizeof *change)) == NULL)
        return err_fail(ERR_NOMEM, "out of memory for a request");
    *c->change = *change;
    return ERR_OK;
}

void call_set_level(struct call *c, enum wire_level level, uint32_t bound_ms)
{
    c->level = level;
    c->bound_ms = bound_ms;
}

void call_set_for_write(struct call *c)
{
    c->for_write = true;
}

void call_set_savepoint(struct call *c)
{
    c->savepoint = true;
}

bool call_is_write(const struct call *c)
{
    return c->kind == CALL_WRITE || c->kind == CALL_COMMIT || c->kind == CALL_ADMIN;
}

bool call_is_of_session(const struct call *c)
{
    return c->type != WIRE_STATUS && c->type != WIRE_CLUSTER;
}

void call_took(struct call *c, uint32_t frame_bytes)
{
    uint32_t n = frame_bytes > c->given ? (uint32_t)c->given : frame_bytes;
    c->given -= n;
    if (n > 0)
        stream_credit(c->stream, c->member, c->serial, c->number_of_stream, n);
}

/* --- the end ---------------------------------------------------------------------------------- */

void call_set_timer(struct call *c, uint64_t at_ms)
{
    loop_timer_set(c->stream->cluster->loop, &c->timer, at_ms);
}

static void keep_said(struct call *c, const char *text, size_t len)
{
    if (text == (const char *)c->said.data)
        return;
    buf_reset(&c->said);
    buf_put(&c->said, text, len);
    if (buf_status(&c->said) != ERR_OK) /* no memory: the code's own text will do */
        buf_reset(&c->said);
}

static void set_end(struct call *c, const struct call_end *e)
{
    CHECK(c->state != CALL_OVER);
    keep_said(c, e->message, e->message_len);
    c->end = *e;
    c->end.message = c->said.len > 0 ? (const char *)c->said.data : err_default_text((int)e->code);
    c->end.message_len = c->said.len > 0 ? c->said.len : strlen(c->end.message);
    c->end.was_sent = c->sent;
    list_remove(&c->in_member);
    c->state = CALL_ENDING;
}

/* The next call goes on before the program hears of this one: hearing it, it may free anything. */
static void deliver(struct call *c)
{
    struct stream *s = c->stream;
    loop_timer_stop(s->cluster->loop, &c->timer);
    c->state = CALL_OVER;
    list_remove(&c->in_stream);
    stream_next(s);
    c->events.on_end(c->events.ctx, &c->end);
}

void call_finish(struct call *c, const struct call_end *e)
{
    set_end(c, e);
    call_set_timer(c, clock_mono_ms());
}

void call_finish_now(struct call *c, const struct call_end *e)
{
    set_end(c, e);
    deliver(c);
}

void call_fail(struct call *c, enum err code, const char *format, ...)
{
    char text[ERR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    call_finish(c, &(struct call_end){.code = code,
                                      .offset = -1,
                                      .sqlite_code = err_sqlite_code((int)code),
                                      .message = text,
                                      .message_len = strlen(text)});
}

/* Why the attempts so far failed, as a part of a sentence. */
static void last_reason(const struct call *c, char *out, size_t room)
{
    const struct lectern_cluster *cluster = c->stream->cluster;
    const char *text = cluster->trouble_text;
    int len = (int)strlen(text);
    if (c->trouble != ERR_OK && c->said.len > 0) {
        text = (const char *)c->said.data;
        len = c->said.len < 400 ? (int)c->said.len : 400;
    }
    (void)snprintf(out, room, "%.*s", len, len > 0 ? text : "no node answered");
}

static void fail_unknown(struct call *c)
{
    char why[ERR_TEXT_MAX];
    last_reason(c, why, sizeof why);
    call_fail(c, ERR_UNKNOWN,
              "whether this was done is not known (%.400s); look before you repeat it", why);
}

/* No attempt can have been done: the reason of the last one names it best. */
static void fail_in_time(struct call *c)
{
    char why[ERR_TEXT_MAX];
    enum err code = c->trouble;
    if (code == ERR_OK && c->state != CALL_QUEUED)
        code = c->stream->cluster->trouble;
    if (code == ERR_NOT_LEADER)
        code = ERR_NO_LEADER;
    if (code == ERR_OK && c->wanted != NULL) {
        bool accepted = c->wanted->link != NULL && link_was_accepted(c->wanted->link);
        call_fail(c, ERR_TIMEOUT, "not done within the time limit: %s %s", c->wanted->address,
                  accepted ? "accepted the connection but said nothing" : "does not answer");
        return;
    }
    if (code == ERR_OK) {
        call_fail(c, ERR_TIMEOUT, "not done within the time limit%s",
                  c->state == CALL_QUEUED ? ": earlier calls of the session took all of it" : "");
        return;
    }
    last_reason(c, why, sizeof why);
    call_fail(c, code == ERR_TIMEOUT ? ERR_CLOSED : code, "not done within the time limit: %.400s",
              why);
}

/* Not sent now, and it is to end. */
static void end_unsent(struct call *c, enum err why)
{
    if (c->doubt)
        fail_unknown(c);
    else if (why == ERR_TIMEOUT)
        fail_in_time(c);
    else
        call_fail(c, why, "interrupted");
}

/* --- on its way ------------------------------------------------------------------------------- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void wait_parked(struct call *c, uint64_t until_ms)
{
    c->state = CALL_PARKED;
    list_push_back(&c->stream->cluster->parked, &c->in_member);
    call_set_timer(c, earlier(until_ms, c->deadline_ms));
}

static void send_to(struct call *c, struct member *m, uint64_t now)
{
    enum err e = call_send(c, m, now);
    if (e == ERR_OK) {
        c->state = CALL_SENT;
        list_push_back(&m->in_flight, &c->in_member);
        cluster_await(m);
        call_set_timer(c, c->deadline_ms);
    } else if (e == ERR_BUSY || e == ERR_CLOSED || (e == ERR_NOMEM && c->doubt)) {
        if (e == ERR_BUSY) { /* if that lasts, it is what the program hears */
            c->trouble = e;
            keep_said(c, err_text(), strlen(err_text()));
        }
        wait_parked(c, now + (e == ERR_BUSY ? CALL_BUSY_MS : CALL_RETRY_MIN_MS));
    } else {
        call_fail(c, c->doubt ? ERR_UNKNOWN : e, "%s", err_text());
    }
}

static void wait_for_link(struct call *c, struct member *m, uint64_t now)
{
    uint64_t slow = m->dialled_ms + MEMBER_SLOW_MS;
    c->state = CALL_LINKING;
    c->wanted = m;
    list_push_back(&m->waiting, &c->in_member);
    call_set_timer(c, earlier(slow > now ? slow : now + MEMBER_SLOW_MS, c->deadline_ms));
}

/* What the program hears when nobody else leads in time. */
static void note_silent_leader(struct call *c, uint64_t now)
{
    char text[ERR_TEXT_MAX];
    const struct member *m = members_silent_leader(&c->stream->cluster->members, now);
    if (m == NULL || c->trouble != ERR_OK)
        return;
    (void)snprintf(text, sizeof text, "the leader, %s, is silent, and no other is known yet",
                   m->address);
    c->trouble = ERR_NO_LEADER;
    keep_said(c, text, strlen(text));
}

void call_advance(struct call *c)
{
    struct stream *s = c->stream;
    struct member *m = s->txn;
    uint64_t now = clock_mono_ms(), until = 0;
    CHECK(c->state == CALL_QUEUED || c->state == CALL_PARKED || c->state == CALL_LINKING);
    if (s->calls.next != &c->in_stream)
        return;
    list_remove(&c->in_member);
    if (now >= c->deadline_ms) {
        end_unsent(c, ERR_TIMEOUT);
        return;
    }
    if (now < c->retry_ms) {
        wait_parked(c, c->retry_ms);
        return;
    }
    if (m == NULL) {
        struct member_wish wish = {.leader = c->kind != CALL_READ || c->level == WIRE_STRONG,
                                   .read = c->kind == CALL_READ,
                                   .avoid = c->avoid};
        c->state = CALL_PARKED;
        news_in_use(s->cluster, now);
        enum err e = cluster_route(s->cluster, &wish, c->begun_ms, now, &m, &until);
        if (e != ERR_OK && !c->doubt) {
            call_fail(c, e, "%s", err_text());
            return;
        }
        if (e != ERR_OK)
            until = now + CALL_RETRY_MAX_MS;
        if (m == NULL && wish.leader)
            note_silent_leader(c, now);
    }
    if (m == NULL)
        wait_parked(c, until);
    else if (!m->ready)
        wait_for_link(c, m, now);
    else
        send_to(c, m, now);
}

void call_park(struct call *c, enum err why, const char *sentence, size_t len, bool at_once)
{
    uint64_t wait = CALL_RETRY_MAX_MS, now = clock_mono_ms();
    if (c->attempts < 8)
        wait = earlier(wait, (uint64_t)CALL_RETRY_MIN_MS << c->attempts);
    keep_said(c, sentence, len);
    c->trouble = why;
    c->avoid = c->member;
    c->restart = c->had_parts && !c->had_rows;
    c->retry_ms =
        at_once ? 0 : now + wait / 2 + rng_below(&c->stream->cluster->members.rng, wait / 2 + 1);
    c->state = CALL_PARKED;
    call_advance(c);
}

static void lost_in_transaction(struct call *c, bool whole, const char *sentence)
{
    struct stream *s = c->stream;
    if (c->kind == CALL_COMMIT && whole) {
        c->doubt = c->resolving = true;
        s->txn = NULL;
        list_remove(&s->in_txn);
        if (c->stop != ERR_OK)
            fail_unknown(c);
        else
            call_park(c, ERR_CLOSED, sentence, strlen(sentence), true);
        return;
    }
    stream_lose_transaction(s);
    call_fail(c, ERR_TXN_LOST, "the transaction was rolled back (%.400s); begin it again",
              sentence);
}

void call_lost(struct call *c, enum err why, const char *sentence)
{
    bool whole = c->member->sent_total >= c->put_end;
    CHECK(c->state == CALL_SENT || c->state == CALL_STOPPING);
    if (c->was_in_txn) {
        keep_said(c, sentence, strlen(sentence));
        c->trouble = why;
        lost_in_transaction(c, whole, sentence);
        return;
    }
    c->doubt = c->doubt || (whole && call_is_write(c));
    if (c->kind == CALL_ADMIN && c->doubt) {
        call_fail(c, ERR_UNKNOWN,
                  "whether this was done is not known (%.400s); look at the members before you "
                  "repeat it",
                  sentence);
    } else if (c->kind == CALL_READ && c->had_rows) {
        call_fail(c, c->stop != ERR_OK ? c->stop : ERR_CLOSED,
                  "the rest of the rows is lost: %.400s", sentence);
    } else if (c->stop != ERR_OK) {
        c->trouble = why;
        keep_said(c, sentence, strlen(sentence));
        end_unsent(c, c->stop);
    } else {
        call_park(c, why, sentence, strlen(sentence), true);
    }
}

/* --- deadline and cancel ---------------------------------------------------------------------- */

/* CANCEL goes out; its answer, or the grace, ends the call. */
static void stop(struct call *c, enum err why)
{
    struct link *k = c->member->link;
    c->stop = why;
    c->state = CALL_STOPPING;
    wire_put_cancel(link_out(k), (struct wire_id){c->number_of_stream, c->request});
    /* What does not even leave needs no time for its answer. */
    uint64_t grace = link_send(k) == ERR_OK ? CALL_GRACE_MS : 0;
    link_ping(k); /* is it the statement that takes so long, or the node? */
    call_set_timer(c, clock_mono_ms() + grace);
}

/* The node does not say how it ended, although the connection lives. */
static void give_up(struct call *c)
{
    struct stream *s = c->stream;
    struct member *m = c->member;
    list_remove(&c->in_member);
    cluster_suspect(m, CALL_GRACE_MS);
    cluster_awaited(m);
    stream_give_up(s);
    if (c->stop == ERR_TIMEOUT)
        member_failed(&s->cluster->members, m, ERR_OK, clock_mono_ms());
    c->trouble = ERR_CLOSED;
    buf_reset(&c->said);
    buf_printf(&c->said, "%s did not answer in time", m->address);
    if (buf_status(&c->said) != ERR_OK)
        buf_reset(&c->said);
    if (c->was_in_txn && c->kind != CALL_COMMIT)
        call_fail(c, ERR_TXN_LOST, "the transaction was given up: %s did not answer in time",
                  m->address);
    else if (call_is_write(c))
        fail_unknown(c);
    else
        call_fail(c, c->stop, "%s did not answer in time", m->address);
}

static void on_timer(struct loop_timer *t)
{
    struct call *c = LIST_ENTRY(t, struct call, timer);
    uint64_t now = clock_mono_ms();
    switch (c->state) {
    case CALL_QUEUED:
        end_unsent(c, ERR_TIMEOUT);
        return;
    case CALL_PARKED:
    case CALL_LINKING:
        call_advance(c);
        return;
    case CALL_SENT:
        if (now >= c->deadline_ms)
            stop(c, ERR_TIMEOUT);
        else
            call_set_timer(c, c->deadline_ms);
        return;
    case CALL_STOPPING:
        give_up(c);
        return;
    case CALL_ENDING:
        deliver(c);
        return;
    case CALL_NEW:
    case CALL_OVER:
        break;
    }
    UNREACHABLE("a timer of a call that does not run");
}

void call_start(struct call *c, uint64_t deadline_ms)
{
    struct stream *s = c->stream;
    CHECK(c->state == CALL_NEW);
    c->begun_ms = clock_mono_ms();
    c->deadline_ms = deadline_ms;
    c->state = CALL_QUEUED;
    list_push_back(&s->calls, &c->in_stream);
    call_set_timer(c, deadline_ms);
    if (s->txn_lost && call_is_of_session(c)) {
        s->txn_lost = false;
        if (c->kind != CALL_BEGIN || c->savepoint) {
            call_fail(c, ERR_TXN_LOST,
                      "the transaction was rolled back: its node was lost; begin it again");
            return;
        }
    }
    stream_next(s);
}

void call_set_deadline(struct call *c, uint64_t deadline_ms)
{
    c->deadline_ms = deadline_ms;
    if (c->state == CALL_QUEUED || c->state == CALL_SENT)
        call_set_timer(c, deadline_ms);
    else if (c->state == CALL_PARKED || c->state == CALL_LINKING)
        call_set_timer(c, earlier(deadline_ms, c->timer.at_ms));
}

void call_cancel(struct call *c)
{
    if (c->state == CALL_QUEUED || c->state == CALL_PARKED || c->state == CALL_LINKING)
        end_unsent(c, ERR_CANCELLED);
    else if (c->state == CALL_SENT)
        stop(c, ERR_CANCELLED);
}
