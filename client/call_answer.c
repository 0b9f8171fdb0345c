/* Room: client.   Thread: the loop's.   Owns: nothing: what a node's answer means for a call.
 *
 * Invariants: rows are handed on once; an error is given to the program as a definite one only when
 * no attempt can have been done; what a node says of the session's state is taken before the next
 * call goes on.
 *
 *   error                                outside of a transaction, not cancelled
 *   NOT_LEADER NO_LEADER STOPPED ...     another node, or later (may_retry)
 *   UNKNOWN, a numbered write            asked for again under its number
 *   EXPIRED, sent only this once         again, with a newer `since`; else UNKNOWN
 *   SQL and the like                     the answer, even after a lost attempt: who runs a
 *                                        statement has first looked whether it was done
 *   all others                           the answer; UNKNOWN after a lost attempt
 *
 * Not here: attempts that hear no answer (call.c). */
#include "client/call_state.h"

#include <stdio.h>
#include <string.h>

/* A number may be told so often that its `since` is too old, before something is wrong. */
#define RENEWALS_MAX 3u
/* What is handed on of a write is kept until its end (run.c), each frame with so much besides. An
 * honest answer has a block of rows a frame, or 10,000 statements with two frames each. */
#define FRAME_COST KIB(1)
#define KEPT_MAX   (WIRE_ANSWER_MAX + 3ull * BATCH_STATEMENTS_MAX * FRAME_COST)

/* --- parts ------------------------------------------------------------------------------------ */

/* Whether this frame is for the program: not when it is to end, nor what it had already from an
 * earlier attempt at the same write (whose first result comes again as it was). */
static bool is_wanted(struct call *c)
{
    if (c->skip > 0) {
        c->skip--;
        return false;
    }
    if (c->stop != ERR_OK)
        return false;
    if (c->restart) {
        c->kept = 0;
        if (c->events.on_restart != NULL)
            c->events.on_restart(c->events.ctx);
    }
    c->restart = false;
    c->had_parts = true;
    c->handed++;
    return true;
}

/* Before BYTES more of it are handed on. */
static enum err keep_within_bounds(struct call *c, uint64_t bytes)
{
    if (c->kind == CALL_READ || c->skip > 0 || c->stop != ERR_OK || c->restart)
        return ERR_OK;
    c->kept += bytes + FRAME_COST;
    if (c->kept <= KEPT_MAX)
        return ERR_OK;
    return err_fail(ERR_PROTOCOL, "the answer of a write has over %llu MiB: no node keeps so much",
                    WIRE_ANSWER_MAX / MIB(1));
}

static enum err take_columns(struct call *c, struct wire_frame *f)
{
    uint32_t n;
    struct rd columns;
    TRY(wire_get_columns(f, &n, &columns));
    if (c->n_columns != 0 || n == 0 || c->type == WIRE_DESCRIBE)
        return err_fail(ERR_PROTOCOL, "columns where none belong");
    TRY(keep_within_bounds(c, rd_left(&columns)));
    c->n_columns = n;
    if (!is_wanted(c))
        return ERR_OK;
    c->handed_columns = n;
    if (c->events.on_columns != NULL)
        c->events.on_columns(c->events.ctx, n, columns);
    return ERR_OK;
}

static enum err take_rows(struct call *c, struct wire_frame *f)
{
    uint32_t n, frame_bytes = (uint32_t)rd_left(&f->body) + WIRE_HEAD_BYTES;
    struct rd values;
    if (c->n_columns == 0)
        return err_fail(ERR_PROTOCOL, "rows before their columns");
    if (c->given >= WIRE_WINDOW)
        return err_fail(ERR_PROTOCOL, "rows beyond the window");
    TRY(wire_get_rows(f, c->n_columns, &n, &values));
    if (c->skip == 0 && c->stop == ERR_OK && c->n_columns != c->handed_columns)
        return err_fail(ERR_PROTOCOL, "another result than the first time");
    TRY(keep_within_bounds(c, frame_bytes));
    if (!is_wanted(c) || c->events.on_rows == NULL) {
        stream_credit(c->stream, c->member, c->serial, c->number_of_stream, frame_bytes);
        return ERR_OK;
    }
    c->had_rows = true;
    c->given += frame_bytes;
    c->events.on_rows(c->events.ctx, n, values, frame_bytes);
    return ERR_OK;
}

static enum err take_step(struct call *c, struct wire_frame *f)
{
    struct wire_step step;
    TRY(wire_get_step(f, &step));
    if (c->type != WIRE_BATCH || c->steps++ == c->n_statements)
        return err_fail(ERR_PROTOCOL, "a step of no statement");
    c->n_columns = 0;
    if (is_wanted(c) && c->events.on_step != NULL)
        c->events.on_step(c->events.ctx, &step);
    return ERR_OK;
}

/* --- ends ------------------------------------------------------------------------------------- */

static void leave_member(struct call *c)
{
    list_remove(&c->in_member);
    cluster_awaited(c->member);
}

static enum err take_description(struct call *c, struct wire_frame *f)
{
    struct wire_description d;
    TRY(wire_get_description(f, &d));
    if (c->type != WIRE_DESCRIBE)
        return err_fail(ERR_PROTOCOL, "a description that nobody asked for");
    member_worked(c->member);
    stream_answered(c->stream, c->member, c->was_in_txn, 0);
    leave_member(c);
    if (is_wanted(c) && c->events.on_description != NULL)
        c->events.on_description(c->events.ctx, &d);
    call_finish_now(c, &(struct call_end){.code = ERR_OK, .offset = -1});
    return ERR_OK;
}

static enum err take_done(struct call *c, struct wire_frame *f)
{
    struct wire_done d;
    struct stream *s = c->stream;
    TRY(wire_get_done(f, &d));
    if (c->type == WIRE_DESCRIBE)
        return err_fail(ERR_PROTOCOL, "DONE answers DESCRIBE");
    bool of_session = call_is_of_session(c);
    member_worked(c->member);
    stream_answered(s, c->member,
                    of_session ? (d.flags & WIRE_IN_TRANSACTION) != 0 : stream_in_transaction(s),
                    d.seq);
    /* What a lost COMMIT answered is the past: the session's state has come before it. */
    if (of_session && !c->resolving) {
        s->foreign_keys_off = (d.flags & WIRE_NO_FOREIGN_KEYS) != 0;
        if (c->kind != CALL_READ || c->was_in_txn)
            s->last_insert_rowid = d.last_insert_rowid;
    }
    if ((d.flags & WIRE_ELSEWHERE) != 0 && c->kind != CALL_READ)
        news_elsewhere(s->cluster);
    leave_member(c);
    call_finish_now(c, &(struct call_end){.code = ERR_OK,
                                          .offset = -1,
                                          .changes = d.changes,
                                          .last_insert_rowid = d.last_insert_rowid});
    return ERR_OK;
}

/* --- errors ----------------------------------------------------------------------------------- */

static bool is_elsewhere_or_later(enum err code)
{
    return code == ERR_NOT_LEADER || code == ERR_NO_LEADER || code == ERR_CLOSED ||
           code == ERR_STOPPED || code == ERR_BUSY || code == ERR_NOMEM;
}

/* The node is damaged: another one may read what it cannot. */
static bool is_damage(enum err code)
{
    return code == ERR_IO || code == ERR_CORRUPT || code == ERR_DIVERGED;
}

static bool may_retry(const struct call *c, enum err code)
{
    switch (c->kind) {
    case CALL_READ:
        return !c->had_rows && (is_elsewhere_or_later(code) || is_damage(code));
    case CALL_ADMIN:
        return code == ERR_NOT_LEADER || code == ERR_NO_LEADER || code == ERR_STOPPED;
    case CALL_WRITE:
    case CALL_BEGIN:
    case CALL_COMMIT:
        return is_elsewhere_or_later(code);
    }
    return false;
}

/* Was found by running the statement, or by looking at it: no attempt before can have been done,
 * as that would have been found first. TOO_BIG is none: a node may say it before it looks. */
static bool is_verdict(enum err code)
{
    return code == ERR_SQL || code == ERR_FORBIDDEN || code == ERR_MISUSE || code == ERR_ROWS_LOST;
}

static void finish_with(struct call *c, const struct wire_error *e, enum err code)
{
    call_finish_now(
        c, &(struct call_end){.code = code,
                              .sqlite_code = code == e->code && e->sqlite_code != 0
                                                 ? e->sqlite_code
                                                 : err_sqlite_code((int)code),
                              .offset = e->offset,
                              .statement = e->statement,
                              .message = e->message,
                              .message_len = e->message_len,
                              .time_up = code == ERR_TXN_LOST && (e->flags & WIRE_TIME_UP) != 0});
}

static void finish_unknown(struct call *c, const struct wire_error *e)
{
    char text[ERR_TEXT_MAX];
    int n = snprintf(
        text, sizeof text, "whether this was done is not known (%.*s); look before you repeat it",
        (int)(e->message_len < 400 ? e->message_len : 400), e->message_len == 0 ? "" : e->message);
    struct wire_error unknown = {
        .code = ERR_UNKNOWN, .offset = -1, .message = text, .message_len = (size_t)(n < 0 ? 0 : n)};
    finish_with(c, &unknown, ERR_UNKNOWN);
}

static void again(struct call *c, const struct wire_error *e)
{
    call_park(c, e->code, e->message, e->message_len, false);
}

static void judge_in_transaction(struct call *c, const struct wire_error *e)
{
    bool open = c->stream->txn != NULL;
    bool vague = !is_verdict(e->code) && e->code != ERR_TXN_LOST && e->code != ERR_FULL;
    if (!open && c->kind == CALL_COMMIT && vague) {
        c->doubt = c->resolving = true;
        if (c->stop != ERR_OK)
            finish_unknown(c, e);
        else
            again(c, e);
        return;
    }
    if (!open) /* also an error that rolls back: what is queued was meant to be inside */
        stream_lose_transaction(c->stream);
    if (!open && is_elsewhere_or_later(e->code))
        finish_with(c, e, ERR_TXN_LOST);
    else
        finish_with(c, e, e->code == ERR_CANCELLED && c->stop != ERR_OK ? c->stop : e->code);
}

/* The answer to "what became of this COMMIT?". */
static void judge_resolved(struct call *c, const struct wire_error *e)
{
    if (e->code == ERR_TXN_LOST) {
        stream_lose_transaction(c->stream);
        finish_with(c, e, ERR_TXN_LOST);
    } else if (c->stop == ERR_OK && (is_elsewhere_or_later(e->code) || e->code == ERR_UNKNOWN)) {
        again(c, e);
    } else {
        finish_unknown(c, e);
    }
}

static void judge(struct call *c, const struct wire_error *e)
{
    bool write = call_is_write(c);
    const char *why = c->stop == ERR_TIMEOUT ? "not done within the time limit" : "interrupted";
    struct wire_error stopped = {
        .code = c->stop, .offset = -1, .message = why, .message_len = strlen(why)};
    bool ended = e->code == ERR_CANCELLED || e->code == ERR_TIMEOUT || may_retry(c, e->code);
    if (e->code == ERR_UNKNOWN)
        c->doubt = c->doubt || write;
    if (c->stop != ERR_OK && ended && !c->doubt)
        finish_with(c, &stopped, c->stop);
    else if (c->number != 0 && c->stop == ERR_OK && e->code == ERR_UNKNOWN)
        again(c, e);
    else if (c->number != 0 && e->code == ERR_EXPIRED && c->stop == ERR_OK && !c->doubt &&
             c->renewed < RENEWALS_MAX) {
        c->renewed++;
        c->since = e->seq > c->since ? e->seq : c->since;
        call_park(c, e->code, e->message, e->message_len, true);
    } else if (e->code == ERR_EXPIRED)
        finish_unknown(c, e);
    else if (c->stop == ERR_OK && may_retry(c, e->code))
        again(c, e);
    else if (c->doubt && !is_verdict(e->code))
        finish_unknown(c, e);
    else
        finish_with(c, e, e->code);
}

/* What the error says of the node itself. */
static void note_node(struct member *m, enum call_kind kind, enum err code)
{
    struct lectern_cluster *c = m->cluster;
    if (code == ERR_STOPPED || (kind == CALL_READ && is_damage(code))) {
        m->sick = true; /* until STATUS says that it is well */
        member_failed(&c->members, m, ERR_OK, clock_mono_ms());
        news_wanted(c);
    }
    if (code == ERR_NOT_LEADER || code == ERR_NO_LEADER) {
        if (m->id == c->members.leader_id)
            c->members.leader_doubted = true;
        news_wanted(c);
    }
}

static enum err take_error(struct call *c, struct wire_frame *f)
{
    struct wire_error e;
    TRY(wire_get_error(f, &e));
    stream_answered(c->stream, c->member,
                    call_is_of_session(c) ? (e.flags & WIRE_IN_TRANSACTION) != 0
                                          : stream_in_transaction(c->stream),
                    e.seq);
    note_node(c->member, c->kind, e.code);
    leave_member(c);
    if (c->was_in_txn)
        judge_in_transaction(c, &e);
    else if (c->resolving)
        judge_resolved(c, &e);
    else
        judge(c, &e);
    return ERR_OK;
}

enum err call_frame(struct call *c, struct wire_frame *f)
{
    switch ((int)f->type) {
    case WIRE_COLUMNS:
        return take_columns(c, f);
    case WIRE_ROWS:
        return take_rows(c, f);
    case WIRE_STEP:
        return take_step(c, f);
    case WIRE_DESCRIPTION:
        return take_description(c, f);
    case WIRE_DONE:
        return take_done(c, f);
    case WIRE_ERROR:
        return take_error(c, f);
    default:
        return err_fail(ERR_PROTOCOL, "a frame of type %d for a session", (int)f->type);
    }
}
