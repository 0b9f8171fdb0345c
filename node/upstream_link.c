/* Room: node. Thread: loop.
 * Owns: the connections to leaders (node.leader_links), and the numbers of their streams.
 * Invariants: the streams of a connection are all alike, for what a session carries travels with
 *   each request: one that is done with is used again by another session; one that is given up is
 *   closed, and its number never used again; those that nobody needed for a while are given back.
 *   No more sessions have a place than the leader takes streams. What the leader has not taken is
 * in node.waiting, also when its session is gone.
 *
 *   connecting --> greeting --> ready --> lost
 *
 * Not here: what a session has there (upstream.c), what answers mean (upstream_answer.c). */
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/upstream_state.h"

#include <inttypes.h>
#include <stdlib.h>

/* Until WELCOME: a dead host must not hold a write longer than an election. */
#define CONNECT_MS 2000
#define DEPOSED_MS 2000 /* an answer may still come from a leader that is none any more */
#define QUIET_MS   1000 /* nothing came, though something is awaited: PING */
#define DEAD_MS    4000 /* and still nothing */
/* The same when another leader is known: most likely this one was replaced because it is silent. */
#define REPLACED_QUIET_MS 100
#define REPLACED_DEAD_MS  500

#define LATE_MS     5000 /* after its deadline a request is answered, or never */
#define SPARE_MS    2000 /* streams that nobody needed for so long are closed */
#define OWN_LINKS   16u  /* connections to a leader for one client each */
#define STREAMS_MAX (WIRE_STREAMS_MAX - 384) /* of one connection; the leader may count others */
#define NUMBERS_MAX (UINT32_MAX - WIRE_STREAMS_MAX) /* given to its streams: then another one */

/* --- streams --- */

void upstream_take_stream(struct leader_link *l, struct upstream *u)
{
    if (l->n_idle > 0) {
        u->stream = l->idle[--l->n_idle];
        l->n_spare = l->n_idle < l->n_spare ? l->n_idle : l->n_spare;
    } else {
        u->stream = ++l->newest;
        l->n_streams++;
    }
    table_put(&l->streams, u->stream, u->session);
}

void upstream_give_stream(struct leader_link *l, uint32_t stream)
{
    (void)table_take(&l->streams, stream);
    if (l->n_idle == l->idle_size) {
        l->idle_size = l->idle_size == 0 ? 16 : 2 * l->idle_size;
        l->idle = mem_realloc(l->idle, l->idle_size * sizeof *l->idle);
    }
    l->idle[l->n_idle++] = stream;
}

/* After a peak they would hold the leader's memory for ever. Another one costs no round trip. */
static void close_spare(struct leader_link *l, uint64_t now_ms) ON_LOOP
{
    struct buf b;
    if (now_ms < l->spare_ms + SPARE_MS)
        return;
    buf_init(&b, SIZE_MAX);
    for (uint32_t n = l->n_spare; n > 0; n--) {
        wire_put_close(&b, l->idle[--l->n_idle]);
        l->n_streams--;
    }
    l->n_spare = l->n_idle;
    l->spare_ms = now_ms;
    if (b.len > 0)
        upstream_put(l, &b);
    else
        buf_fini(&b);
}

void upstream_put(struct leader_link *l, struct buf *b)
{
    CHECK(buf_status(b) == ERR_OK);
    framed_send(l->framed, b);
    buf_fini(b);
}

/* --- the end --- */

static void free_link(struct leader_link *l) ON_LOOP
{
    CHECK(list_empty(&l->places));
    list_remove(&l->link);
    framed_close(l->framed, TCP_NOW);
    table_fini(&l->streams);
    free(l->idle);
    free(l);
}

static void lose(struct leader_link *l, const char *why) ON_LOOP
{
    struct list lost, *i;
    log_info("upstream", "lost leader=%" PRIu64 " streams=%u why=\"%s\"", l->leader_id,
             l->n_streams - l->n_idle, why);
    list_init(&lost);
    list_splice(&lost, &l->places);
    free_link(l);
    /* Nothing may reach the link from here on: first all places go. An open transaction's next
     * request finds none, and is told; what is left are requests that wait for an answer. */
    LIST_EACH(it, &lost) {
        struct upstream *u = LIST_ENTRY(it, struct upstream, link);
        u->session->upstream = NULL;
        if (u->session->at != AT_UPSTREAM) {
            list_remove(it);
            free(u);
        }
    }
    /* An answer may end a client's connection, if it was its last one: and with it sessions, but
     * none of these. */
    while ((i = list_pop_front(&lost)) != NULL) {
        struct upstream *u = LIST_ENTRY(i, struct upstream, link);
        struct session *s = u->session;
        bool sent = u->sent, answered = u->answered;
        free(u);
        upstream_answer_lost(s, sent, answered);
    }
}

/* --- what comes --- */

static void on_open(void *ctx)
{
    struct leader_link *l = ctx;
    struct buf b;
    thread_expect_loop();
    buf_init(&b, KIB(1));
    wire_put_hello(&b, "lecternd", "");
    upstream_put(l, &b);
    l->state = GREETING;
}

/* An address may be another node's by now, even another cluster's. */
static enum err check_welcome(const struct leader_link *l, struct wire_frame *f) ON_LOOP
{
    struct wire_welcome w;
    TRY(wire_get_welcome(f, &w));
    if (w.node_id != l->leader_id || w.cluster_id != l->node->config->cluster_id)
        return err_fail(ERR_PROTOCOL, "another node answers at its address");
    return ERR_OK;
}

static void on_welcome(struct leader_link *l, struct wire_frame *f) ON_LOOP
{
    if (check_welcome(l, f) != ERR_OK) {
        lose(l, err_text());
        return;
    }
    framed_limit(l->framed, WIRE_FRAME_MAX);
    l->state = READY;
    l->heard_ms = clock_mono_ms();
    l->bytes_read = framed_bytes_read(l->framed);
    struct list all, *i;
    list_init(&all);
    list_splice(&all, &l->places);
    while ((i = list_pop_front(&all)) != NULL) {
        list_push_back(&l->places, i);
        upstream_send_request(LIST_ENTRY(i, struct upstream, link)->session);
    }
}

static void on_frame(void *ctx, struct wire_frame *f)
{
    struct leader_link *l = ctx;
    thread_expect_loop();
    if (l->state == GREETING && f->type == WIRE_WELCOME) {
        on_welcome(l, f);
        return;
    }
    if (l->state == READY && f->type == WIRE_PONG)
        return;
    struct session *s = table_get(&l->streams, f->id.stream);
    bool closed = s == NULL && f->id.stream != 0 && f->id.stream <= l->newest;
    if (l->state == READY && closed)
        return; /* on its way when we closed the stream */
    if (l->state != READY || s == NULL || s->at != AT_UPSTREAM || !s->upstream->sent ||
        f->id.request != s->current->id.request)
        lose(l,
             f->type == WIRE_ERROR ? "it refuses the connection" : "a frame that nobody asked for");
    else if (upstream_take_frame(s, f) != ERR_OK)
        lose(l, err_text());
}

static void on_bad(void *ctx, enum err e, const uint8_t *p, size_t n)
{
    (void)p, (void)n;
    thread_expect_loop();
    (void)e;
    lose(ctx, err_text());
}

static void on_drain(void *ctx)
{
    (void)ctx;
}

static void on_close(void *ctx, const char *why)
{
    thread_expect_loop();
    lose(ctx, why);
}

/* --- the door --- */

static struct leader_link *open_link(struct node *n, uint64_t leader_id, uint64_t owner,
                                     const char *address) ON_LOOP
{
    struct leader_link *l = MEM_NEW(struct leader_link);
    struct framed_events events = {.ctx = l,
                                   .on_open = on_open,
                                   .on_frame = on_frame,
                                   .on_bad = on_bad,
                                   .on_drain = on_drain,
                                   .on_close = on_close,
                                   .waiting = &n->waiting};
    l->node = n;
    l->leader_id = leader_id;
    l->owner = owner;
    l->since_ms = l->spare_ms = clock_mono_ms();
    list_init(&l->places);
    table_init(&l->streams);
    l->framed = framed_connect(&n->loop, address, &events);
    list_push_back(&n->leader_links, &l->link);
    return l;
}

struct leader_link *upstream_link_to(struct node *n, uint64_t leader_id, uint64_t owner,
                                     const char *address)
{
    unsigned owned = 0;
    LIST_EACH(i, &n->leader_links) {
        struct leader_link *l = LIST_ENTRY(i, struct leader_link, link);
        owned += l->owner != 0;
        if (l->leader_id == leader_id && l->owner == owner && l->n_places < STREAMS_MAX &&
            l->newest < NUMBERS_MAX)
            return l;
    }
    return owner != 0 && owned >= OWN_LINKS ? NULL : open_link(n, leader_id, owner, address);
}

/* --- time --- */

/* Requests that cannot wait for the connection any longer, or for a late answer. */
static void end_late(struct leader_link *l, uint64_t now_ms) ON_LOOP
{
    struct list all, *i;
    list_init(&all);
    list_splice(&all, &l->places);
    while ((i = list_pop_front(&all)) != NULL) {
        struct upstream *u = LIST_ENTRY(i, struct upstream, link);
        struct session *s = u->session;
        bool sent = u->sent, answered = u->answered;
        list_push_back(&l->places, i);
        if (s->at != AT_UPSTREAM ||
            now_ms <= (sent ? s->current->deadline_ms + LATE_MS : s->give_up_ms))
            continue;
        upstream_close(s);
        upstream_answer_lost(s, sent, answered);
    }
}

static void ping(struct leader_link *l, uint64_t now_ms) ON_LOOP
{
    struct buf b;
    buf_init(&b, KIB(1));
    wire_put_ping(&b, 1);
    upstream_put(l, &b);
    l->pinged_ms = now_ms;
    l->bytes_taken = framed_bytes_taken(l->framed);
    l->ping_at = framed_bytes_sent(l->framed);
}

/* A slow network is not a dead one: the PING still waits behind bytes, and they move. */
static bool moves(struct leader_link *l) ON_LOOP
{
    uint64_t before = l->bytes_taken;
    l->bytes_taken = framed_bytes_taken(l->framed);
    return before < l->ping_at && l->bytes_taken != before;
}

/* True: the leader is alive, as far as is known. */
static bool listen_to(struct leader_link *l, bool replaced, uint64_t now_ms) ON_LOOP
{
    uint64_t bytes = framed_bytes_read(l->framed);
    uint64_t quiet = replaced ? REPLACED_QUIET_MS : QUIET_MS;
    uint64_t dead = replaced ? REPLACED_DEAD_MS : DEAD_MS;
    if (bytes != l->bytes_read || l->streams.n == 0) {
        l->bytes_read = bytes;
        l->heard_ms = now_ms;
        l->pinged_ms = 0;
    } else if (l->pinged_ms == 0 && now_ms > l->heard_ms + quiet) {
        ping(l, now_ms);
    } else if (l->pinged_ms != 0 && moves(l)) {
        l->pinged_ms = now_ms;
    }
    return l->pinged_ms == 0 || now_ms <= l->pinged_ms + dead;
}

static void look_after(struct leader_link *l, uint64_t now_ms) ON_LOOP
{
    bool deposed = l->leader_id != l->node->leader_id;
    bool replaced = deposed && l->node->leader_id != 0;
    l->deposed_ms = !deposed ? 0 : l->deposed_ms == 0 ? now_ms : l->deposed_ms;
    if ((deposed || l->owner != 0) && list_empty(&l->places)) {
        free_link(l);
    } else if (l->state < READY && now_ms > l->since_ms + CONNECT_MS) {
        lose(l, "the leader does not answer");
    } else if (l->state == READY && !listen_to(l, replaced, now_ms)) {
        lose(l, replaced ? "another node leads now, and the old leader is silent"
                         : "the leader is silent");
    } else if (deposed && now_ms > l->deposed_ms + DEPOSED_MS) {
        lose(l, "it leads no more");
    } else {
        close_spare(l, now_ms);
        end_late(l, now_ms);
    }
}

void upstream_timer(struct node *n, uint64_t now_ms)
{
    struct list all, *i;
    list_init(&all);
    list_splice(&all, &n->leader_links);
    while ((i = list_pop_front(&all)) != NULL) {
        list_push_back(&n->leader_links, i);
        look_after(LIST_ENTRY(i, struct leader_link, link), now_ms);
    }
}

void upstream_close_all(struct node *n)
{
    struct list *i;
    while ((i = n->leader_links.next) != &n->leader_links)
        free_link(LIST_ENTRY(i, struct leader_link, link));
}
