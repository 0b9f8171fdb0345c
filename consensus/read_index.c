/* Room: consensus. Thread: loop. Owns: the other members' questions; the reads are the callers'.
 *
 * Invariants: a read with id > 0 was asked under that number (of the leader, or as its own round);
 * round numbers and ask numbers only rise; a change of leader or term voids both.
 *
 * The argument for linearizability is in read_index.h. Not here: waiting until the index is
 * applied (the node's). */
#include "consensus/read_index.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/mem.h"
#include "consensus/members.h"

#include <stdlib.h>

/* Questions of other members that wait here; each of them sends one a loop turn at most. */
#define ASKS_MAX 4096u
/* Members whose confirmations are kept. */
#define VOTERS_MAX 64u

enum kind { ASK = 1, ANSWER, PROBE, CONFIRM };

/* Another member's question. */
struct ask {
    struct list link;
    uint64_t from, number, round, index, expires_ms;
};

struct confirmed {
    uint64_t id, round;
};

struct reads {
    struct outbox *outbox;
    unsigned heartbeat_ms, election_ms;
    bool stopped;
    struct list waiting;      /* struct cns_read */
    uint64_t term, leader_id; /* the view that ids below belong to */
    uint64_t number;          /* of the last ASK */
    uint64_t sent_ms;         /* of the last ASK or PROBE */
    /* leading: */
    struct list asks;
    unsigned n_asks;
    uint64_t round;
    struct confirmed confirmed[VOTERS_MAX];
    unsigned n_confirmed;
};

struct reads *reads_new(struct outbox *outbox, uint64_t first_number, unsigned heartbeat_ms,
                        unsigned election_ms)
{
    struct reads *r = MEM_NEW(struct reads);
    r->outbox = outbox;
    r->number = first_number >> 1; /* room to rise */
    r->heartbeat_ms = heartbeat_ms;
    r->election_ms = election_ms;
    list_init(&r->waiting);
    list_init(&r->asks);
    return r;
}

static void drop_asks(struct reads *r)
{
    struct list *l;
    while ((l = list_pop_front(&r->asks)) != NULL)
        free(LIST_ENTRY(l, struct ask, link));
    r->n_asks = 0;
}

void reads_free(struct reads *r)
{
    if (r == NULL)
        return;
    drop_asks(r);
    while (list_pop_front(&r->waiting) != NULL)
        ;
    free(r);
}

void reads_add(struct reads *r, struct cns_read *read, uint64_t deadline_ms)
{
    read->id = 0;
    read->index = 0;
    read->deadline_ms = deadline_ms;
    list_push_back(&r->waiting, &read->link);
}

void reads_cancel(struct cns_read *read)
{
    list_remove(&read->link);
}

void reads_stop(struct reads *r)
{
    r->stopped = true;
}

/* Calls all in FINISHED, which any of the calls may change: cancel one, add one, stop the member.
 */
static void finish(struct reads *r, struct list *finished, enum err e)
{
    struct list *l;
    while (!r->stopped && (l = list_pop_front(finished)) != NULL) {
        struct cns_read *read = LIST_ENTRY(l, struct cns_read, link);
        read->done(read, e, e == ERR_OK ? read->index : 0);
    }
    list_splice(&r->waiting, finished);
}

/* --- messages -----------------------------------------------------------------------------------
 */

static void tell(struct reads *r, uint64_t to, enum kind kind, uint64_t a, uint64_t b)
{
    uint8_t p[17];
    p[0] = (uint8_t)kind;
    set_le64(p + 1, a);
    set_le64(p + 9, b);
    outbox_send_bytes(r->outbox, to, CNS_BYTES_READ_INDEX, p, sizeof p);
}

static void on_ask(struct reads *r, const struct reads_view *v, uint64_t from, uint64_t number)
{
    if (v->leader_id != v->self || r->n_asks >= ASKS_MAX)
        return; /* the asker asks again, or gives up in time */
    struct ask *a = MEM_NEW(struct ask);
    a->from = from;
    a->number = number;
    a->expires_ms = v->now_ms + r->election_ms;
    list_push_back(&r->asks, &a->link);
    r->n_asks++;
}

/* All reads asked under NUMBER or an earlier one began before the leader looked. */
static void on_answer(struct reads *r, const struct reads_view *v, uint64_t from, uint64_t number,
                      uint64_t index)
{
    if (from != v->leader_id || number > r->number || r->leader_id != from || r->term != v->term)
        return;
    struct list finished;
    list_init(&finished);
    LIST_EACH(l, &r->waiting) {
        struct cns_read *read = LIST_ENTRY(l, struct cns_read, link);
        if (read->id == 0 || read->id > number)
            continue;
        read->index = index;
        list_remove(l);
        list_push_back(&finished, l);
    }
    finish(r, &finished, ERR_OK);
}

static void on_confirm(struct reads *r, const struct reads_view *v, uint64_t from, uint64_t term,
                       uint64_t round)
{
    if (v->leader_id != v->self || term != v->term || term != r->term || round > r->round)
        return;
    const struct raft_server *voter = members_find(v->members, from);
    if (voter == NULL || voter->role != RAFT_VOTER)
        return; /* it counts for nothing, and is not to fill the places of those that count */
    unsigned i = 0;
    while (i < r->n_confirmed && r->confirmed[i].id != from)
        i++;
    if (i == r->n_confirmed) {
        if (r->n_confirmed == VOTERS_MAX)
            return;
        r->confirmed[r->n_confirmed++] = (struct confirmed){from, 0};
    }
    if (round > r->confirmed[i].round)
        r->confirmed[i].round = round;
}

void reads_receive(struct reads *r, const struct reads_view *v, uint64_t from, const uint8_t *p,
                   size_t n)
{
    struct rd in = rd_of(p, n);
    unsigned kind = rd_u8(&in);
    uint64_t a = rd_u64(&in);
    uint64_t b = rd_u64(&in);
    if (in.failed || rd_left(&in) > 0)
        return;
    if (kind == ASK)
        on_ask(r, v, from, a);
    else if (kind == ANSWER)
        on_answer(r, v, from, a, b);
    else if (kind == PROBE && a == v->term && from == v->leader_id)
        tell(r, from, CONFIRM, a, b);
    else if (kind == CONFIRM)
        on_confirm(r, v, from, a, b);
}

/* --- the leader's rounds ------------------------------------------------------------------------
 */

static uint64_t confirmed_round(const struct reads *r, uint64_t id)
{
    for (unsigned i = 0; i < r->n_confirmed; i++)
        if (r->confirmed[i].id == id)
            return r->confirmed[i].round;
    return 0;
}

/* Has a majority of the voters, this member included if it is one, confirmed ROUND or a later one?
 */
static bool is_confirmed(const struct reads *r, const struct reads_view *v, uint64_t round)
{
    unsigned voters = 0, yes = 0;
    for (unsigned i = 0; i < v->members->n; i++) {
        const struct raft_server *s = &v->members->servers[i];
        if (s->role != RAFT_VOTER)
            continue;
        voters++;
        if (s->id == v->self || confirmed_round(r, s->id) >= round)
            yes++;
    }
    return yes > voters / 2;
}

static void probe(struct reads *r, const struct reads_view *v)
{
    for (unsigned i = 0; i < v->members->n; i++) {
        const struct raft_server *s = &v->members->servers[i];
        if (s->role == RAFT_VOTER && s->id != v->self)
            tell(r, s->id, PROBE, v->term, r->round);
    }
    r->sent_ms = v->now_ms;
}

/* Gives a round to all that have none. */
static void join_round(struct reads *r, const struct reads_view *v)
{
    uint64_t round = r->round + 1;
    bool any = false;
    LIST_EACH(l, &r->waiting) {
        struct cns_read *read = LIST_ENTRY(l, struct cns_read, link);
        if (read->id != 0)
            continue;
        read->id = round;
        read->index = v->commit;
        any = true;
    }
    LIST_EACH(l, &r->asks) {
        struct ask *a = LIST_ENTRY(l, struct ask, link);
        if (a->round != 0)
            continue;
        a->round = round;
        a->index = v->commit;
        any = true;
    }
    bool again = !list_empty(&r->waiting) || !list_empty(&r->asks);
    if (any)
        r->round = round;
    if (any || (again && v->now_ms - r->sent_ms >= r->heartbeat_ms))
        probe(r, v);
}

static void finish_rounds(struct reads *r, const struct reads_view *v)
{
    LIST_EACH(l, &r->asks) {
        struct ask *a = LIST_ENTRY(l, struct ask, link);
        bool ready = a->round != 0 && is_confirmed(r, v, a->round);
        if (!ready && v->now_ms < a->expires_ms)
            continue;
        if (ready)
            tell(r, a->from, ANSWER, a->number, a->index);
        list_remove(l);
        free(a);
        r->n_asks--;
    }
    struct list finished;
    list_init(&finished);
    LIST_EACH(l, &r->waiting) {
        struct cns_read *read = LIST_ENTRY(l, struct cns_read, link);
        if (read->id == 0 || !is_confirmed(r, v, read->id))
            continue;
        list_remove(l);
        list_push_back(&finished, l);
    }
    finish(r, &finished, ERR_OK);
}

/* --- the asking side ----------------------------------------------------------------------------
 */

static void ask_leader(struct reads *r, const struct reads_view *v)
{
    bool fresh = false;
    LIST_EACH(l, &r->waiting)
        if (LIST_ENTRY(l, struct cns_read, link)->id == 0)
            fresh = true;
    if (!fresh && (list_empty(&r->waiting) || v->now_ms - r->sent_ms < r->heartbeat_ms))
        return;
    r->number++;
    LIST_EACH(l, &r->waiting) {
        struct cns_read *read = LIST_ENTRY(l, struct cns_read, link);
        if (read->id == 0)
            read->id = r->number; /* older ones keep theirs: any later answer serves them too */
    }
    tell(r, v->leader_id, ASK, r->number, 0);
    r->sent_ms = v->now_ms;
}

static void expire(struct reads *r, const struct reads_view *v)
{
    struct list finished;
    list_init(&finished);
    LIST_EACH(l, &r->waiting) {
        if (v->now_ms < LIST_ENTRY(l, struct cns_read, link)->deadline_ms)
            continue;
        list_remove(l);
        list_push_back(&finished, l);
    }
    finish(r, &finished, v->leader_id == 0 ? ERR_NO_LEADER : ERR_TIMEOUT);
}

void reads_flush(struct reads *r, const struct reads_view *v)
{
    if (v->term != r->term || v->leader_id != r->leader_id) {
        r->term = v->term;
        r->leader_id = v->leader_id;
        r->round = 0;
        r->n_confirmed = 0;
        drop_asks(r); /* the askers ask the new leader */
        LIST_EACH(l, &r->waiting)
            LIST_ENTRY(l, struct cns_read, link)->id = 0;
    }
    if (v->ready) {
        join_round(r, v);
        finish_rounds(r, v);
    } else if (v->leader_id != 0 && v->leader_id != v->self) {
        ask_leader(r, v);
    }
    expire(r, v);
}

void reads_fail(struct reads *r, enum err e)
{
    drop_asks(r);
    struct list finished;
    list_init(&finished);
    list_splice(&finished, &r->waiting);
    finish(r, &finished, e);
}
