/* Room: client.   Thread: under the cluster's lock.   Owns: nothing.
 *
 * BEGIN, the program's function, COMMIT, again and again until it worked, failed for good, or the
 * time limit is over. While the function runs, a transaction that was lost stays lost: every
 * statement fails with TXN_LOST until it returns, so that nothing of it is run outside of a
 * transaction by mistake.
 *
 * Not here: what COMMIT means when its answer is lost (call.c). */
#include "base/clock.h"
#include "base/rng.h"
#include "client/statement.h"

#define WAIT_FIRST_MS 5
#define WAIT_MAX_MS   1000

static bool may_run_again(int code)
{
    return code == LECTERN_TXN_LOST || code == LECTERN_BUSY || code == LECTERN_UNAVAILABLE;
}

/* Ends the transaction, if it is still open, and keeps the error that led here. */
static int roll_back(struct lectern *db)
{
    struct last_error e;
    session_save_error(db, &e);
    int code = LECTERN_INTERRUPT; /* what is meant for us may hit the ROLLBACK: repeat() sees it */
    while (code == LECTERN_INTERRUPT && stream_in_transaction(db->stream))
        code = statement_exec(db, "ROLLBACK", NULL, NULL);
    (void)code; /* lost, it is rolled back as well */
    return session_restore_error(db, &e);
}

static int run_body(struct lectern *db, int (*body)(lectern *db, void *arg), void *arg)
{
    db->in_body = true;
    db->lost_in_body = db->committed_in_body = false;
    unsigned levels = cluster_release(db->cluster);
    int code = body(db, arg);
    cluster_regain(db->cluster, levels);
    bool lost = db->lost_in_body;
    db->in_body = db->lost_in_body = false;
    /* Also when the function took no notice of it. */
    if (lost && (code == LECTERN_OK || may_run_again(code)))
        return session_fail(db, LECTERN_TXN_LOST, "the transaction was lost with its node");
    if (code != LECTERN_OK && (db->code & 0xff) != code)
        return session_fail(db, code, "the transaction's function returned %d", code);
    return code;
}

/* Too late to take anything back. */
static int ended_inside(struct lectern *db)
{
    return session_fail(db, LECTERN_MISUSE,
                        "the transaction's function ended the transaction itself: %s, and what it "
                        "ran after that was outside of it; leave the end to lectern_transaction",
                        db->committed_in_body ? "it committed, so that is done"
                                              : "it was rolled back");
}

/* Not by the function: that it was lost is heard by the next statement, COMMIT. */
static bool is_over(const struct lectern *db)
{
    return !stream_in_transaction(db->stream) && !stream_has_lost(db->stream);
}

static int attempt(struct lectern *db, const char *begin, int (*body)(lectern *db, void *arg),
                   void *arg)
{
    int code = statement_exec(db, begin, NULL, NULL);
    if (code != LECTERN_OK)
        return code;
    code = run_body(db, body, arg);
    if (code == LECTERN_OK && is_over(db))
        return ended_inside(db);
    if (code == LECTERN_OK)
        code = statement_exec(db, "COMMIT", NULL, NULL);
    if (code != LECTERN_OK)
        (void)roll_back(db);
    return code;
}

/* Half to all of a wait that doubles. False: interrupted. */
static bool wait_before(struct lectern *db, unsigned tries, uint64_t until_ms)
{
    uint64_t wait = tries < 8 ? (uint64_t)WAIT_FIRST_MS << tries : WAIT_MAX_MS;
    wait = wait > WAIT_MAX_MS ? WAIT_MAX_MS : wait;
    struct rng r = {clock_mono_ns() ^ (uint64_t)(uintptr_t)db};
    uint64_t at = clock_mono_ms() + wait / 2 + rng_below(&r, wait / 2 + 1);
    return session_pause(db, at < until_ms ? at : until_ms);
}

static int repeat(struct lectern *db, const char *begin, int (*body)(lectern *db, void *arg),
                  void *arg)
{
    const uint64_t until_ms = clock_mono_ms() + db->timeout_ms;
    for (unsigned tries = 0;; tries++) {
        unsigned interrupts = db->interrupts;
        int code = attempt(db, begin, body, arg);
        if (!may_run_again(code) || clock_mono_ms() >= until_ms)
            return code;
        if (db->interrupts != interrupts)
            return session_fail(db, LECTERN_INTERRUPT, "%s", "");
        struct last_error e;
        session_save_error(db, &e);
        bool on = wait_before(db, tries, until_ms);
        (void)session_restore_error(db, &e);
        if (!on)
            return session_fail(db, LECTERN_INTERRUPT, "%s", "");
    }
}

int lectern_transaction(lectern *db, const char *begin, int (*body)(lectern *db, void *arg),
                        void *arg)
{
    if (!session_enter(db))
        return LECTERN_MISUSE;
    struct lectern_cluster *c = db->cluster;
    int code;
    db->calls++;
    if (body == NULL)
        code = session_fail(db, LECTERN_MISUSE, "the transaction has no function");
    else if (db->in_body || stream_in_transaction(db->stream))
        code = session_fail(db, LECTERN_MISUSE, "a transaction is open already");
    else
        code = repeat(db, begin == NULL ? "BEGIN IMMEDIATE" : begin, body, arg);
    db->calls--;
    session_leave(c);
    return code;
}
