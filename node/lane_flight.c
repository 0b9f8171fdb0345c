/* Room: node. Thread: owner.
 * Owns: the flights. Invariants: flights are in the order of their sequences and of their entries
 * in the log; only this lane proposes in its term, so the n-th committed command of the term is the
 * n-th part proposed; parts are handed to the loop in order, so all before one that has some not
 * handed have all, and all behind it none; a request waits in exactly one flight.
 *
 *   sealed --> in flight --> published --> answered
 *                 |
 *            leadership lost --> not all of it was handed to the loop: surely not written
 *                 v
 *             doubtful --> its entry comes: answered as done
 *                      --> an entry of a later term comes first: surely not written
 *                      --> nobody tells in time: "unknown" */
#include "node/lane_state.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "base/trace.h"
#include "node/meters.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Parts of a large transaction that are made and not proposed yet. */
#define HANDED_BYTES_MAX MIB(4)

static void fail_all(struct lane *l, struct list *requests, enum err code,
                     const char *sentence) ON_OWNER
{
    struct list *i;
    while ((i = list_pop_front(requests)) != NULL) {
        struct request *r = LIST_ENTRY(i, struct request, letter.link);
        r->answer.in_transaction = false;
        request_fail(r, code, sentence);
        lane_answer(l, r);
    }
}

/* Makes the next part of F and hands it to the loop. */
static enum err hand_part(struct lane *l, struct flight *f) ON_OWNER
{
    uint8_t *bytes;
    size_t len;
    TRY(repl_txn_part(f->txn, f->parts_sent, &bytes, &len));
    struct lane_proposal *p = MEM_NEW(struct lane_proposal);
    p->letter.kind = LOOP_PROPOSAL;
    p->term = f->term;
    p->bytes = len;
    p->one_of_many = f->parts > 1;
    p->payload = cns_payload_take(bytes, len);
    if (p->one_of_many)
        l->handed_bytes += len;
    f->parts_sent++;
    mail_send(l->loop, &p->letter.link);
    return ERR_OK;
}

void lane_ship(struct lane *l)
{
    LIST_EACH(i, &l->flights) {
        struct flight *f = LIST_ENTRY(i, struct flight, link);
        while (f->parts_sent < f->parts) {
            if (l->failed || l->handed_bytes >= HANDED_BYTES_MAX)
                return;
            enum err e = hand_part(l, f);
            if (e != ERR_OK)
                lane_fail(l, e);
        }
    }
}

void lane_proposed(struct lane *l, const struct lane_proposal *p)
{
    if (l->view == NULL || p->term != l->term)
        return; /* of a leadership that is over */
    CHECK(l->handed_bytes >= p->bytes);
    l->handed_bytes -= p->bytes;
    lane_ship(l);
}

/* With the outcomes of its numbered writes. */
static enum err seal(struct lane *l, struct repl_txn **txn) ON_OWNER
{
    buf_reset(&l->section);
    outcomes_put_section(l->outcomes, &l->section);
    CHECK(buf_status(&l->section) == ERR_OK); /* lane_batch.c asked for room before each */
    TRY(repl_view_seal(l->view, clock_wall_ms(), l->section.data, l->section.len, txn));
    if (*txn != NULL)
        outcomes_seal(l->outcomes, repl_txn_seq(*txn));
    return ERR_OK;
}

/* Nothing was written: are there outcomes that others must hear of nevertheless? */
static enum err seal_outcomes(struct lane *l, struct list *requests, struct repl_txn **txn) ON_OWNER
{
    if (outcomes_need_entry(l->outcomes)) {
        int rc = lane_write_as_is(l);
        if (rc == SQLITE_OK)
            return seal(l, txn);
        log_warn("lane", "outcomes-unwritten code=%d", rc);
        lane_cannot_note(l, requests);
    }
    outcomes_undo(l->outcomes, 0);
    return ERR_OK;
}

void lane_depart(struct lane *l, struct list *requests)
{
    struct repl_txn *txn = NULL;
    uint64_t n = 0, ran_ns = clock_mono_ns();
    if (l->run_ns != 0)
        meters_stage(METER_STAGE_RUN, ran_ns - l->run_ns);
    l->run_ns = 0;
    enum err e = seal(l, &txn);
    if (e == ERR_OK && txn == NULL)
        e = seal_outcomes(l, requests, &txn);
    if (e != ERR_OK) {
        outcomes_undo(l->outcomes, 0);
        fail_all(l, requests, e, err_text());
        lane_fail(l, e);
        return;
    }
    uint64_t seq = repl_view_seq(l->view);
    LIST_EACH(i, requests) {
        LIST_ENTRY(i, struct request, letter.link)->answer.seq = seq;
        n++;
    }
    if (txn == NULL) {
        /* Nothing was written, but what was seen may be unpublished: wait with the last flight. And
         * no commit proves that this node still led when it looked: a majority must. A
         * transaction's statements at the levels any and session promise less, and are spared the
         * round. */
        LIST_EACH(i, requests) {
            struct request *r = LIST_ENTRY(i, struct request, letter.link);
            r->needs_confirm =
                !r->interactive || r->query.level == WIRE_STRONG || r->query.level == WIRE_BOUNDED;
            r->ran_in_term = l->term;
        }
        if (list_empty(&l->flights))
            lane_answer_all(l, requests);
        else
            list_splice(&LIST_ENTRY(l->flights.prev, struct flight, link)->requests, requests);
        return;
    }
    struct flight *f = MEM_NEW(struct flight);
    f->txn = txn;
    f->term = l->term;
    f->seq = repl_txn_seq(txn);
    f->sent_ns = clock_mono_ns();
    f->bytes = repl_txn_bytes(txn);
    f->parts = repl_txn_parts(txn);
    CHECK(f->seq == seq && f->parts > 0);
    meters_stage(METER_STAGE_SEAL, f->sent_ns - ran_ns);
    meters_batch(n);
    list_init(&f->requests);
    list_splice(&f->requests, requests);
    list_push_back(&l->flights, &f->link);
    l->n_flights++;
    l->flight_bytes += f->bytes;
    trace("depart", f->seq, f->bytes);
    lane_ship(l);
}

static void drop(struct lane *l, struct flight *f) ON_OWNER
{
    list_remove(&f->link);
    CHECK(l->n_flights > 0 && l->flight_bytes >= f->bytes);
    l->n_flights--;
    l->flight_bytes -= f->bytes;
}

void lane_free_flight(struct flight *f)
{
    list_remove(&f->link);
    free(f);
}

bool lane_arrive(struct lane *l)
{
    CHECK(!list_empty(&l->flights)); /* who else would have proposed in our term? */
    struct flight *f = LIST_ENTRY(l->flights.next, struct flight, link);
    CHECK(f->term == l->term && f->parts_seen < f->parts_sent);
    if (f->parts_seen + 1 < f->parts) {
        f->parts_seen++; /* the overlay has it */
        return true;
    }
    uint64_t came_ns = clock_mono_ns();
    enum err e = repl_db_publish(l->db, f->txn);
    if (e == ERR_FULL)
        return false;
    meters_stage(METER_STAGE_COMMIT, came_ns - f->sent_ns);
    meters_stage(METER_STAGE_PUBLISH, clock_mono_ns() - came_ns);
    meters_count(METER_COMMITS, 1);
    meters_count(METER_COMMIT_BYTES, f->bytes);
    f->txn = NULL;
    drop(l, f);
    outcomes_publish(l->outcomes, f->seq);
    trace("publish", f->seq, 0);
    if (e != ERR_OK) {
        /* Committed, so done for the cluster; only this node cannot show it. */
        fail_all(l, &f->requests, ERR_UNKNOWN,
                 "the write is committed, but this node's disk failed before it could answer");
        lane_fail(l, e);
    } else {
        lane_answer_all(l, &f->requests);
    }
    lane_free_flight(f);
    return true;
}

bool lane_keep_parts(struct lane *l)
{
    if (list_empty(&l->flights))
        return true;
    const struct flight *f = LIST_ENTRY(l->flights.next, struct flight, link);
    if (f->parts_seen == 0)
        return true;
    enum err e = repl_db_apply_sealed(l->db, f->txn, f->parts_seen);
    if (e != ERR_OK && e != ERR_FULL)
        lane_fail(l, e);
    return e != ERR_FULL;
}

/* It is sure that nothing of F was written: an autocommit statement may be run again by its
 * session, a transaction is gone. */
static void lose(struct lane *l, struct flight *f) ON_OWNER
{
    LIST_EACH(i, &f->requests) {
        struct request *r = LIST_ENTRY(i, struct request, letter.link);
        r->answer.in_transaction = false;
        if (r->interactive)
            request_fail(r, ERR_TXN_LOST,
                         "the transaction was rolled back: the leader changed before its commit");
        else
            request_fail(r, ERR_NOT_LEADER, "the leader changed before the write was committed");
    }
    lane_answer_all(l, &f->requests);
    lane_free_flight(f);
}

void lane_doubt(struct lane *l)
{
    struct list *i;
    while ((i = list_pop_front(&l->flights)) != NULL) {
        struct flight *f = LIST_ENTRY(i, struct flight, link);
        repl_txn_free(f->txn);
        f->txn = NULL;
        list_push_back(&l->doubtful, &f->link);
        if (f->parts_sent < f->parts)
            lose(l, f); /* nobody has its last part */
    }
    l->n_flights = 0;
    l->flight_bytes = 0;
    l->handed_bytes = 0;
}

void lane_judge(struct lane *l, const struct lane_entry *e)
{
    LIST_EACH(i, &l->doubtful) {
        struct flight *f = LIST_ENTRY(i, struct flight, link);
        if (f->term < e->term) {
            lose(l, f);
            continue;
        }
        if (f->term > e->term || e->kind != CNS_COMMAND)
            return;
        if (++f->parts_seen == f->parts) {
            lane_answer_all(l, &f->requests);
            lane_free_flight(f);
        }
        return;
    }
}

void lane_give_up(struct lane *l, uint64_t now_ms)
{
    LIST_EACH(i, &l->doubtful) {
        struct flight *f = LIST_ENTRY(i, struct flight, link);
        if (list_empty(&f->requests) || now_ms < f->sent_ns / 1000000 + l->config->leader_wait_ms)
            continue;
        fail_all(l, &f->requests, ERR_UNKNOWN,
                 "the leader changed and no majority could say whether this was written: look "
                 "before you repeat it");
        /* The flight stays: later entries of its term must be counted against it. */
    }
}
