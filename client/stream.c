/* Room: client.   Thread: the loop's.   Owns: a session: its number, its order of calls, what it
 * carries from one to the next, the bytes to give back to the node that sends rows.
 *
 * Invariants: one call of a stream is under way at most, the first of `calls`; in a transaction
 * every call goes to the link where it began, and when that is lost nothing that was meant to be in
 * it runs outside; a CREDIT goes to the connection whose rows it is for, or nowhere.
 *
 * Not here: one call (call.c), whose frame it is (cluster.c). */
#include "client/stream.h"

#include "base/check.h"
#include "client/call_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum err stream_new(struct lectern_cluster *c, struct stream **out)
{
    *out = NULL;
    struct stream *s = calloc(1, sizeof *s);
    if (s == NULL)
        return err_fail(ERR_NOMEM, "out of memory for a session");
    s->cluster = c;
    list_init(&s->calls);
    list_init(&s->in_txn);
    enum err e = ERR_OK;
    /* Two sessions with one name could be given each other's results: no weaker source will do. */
    if (getrandom(s->writer, sizeof s->writer, GRND_NONBLOCK) != (ssize_t)sizeof s->writer)
        e = err_fail(ERR_IO, "no random numbers from the system: %s", strerror(errno));
    if (e == ERR_OK)
        e = cluster_add_stream(c, s);
    if (e != ERR_OK) {
        free(s);
        return e;
    }
    *out = s;
    return ERR_OK;
}

/* Without memory for these few bytes they are left out: the node ends the stream with the
 * connection, and a credit is given later. */
static bool send_or_drop(struct member *m)
{
    return link_send(m->link) == ERR_OK;
}

/* The nodes that know the stream shall forget it. */
static void close_everywhere(struct stream *s)
{
    struct members *ms = &s->cluster->members;
    for (unsigned i = 0; i < ms->n; i++) {
        struct member *m = &ms->all[i];
        if ((s->opened >> i & 1) == 0 || !m->ready)
            continue;
        wire_put_close(link_out(m->link), s->number);
        if (send_or_drop(m))
            m->n_open--;
    }
    s->opened = 0;
}

/* Under a new number: what is said of the old one later, as credit, is of no meaning. */
static void close_and_renumber(struct stream *s)
{
    close_everywhere(s);
    cluster_renumber_stream(s->cluster, s);
    s->owed.bytes = 0;
}

/* All that are idle at once: so it costs each opening one CLOSE, and no list of who was used when.
 */
static void close_idle(struct lectern_cluster *c, struct member *m)
{
    for (uint32_t i = 0; i < c->n_slots; i++) {
        struct stream *s = c->slots[i].stream;
        if (s != NULL && (s->opened >> m->index & 1) != 0 && list_empty(&s->calls) &&
            s->txn == NULL)
            close_and_renumber(s);
    }
}

enum err stream_open_at(struct stream *s, struct member *m, uint64_t now_ms)
{
    if ((s->opened >> m->index & 1) != 0)
        return ERR_OK;
    if (m->n_open >= STREAMS_AT_NODE && now_ms >= m->swept_ms + CALL_RETRY_MIN_MS) {
        close_idle(s->cluster, m);
        m->swept_ms = now_ms;
    }
    if (m->n_open >= STREAMS_AT_NODE)
        return err_fail(ERR_BUSY, "%u sessions of this program have something under way at %s",
                        m->n_open, m->address);
    s->opened |= 1ull << m->index;
    m->n_open++;
    return ERR_OK;
}

void streams_lost(struct lectern_cluster *c, struct member *m)
{
    m->n_open = 0;
    for (uint32_t i = 0; i < c->n_slots; i++)
        if (c->slots[i].stream != NULL)
            c->slots[i].stream->opened &= ~(1ull << m->index);
}

static void set_answered(struct stream *s, struct member *m)
{
    if (s->answered != NULL)
        s->answered->refs--;
    s->answered = m;
    if (m != NULL)
        m->refs++;
}

void stream_free(struct stream *s)
{
    if (s == NULL)
        return;
    CHECK(s->n_calls == 0 && list_empty(&s->calls));
    close_everywhere(s);
    list_remove(&s->in_txn);
    set_answered(s, NULL);
    cluster_remove_stream(s->cluster, s);
    free(s);
}

bool stream_in_transaction(const struct stream *s)
{
    return s->txn != NULL;
}

bool stream_has_lost(const struct stream *s)
{
    return s->txn_lost;
}

uint64_t stream_position(const struct stream *s)
{
    return s->position;
}

void stream_set_position(struct stream *s, uint64_t seq)
{
    s->position = seq;
}

bool stream_is_ahead(const struct stream *s)
{
    return s->position > s->seen && s->position > s->cluster->newest_seq;
}

int64_t stream_last_insert_rowid(const struct stream *s)
{
    return s->last_insert_rowid;
}

const char *stream_address(const struct stream *s)
{
    return s->answered == NULL ? "" : s->answered->address;
}

uint64_t stream_node(const struct stream *s)
{
    return s->answered == NULL ? 0 : s->answered->id;
}

const char *stream_server_version(const struct stream *s)
{
    return s->answered == NULL ? "" : s->answered->server;
}

const char *stream_sqlite_version(const struct stream *s)
{
    return s->answered == NULL ? "" : s->answered->sqlite;
}

/* --- the transaction -------------------------------------------------------------------------- */

void stream_answered(struct stream *s, struct member *m, bool in_transaction, uint64_t seq)
{
    if (s->answered != m)
        set_answered(s, m);
    s->seen = seq > s->seen ? seq : s->seen;
    s->position = seq > s->position ? seq : s->position;
    cluster_saw_seq(s->cluster, seq);
    if ((s->txn != NULL) == in_transaction)
        return;
    s->txn = in_transaction ? m : NULL;
    list_remove(&s->in_txn);
    if (in_transaction)
        list_push_back(&m->in_txn, &s->in_txn);
}

void stream_lose_transaction(struct stream *s)
{
    bool told = false; /* some call tells the program */
    s->txn = NULL;
    list_remove(&s->in_txn);
    LIST_EACH(l, &s->calls) {
        struct call *c = LIST_ENTRY(l, struct call, in_stream);
        if (c->state == CALL_QUEUED && c->kind == CALL_BEGIN && !c->savepoint)
            break;
        if (!call_is_of_session(c))
            continue;
        if (c->state == CALL_ENDING || c->state == CALL_OVER)
            continue; /* ended before this */
        told = true;
        if (c->state != CALL_SENT && c->state != CALL_STOPPING) /* that one's end is under way */
            call_fail(c, ERR_TXN_LOST, "the transaction that it belongs to was rolled back");
    }
    s->txn_lost = !told;
}

void stream_give_up(struct stream *s)
{
    bool in_transaction = s->txn != NULL;
    close_and_renumber(s);
    if (in_transaction)
        stream_lose_transaction(s);
}

void stream_next(struct stream *s)
{
    if (list_empty(&s->calls))
        return;
    struct call *c = LIST_ENTRY(s->calls.next, struct call, in_stream);
    if (c->state == CALL_QUEUED)
        call_advance(c);
}

/* --- rows ------------------------------------------------------------------------------------- */

static void pay(struct stream *s)
{
    struct member *m = s->owed.member;
    if (s->owed.bytes > 0 && s->owed.number == s->number && m->ready &&
        m->serial == s->owed.serial) {
        wire_put_credit(link_out(m->link), s->number, s->owed.bytes);
        if (!send_or_drop(m))
            return; /* kept: more memory later */
    }
    s->owed.bytes = 0;
}

void stream_credit(struct stream *s, struct member *m, uint64_t serial, uint32_t number,
                   uint32_t bytes)
{
    if (s->owed.member != m || s->owed.serial != serial || s->owed.number != number) {
        if (s->owed.member != NULL)
            pay(s);
        s->owed.member = m;
        s->owed.serial = serial;
        s->owed.number = number;
        s->owed.bytes = 0;
    }
    s->owed.bytes += bytes;
    if (s->owed.bytes >= WIRE_WINDOW / 2)
        pay(s);
}

/* --- frames ----------------------------------------------------------------------------------- */

enum err stream_frame(struct stream *s, struct member *m, struct wire_frame *f)
{
    struct call *c =
        list_empty(&s->calls) ? NULL : LIST_ENTRY(s->calls.next, struct call, in_stream);
    if (c != NULL && (c->state == CALL_SENT || c->state == CALL_STOPPING) && c->member == m &&
        c->serial == m->serial && c->request == f->id.request)
        return call_frame(c, f);
    if (f->type == WIRE_ROWS) /* of a call that has ended: only its bytes matter */
        stream_credit(s, m, m->serial, s->number, (uint32_t)rd_left(&f->body) + WIRE_HEAD_BYTES);
    return ERR_OK;
}
