/* Room: node/http.   Thread: loop.   Owns: the streams at rest.
 * Invariants: a stream in the table runs nothing; its number is never used for another one.
 *
 * A cursor's baton is told before its batch runs. If the batch cannot leave a transaction behind,
 * the baton says that any other stream will do when this one is gone: so it does not expire. If it
 * only reads, another stream is as good, and no base_url is told.
 *
 * Not here: transactions' own limits (lane_txn.c, read_txn.c). */
#include "node/http/hrana_held.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "node/http/hrana_state.h"
#include "node/table.h"

#include <openssl/rand.h>
#include <stdlib.h>

#define HELD_MAX     4096u   /* at rest */
#define HELD_IDLE_MS 600000u /* texts alone */
#define HELD_LOST_MS 60000u  /* for the client to hear that its transaction was rolled back */

struct held {
    struct list link; /* the one that rests longest first */
    struct hrana_stream *stream;
    uint64_t number;
    uint32_t count; /* of answers: the one that the client's baton has */
    uint64_t since_ms;
};

struct hrana_held {
    struct node *node;
    uint64_t process;   /* random: numbers of another process mean nothing here */
    uint64_t last;      /* number */
    struct list rest;   /* struct held */
    struct table table; /* the same, by the low half of their numbers */
};

struct hrana_held *hrana_held_new(struct node *n)
{
    struct hrana_held *h = MEM_NEW(struct hrana_held);
    h->node = n;
    CHECK(RAND_bytes((unsigned char *)&h->process, sizeof h->process) == 1);
    list_init(&h->rest);
    table_init(&h->table);
    return h;
}

static struct hrana_stream *remove_held(struct hrana_held *h, struct held *e) ON_LOOP
{
    struct hrana_stream *s = e->stream;
    list_remove(&e->link);
    (void)table_take(&h->table, (uint32_t)e->number);
    free(e);
    return s;
}

void hrana_held_clear(struct hrana_held *h)
{
    LIST_EACH(i, &h->rest)
        hrana_stream_close(remove_held(h, LIST_ENTRY(i, struct held, link)));
}

void hrana_held_free(struct hrana_held *h)
{
    if (h == NULL)
        return;
    hrana_held_clear(h);
    table_fini(&h->table);
    free(h);
}

static struct hrana_error *expired(const char *why)
{
    return hrana_error_new("STREAM_EXPIRED", "The stream has expired: %s", why);
}

static struct hrana_error *take_held(struct hrana_held *h, const struct baton *b,
                                     struct hrana_stream **out) ON_LOOP
{
    if (b->node_id != h->node->config->id)
        return expired("it has a transaction, or stored texts, at another node: use its base_url");
    if (b->process != h->process)
        return expired(
            "this node was started anew: its transaction was rolled back, and its stored "
            "texts are gone");
    struct held *e = table_get(&h->table, (uint32_t)b->stream);
    if (e == NULL || e->number != b->stream)
        return expired("it was not used for too long, or is in use");
    if (e->count != b->count)
        return hrana_error_new("BATON_REUSED", "this baton was used already: a request that was "
                                               "sent twice is run once");
    *out = remove_held(h, e);
    (*out)->number = b->stream;
    (*out)->count = b->count;
    (*out)->reserved = false;
    return NULL;
}

static bool is_here(const struct hrana_held *h, const struct baton *b) ON_LOOP
{
    return b->node_id == h->node->config->id && b->process == h->process &&
           table_get(&h->table, (uint32_t)b->stream) != NULL;
}

struct hrana_error *hrana_held_take(struct hrana_held *h, const struct hrana_text *baton,
                                    struct hrana_stream **out)
{
    struct hrana_memory memory = {.foreign_keys = true};
    struct baton b;
    if (baton->p != NULL) {
        if (!baton_read(&h->node->keys, baton->p, baton->n, &b))
            return hrana_error_new("BATON_INVALID",
                                   "this is not a baton of this cluster, or of this moment");
        if (b.held && (!b.or_bare || is_here(h, &b)))
            return take_held(h, &b, out);
        memory = (struct hrana_memory){.seq = b.seq,
                                       .unsure = b.held,
                                       .last_insert_rowid = b.last_insert_rowid,
                                       .foreign_keys = b.foreign_keys};
    }
    *out = hrana_stream_open(h->node, &memory);
    return NULL;
}

/* For one more: the one that rests longest and has no transaction. */
static void make_place(struct hrana_held *h) ON_LOOP
{
    if (h->table.n < HELD_MAX)
        return;
    LIST_EACH(i, &h->rest) {
        struct held *e = LIST_ENTRY(i, struct held, link);
        if (!hrana_stream_is_autocommit(e->stream))
            continue;
        hrana_stream_close(remove_held(h, e));
        return;
    }
}

/* Where a balancer cannot send clients elsewhere; NULL: we were not told. Only with what another
 * node cannot go on with, and never the leader's: there are drivers that go there for good, and are
 * lost with it. */
static const char *own_url(const struct hrana_held *h) ON_LOOP
{
    const char *url = h->node->config->http_url;
    return url[0] == 0 ? NULL : url;
}

static void choose_number(struct hrana_held *h, struct hrana_stream *s) ON_LOOP
{
    while (s->number == 0 || table_get(&h->table, (uint32_t)s->number) != NULL)
        s->number = ++h->last;
}

/* The baton of S as one that is held here. */
static struct baton baton_of(const struct hrana_held *h, const struct hrana_stream *s) ON_LOOP
{
    struct hrana_memory m = hrana_stream_memory(s);
    return (struct baton){.held = true,
                          .node_id = h->node->config->id,
                          .process = h->process,
                          .stream = s->number,
                          .count = s->count + 1,
                          .foreign_keys = m.foreign_keys,
                          .seq = m.seq,
                          .last_insert_rowid = m.last_insert_rowid};
}

static void hold(struct hrana_held *h, struct hrana_stream *s) ON_LOOP
{
    make_place(h);
    struct held *e = MEM_NEW(struct held);
    *e = (struct held){
        .stream = s, .number = s->number, .count = s->count + 1, .since_ms = clock_mono_ms()};
    list_push_back(&h->rest, &e->link);
    table_put(&h->table, (uint32_t)e->number, e);
}

void hrana_held_reserve(struct hrana_held *h, struct hrana_stream *s,
                        const struct hrana_batch *batch, char baton[BATON_TEXT_MAX],
                        const char **base_url)
{
    choose_number(h, s);
    struct baton b = baton_of(h, s);
    enum hrana_trace trace = hrana_stream_is_bare(s) ? hrana_trace_of(batch) : HRANA_LEAVES_ANY;
    b.or_bare = trace != HRANA_LEAVES_ANY;
    s->reserved = true;
    *base_url = trace == HRANA_LEAVES_NOTHING ? NULL : own_url(h);
    baton_write(&h->node->keys, &b, baton);
}

/* A bare stream that may have seen more than its baton can say goes on saying so. */
void hrana_held_give(struct hrana_held *h, struct hrana_stream *s, char baton[BATON_TEXT_MAX],
                     const char **base_url)
{
    bool unsure = hrana_stream_memory(s).unsure;
    bool held = !hrana_stream_is_bare(s) || s->reserved;
    if (held && !s->reserved)
        choose_number(h, s);
    struct baton b = baton_of(h, s);
    *base_url = NULL;
    if (!held)
        b = (struct baton){.held = unsure,
                           .or_bare = unsure,
                           .foreign_keys = b.foreign_keys,
                           .seq = b.seq,
                           .last_insert_rowid = b.last_insert_rowid};
    if (held) {
        *base_url = own_url(h);
        hold(h, s);
    } else {
        hrana_stream_close(s);
    }
    baton_write(&h->node->keys, &b, baton);
}

void hrana_held_timer(struct hrana_held *h, uint64_t now_ms)
{
    if (h == NULL)
        return; /* the node stops */
    const struct config *c = h->node->config;
    LIST_EACH(i, &h->rest) {
        struct held *e = LIST_ENTRY(i, struct held, link);
        uint64_t limit =
            hrana_stream_is_autocommit(e->stream) ? HELD_IDLE_MS : c->txn_idle_ms + HELD_LOST_MS;
        if (now_ms > e->since_ms + limit)
            hrana_stream_close(remove_held(h, e));
    }
}

size_t hrana_held_count(const struct hrana_held *h)
{
    return h->table.n;
}
