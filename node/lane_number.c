/* Room: node. Thread: owner.
 *
 * Numbered writes in the lane (docs/CLIENT.md, "Exactly once"): is it done already, and what did it
 * answer; what it answered now; a COMMIT whose client asks from elsewhere whether it was done.
 *
 * What must be written down. A write that was done is in an entry, and its outcome with it. One
 * that failed, or that changed nothing, leaves no trace: run again, it would be as if it had come
 * later. That is right as long as its client has no answer. So of a request that may have another
 * attempt under way (again), the outcome is always written down before its answer leaves: the other
 * attempt, however late, finds it. When nobody else in its batch wrote, page 1 is written as it
 * is, to have an entry for it. */
#include "node/lane_state.h"

#include "base/check.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SENTENCE_MAX 1024 /* of a failure, as it is kept */

/* May there be an attempt that is still to come? */
static bool again(const struct request *r)
{
    return (r->query.flags & WIRE_AGAIN) != 0 || r->in_doubt;
}

/* --- answered before -------------------------------------------------------------------------- */

static void fail_as_before(struct request *r, const struct outcome *done)
{
    struct wire_frame f;
    struct wire_error error;
    char sentence[SENTENCE_MAX + 1];
    size_t used;
    enum err e = wire_next(done->frames, done->frames_len, OUTCOME_ROWS_MAX, &f, &used);
    CHECK(e == ERR_OK && used == done->frames_len); /* made here, or checked as it came */
    e = wire_get_error(&f, &error);
    CHECK(e == ERR_OK);
    (void)snprintf(sentence, sizeof sentence, "%.*s",
                   (int)(error.message_len < SENTENCE_MAX ? error.message_len : SENTENCE_MAX),
                   error.message);
    request_fail(r, error.code, sentence);
    r->answer.sqlite_code = error.sqlite_code;
    r->answer.offset = error.offset;
    r->answer.statement = error.statement;
    r->answer.settled = true;
}

static void answer_as_before(struct request *r, const struct outcome *done)
{
    if (done->failed) {
        fail_as_before(r, done);
    } else if (done->rows_lost) {
        request_fail(r, ERR_ROWS_LOST, err_default_text(ERR_ROWS_LOST));
    } else {
        outcome_put_frames(&r->answer.out, done, r->id);
        r->answer.changes = done->changes;
        r->answer.last_insert_rowid = done->last_insert_rowid;
    }
}

bool lane_knows(struct lane *l, struct request *r)
{
    struct outcome done;
    if (!request_is_numbered(r))
        return false;
    enum outcome_known known = outcomes_find(l->outcomes, &r->query.number, &done);
    switch (known) {
    case OUTCOME_NONE:
        return false;
    case OUTCOME_DONE:
        answer_as_before(r, &done);
        break;
    case OUTCOME_VOID:
        request_fail(r, ERR_TXN_LOST, "this was given up by its client before it came here");
        break;
    case OUTCOME_EXPIRED:
        request_fail(r, ERR_EXPIRED, err_default_text(ERR_EXPIRED));
        break;
    }
    log_debug("lane", "number-known session=%" PRIu64 " number=%" PRIu64 " what=%d", r->session_id,
              r->query.number.number, (int)known);
    return true;
}

/* --- answered now ----------------------------------------------------------------------------- */

void lane_note_done(struct lane *l, const struct request *r)
{
    if (!request_is_numbered(r))
        return;
    struct outcome done = {.changes = r->answer.changes,
                           .last_insert_rowid = r->answer.last_insert_rowid,
                           .frames = r->answer.out.data,
                           .frames_len = r->answer.out.len};
    /* A COMMIT is never run by itself: another attempt at it finds no transaction, or asks. So if
     * it wrote nothing it needs no entry; and another transaction may be writing now. */
    outcomes_note(l->outcomes, &r->query.number, &done, again(r) && !r->interactive);
}

void lane_note_failed(struct lane *l, const struct request *r)
{
    bool counts = again(r) || r->answer.code == ERR_UNKNOWN;
    if (!request_is_numbered(r) || !counts || r->answer.code == ERR_NOT_LEADER)
        return;
    struct buf b;
    const char *sentence = r->answer.message == NULL ? "" : r->answer.message;
    struct wire_error error = {.code = r->answer.code,
                               .sqlite_code = r->answer.sqlite_code,
                               .offset = r->answer.offset,
                               .statement = r->answer.statement,
                               .message = sentence,
                               .message_len = strnlen(sentence, SENTENCE_MAX)};
    buf_init(&b, OUTCOME_ROWS_MAX);
    wire_put_error(&b, r->id, &error);
    CHECK(buf_status(&b) == ERR_OK);
    outcomes_note(l->outcomes, &r->query.number,
                  &(struct outcome){.failed = true, .frames = b.data, .frames_len = b.len}, true);
    buf_fini(&b);
}

/* --- an entry for outcomes alone -------------------------------------------------------------- */

static int user_version(sqlite3 *handle, int *version)
{
    sqlite3_stmt *stmt;
    int rc = sqlite3_prepare_v2(handle, "PRAGMA user_version", -1, &stmt, NULL);
    if (rc != SQLITE_OK)
        return rc;
    if (sqlite3_step(stmt) == SQLITE_ROW)
        *version = sqlite3_column_int(stmt, 0);
    return sqlite3_finalize(stmt);
}

int lane_write_as_is(struct lane *l)
{
    sqlite3 *handle = sqlconn_handle(l->group);
    char sql[64];
    int version = 0;
    CHECK(l->holder == NULL && sqlite3_get_autocommit(handle));
    int rc = user_version(handle, &version);
    if (rc != SQLITE_OK)
        return rc;
    (void)snprintf(sql, sizeof sql, "PRAGMA user_version = %d", version);
    return sqlite3_exec(handle, sql, NULL, NULL, NULL);
}

void lane_cannot_note(struct lane *l, struct list *requests)
{
    outcomes_undo(l->outcomes, 0);
    LIST_EACH(i, requests) {
        struct request *r = LIST_ENTRY(i, struct request, letter.link);
        if (request_is_numbered(r) && again(r))
            request_fail(r, ERR_UNKNOWN,
                         "this did nothing now, but that could not be written down, and an earlier "
                         "attempt at it may still come");
    }
}

/* --- was it done? ----------------------------------------------------------------------------- */

void lane_resolve(struct lane *l, struct request *r)
{
    struct outcome done;
    struct list one;
    const struct wire_number *n = &r->query.number;
    enum outcome_known known = outcomes_find(l->outcomes, n, &done);
    r->interactive = false; /* whatever it asks about, it is in no transaction itself */
    if (known == OUTCOME_DONE) {
        answer_as_before(r, &done);
    } else {
        /* Also when it is not known whether it was done: what comes now is not. */
        outcomes_void(l->outcomes, n, repl_view_seq(l->view));
        lane_lose_writer(l, n->writer);
        if (known == OUTCOME_EXPIRED)
            request_fail(r, ERR_EXPIRED,
                         "whether this transaction was committed cannot be told any more: look");
        else
            request_fail(r, ERR_TXN_LOST,
                         "the transaction was rolled back: its connection was lost before its "
                         "COMMIT was run");
    }
    list_init(&one);
    list_push_back(&one, &r->letter.link);
    lane_depart(l, &one);
}
