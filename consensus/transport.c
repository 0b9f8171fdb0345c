/* Room: consensus. Thread: loop.
 * Owns: the listener, the peers, their connections.
 * Invariants: only peers that were named (cns_transport_set_peer) get in, one connection each, the
 *             newest, and only with the files that they were first met with; no callback but DONE
 *             after cns_transport_close.
 * Not here: connections (peer_in.c, peer_out.c), bytes (peer_wire.c, message.c), what is remembered
 *           of the members (peer_book.c).
 *
 * Why one connection a direction, and not one a pair: each has one owner, who dials, writes and
 * judges when to give it up; there is no tie to break when both dial at once, and no half of a
 * connection to hand over. The price, a second socket a pair, is small; TCP_NODELAY on both sides
 * keeps delayed acknowledgements out of the latency.
 *
 * Messages are queued and written together: after the callbacks of a poll (uv_check) and before the
 * next one blocks (uv_prepare, for what timers sent). */
#include "consensus/transport.h"

#include "base/check.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "consensus/peer_book.h"
#include "consensus/peer_in.h"
#include "consensus/peer_out.h"
#include "consensus/peer_socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Connections that have not greeted yet: each costs under 1 KiB and 2 s. */
#define STRANGERS_MAX  32u
#define BACKLOG        128
#define REFUSAL_LOG_MS 1000u /* one line about refused connections in so long */
#define BYTES_HEAD     9u    /* of a PEER_FRAME_BYTES: type, checksum of the body */

struct peer {
    struct list link;
    uint64_t id;
    char *address;
    struct peer_out *out;
    struct peer_in *in; /* NULL: it is not connected to us */
    bool dirty;         /* has frames to flush */
    bool ask_again;     /* its answer may be judged now */
};

struct cns_transport {
    struct cns_transport_config c;
    uv_loop_t *loop;
    uv_tcp_t listener;
    uv_prepare_t before_poll;
    uv_check_t after_poll;
    struct peer_book *book;
    struct peer_in_handler in_handler;
    struct list peers, strangers, greeted; /* greeted: also those of removed peers, closing */
    unsigned n_strangers;
    unsigned open; /* handles and connections that still exist */
    unsigned port;
    struct buf head;                 /* scratch for encoding */
    char sender[PEER_HOST_MAX + 16]; /* address that a message is given on with */
    uint64_t refusal_logged_ms, refusals_hidden;
    bool closing;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

static struct peer *find(const struct cns_transport *t, uint64_t id)
{
    LIST_EACH(it, &t->peers) {
        struct peer *p = LIST_ENTRY(it, struct peer, link);
        if (p->id == id)
            return p;
    }
    return NULL;
}

/* Something that was open is closed. */
static void one_less(struct cns_transport *t)
{
    CHECK(t->open > 0);
    if (--t->open > 0 || !t->closing)
        return;
    void (*closed)(void *ctx) = t->closed;
    void *ctx = t->closed_ctx;
    CHECK(list_empty(&t->peers) && list_empty(&t->strangers) && list_empty(&t->greeted));
    buf_fini(&t->head);
    free(t);
    if (closed != NULL)
        closed(ctx);
}

/* --- receiving -------------------------------------------------------------------------------- */

/* What the book says about ID with INCARNATION, as an error with its sentence. False: later. */
static bool judge_member(const struct cns_transport *t, uint64_t id, uint64_t incarnation,
                         enum err *code, enum peer_standing *standing) ON_LOOP
{
    char sentence[ERR_TEXT_MAX];
    *code = ERR_OK;
    *standing = PEER_STANDING_NONE;
    if (incarnation == 0) {
        *code = err_fail(ERR_PROTOCOL, "node %llu does not say which files it has",
                         (unsigned long long)id);
        return true;
    }
    switch (peer_book_meet(t->book, id, incarnation)) {
    case PEER_KNOWN:
        return true;
    case PEER_WAITS:
        return false;
    case PEER_LOST_FILES:
        *standing = PEER_STANDING_LOST_FILES;
        break;
    case PEER_REMOVED:
        *standing = PEER_STANDING_REMOVED;
        break;
    case PEER_NO_ROOM:
        *code = err_fail(ERR_CONFIG, "too many ids were used in this cluster to remember one more");
        return true;
    }
    peer_book_sentence(sentence, sizeof sentence, id, *standing);
    *code = err_fail(ERR_CONFIG, "%s", sentence);
    return true;
}

/* Whether whoever sent H may be judged as a member. */
static enum err judge_hello(const struct cns_transport *t, const struct peer_hello *h)
{
    unsigned long long self = t->c.id;
    if (h->version != PEER_PROTOCOL_VERSION)
        return err_fail(ERR_VERSION, "node %llu speaks peer protocol %u, you speak %u", self,
                        PEER_PROTOCOL_VERSION, h->version);
    if (h->cluster_id != t->c.cluster_id)
        return err_fail(ERR_CONFIG, "node %llu belongs to another cluster", self);
    if (h->to != t->c.id)
        return err_fail(ERR_CONFIG, "this is node %llu, not node %llu: check the addresses", self,
                        (unsigned long long)h->to);
    if (h->from == t->c.id)
        return err_fail(ERR_CONFIG,
                        "node %llu does not take itself for a peer: two nodes with one id?", self);
    if (h->frame_max < PEER_FRAME_MAX)
        return err_fail(ERR_VERSION, "frames up to %llu bytes are needed, you take %u",
                        PEER_FRAME_MAX, h->frame_max);
    return ERR_OK;
}

static bool judge(void *ctx, const struct peer_hello *h, struct peer_answer *a)
{
    const struct cns_transport *t = ctx;
    thread_expect_loop();
    a->code = judge_hello(t, h);
    if (a->code != ERR_OK)
        return true;
    if (find(t, h->from) == NULL && !peer_book_removed(t->book, h->from)) {
        a->code = err_fail(ERR_FORBIDDEN, "node %llu knows no member %llu",
                           (unsigned long long)t->c.id, (unsigned long long)h->from);
        return true;
    }
    if (!judge_member(t, h->from, h->incarnation, &a->code, &a->standing))
        return false;
    if (a->code == ERR_OK)
        a->incarnation = t->c.incarnation;
    return true;
}

static void on_greeted(void *ctx, struct peer_in *in, uint64_t from)
{
    thread_expect_loop();
    struct cns_transport *t = ctx;
    struct peer *p = find(t, from);
    CHECK(p != NULL); /* judged a moment ago */
    list_remove(peer_in_link(in));
    t->n_strangers--;
    list_push_back(&t->greeted, peer_in_link(in));
    if (p->in != NULL) /* the old one is half-open, or its other end has given it up */
        peer_in_close(p->in);
    p->in = in;
}

static enum err take_bytes(struct cns_transport *t, uint64_t from, const struct peer_frame_head *f,
                           const uint8_t *head, const uint8_t *body)
{
    if (f->head_n != BYTES_HEAD || f->body_n > CNS_TRANSPORT_BYTES_MAX)
        return err_fail(ERR_PROTOCOL, "a message of bytes with wrong sizes");
    if (hash64(body, f->body_n, 0) != get_le64(head + 1))
        return err_fail(ERR_PROTOCOL, "a message of bytes that fails its checksum");
    t->c.on_bytes(t->c.ctx, from, head[0], body, f->body_n);
    return ERR_OK;
}

static enum err on_frame(void *ctx, struct peer_in *in, uint64_t from,
                         const struct peer_frame_head *f, const uint8_t *head, const uint8_t *body)
{
    struct cns_transport *t = ctx;
    const struct peer *p = find(t, from);
    if (t->closing || p == NULL || p->in != in)
        return ERR_OK; /* replaced or removed: closing already */
    if (f->type == PEER_FRAME_BYTES)
        return take_bytes(t, from, f, head, body);
    struct cns_message m;
    TRY(cns_message_decode(head, f->head_n, body, f->body_n, &m));
    m.m.server_id = from;
    /* A copy: the handler may give the peer a new address meanwhile. */
    (void)snprintf(t->sender, sizeof t->sender, "%s", p->address);
    m.m.server_address = t->sender;
    t->c.on_message(t->c.ctx, from, &m);
    cns_message_fini(&m);
    return ERR_OK;
}

static void on_refused(void *ctx, const char *address, uint64_t from, const char *reason)
{
    struct cns_transport *t = ctx;
    uint64_t now = uv_now(t->loop);
    if (t->refusal_logged_ms != 0 && now - t->refusal_logged_ms < REFUSAL_LOG_MS) {
        t->refusals_hidden++;
        return;
    }
    log_warn("consensus", "peer_refused address=%s says_id=%llu reason=\"%s\" not_logged=%llu",
             address, (unsigned long long)from, reason, (unsigned long long)t->refusals_hidden);
    t->refusal_logged_ms = now == 0 ? 1 : now;
    t->refusals_hidden = 0;
}

static void on_in_closed(void *ctx, struct peer_in *in)
{
    thread_expect_loop();
    struct cns_transport *t = ctx;
    struct peer *p = peer_in_from(in) == 0 ? NULL : find(t, peer_in_from(in));
    if (p != NULL && p->in == in)
        p->in = NULL;
    if (peer_in_from(in) == 0)
        t->n_strangers--;
    list_remove(peer_in_link(in));
    one_less(t);
}

static void on_connection(uv_stream_t *s, int status)
{
    thread_expect_loop();
    struct cns_transport *t = s->data;
    struct peer_in *in;
    if (status < 0 || t->closing) {
        if (status < 0)
            on_refused(t, "?", 0, uv_strerror(status));
        return;
    }
    if (peer_in_accept(s, &t->in_handler, &in) != ERR_OK) {
        on_refused(t, "?", 0, err_text());
        return;
    }
    t->open++;
    t->n_strangers++;
    list_push_back(&t->strangers, peer_in_link(in));
    if (t->n_strangers > STRANGERS_MAX) {
        on_refused(t, "?", 0, "too many connections that have not greeted");
        peer_in_close(in);
    }
}

/* --- sending ---------------------------------------------------------------------------------- */

static void flush_all(struct cns_transport *t) ON_LOOP
{
    /* on_peer(down) may change the list: begin again after each. */
    for (bool again = true; again;) {
        again = false;
        LIST_EACH(it, &t->peers) {
            struct peer *p = LIST_ENTRY(it, struct peer, link);
            if (!p->dirty)
                continue;
            p->dirty = false;
            again = true;
            peer_out_flush(p->out);
            break;
        }
    }
}

static void on_before_poll(uv_prepare_t *h)
{
    thread_expect_loop();
    flush_all(h->data);
}

static void on_after_poll(uv_check_t *h)
{
    thread_expect_loop();
    flush_all(h->data);
}

void cns_transport_send(struct cns_transport *t, uint64_t to, const struct raft_message *m,
                        const struct cns_item *items, unsigned n_items)
{
    struct peer *p = t->closing ? NULL : find(t, to);
    if (p == NULL || peer_out_queued(p->out) == UINT64_MAX)
        return;
    buf_reset(&t->head);
    if (cns_message_encode(&t->head, m, items, n_items) != ERR_OK) {
        log_error("consensus", "message_dropped peer=%llu reason=\"%s\"", (unsigned long long)to,
                  err_text());
        return;
    }
    if (peer_out_send(p->out, PEER_FRAME_RAFT, t->head.data, t->head.len, items, n_items, NULL, 0))
        p->dirty = true;
}

void cns_transport_send_bytes(struct cns_transport *t, uint64_t to, uint8_t type, const uint8_t *b,
                              size_t n)
{
    uint8_t head[BYTES_HEAD];
    struct peer *p = t->closing ? NULL : find(t, to);
    if (p == NULL)
        return;
    if (n > CNS_TRANSPORT_BYTES_MAX) {
        log_error("consensus", "message_dropped peer=%llu reason=\"%zu bytes are over the limit\"",
                  (unsigned long long)to, n);
        return;
    }
    head[0] = type;
    set_le64(head + 1, hash64(b, n, 0));
    if (peer_out_send(p->out, PEER_FRAME_BYTES, head, sizeof head, NULL, 0, b, n))
        p->dirty = true;
}

uint64_t cns_transport_queued(const struct cns_transport *t, uint64_t to)
{
    const struct peer *p = find(t, to);
    return p == NULL ? UINT64_MAX : peer_out_queued(p->out);
}

/* --- peers ------------------------------------------------------------------------------------ */

static void on_out_change(void *ctx, uint64_t id, bool up)
{
    struct cns_transport *t = ctx;
    if (!t->closing && t->c.on_peer != NULL)
        t->c.on_peer(t->c.ctx, id, up);
}

static bool on_out_judge(void *ctx, uint64_t id, uint64_t incarnation, enum err *code)
{
    enum peer_standing standing;
    thread_expect_loop();
    return judge_member(ctx, id, incarnation, code, &standing);
}

static void on_out_refused(void *ctx, uint64_t id, enum peer_standing standing)
{
    struct cns_transport *t = ctx;
    char sentence[ERR_TEXT_MAX];
    int n = snprintf(sentence, sizeof sentence, "node %llu says: ", (unsigned long long)id);
    peer_book_sentence(sentence + n, sizeof sentence - (size_t)n, t->c.id, standing);
    if (!t->closing && t->c.on_refused != NULL)
        t->c.on_refused(t->c.ctx, id, ERR_CONFIG, sentence);
}

/* Who waited for the book is judged again. */
static void on_book_durable(void *ctx)
{
    struct cns_transport *t = ctx;
    thread_expect_loop();
    if (t->closing)
        return;
    LIST_EACH(it, &t->strangers)
        peer_in_judge_again(peer_in_of(it));
    LIST_EACH(it, &t->peers)
        LIST_ENTRY(it, struct peer, link)->ask_again = true;
    /* on_peer may change the list: begin again after each. */
    for (bool again = true; again;) {
        again = false;
        LIST_EACH(it, &t->peers) {
            struct peer *p = LIST_ENTRY(it, struct peer, link);
            if (!p->ask_again)
                continue;
            p->ask_again = false;
            again = true;
            peer_out_judge_again(p->out);
            break;
        }
    }
}

static void on_out_closed(void *ctx)
{
    one_less(ctx);
}

static enum err move_peer(struct peer *p, const char *address) ON_LOOP
{
    struct peer_address parsed;
    TRY(peer_address_parse(address, &parsed));
    char *copy = mem_strdup(address); /* ADDRESS may be our own string */
    free(p->address);
    p->address = copy;
    /* Last: on_peer(down) may remove the peer. */
    return peer_out_set_address(p->out, copy);
}

enum err cns_transport_set_peer(struct cns_transport *t, uint64_t id, const char *address)
{
    CHECK(!t->closing && id > 0);
    if (id == t->c.id)
        return ERR_OK;
    struct peer *p = find(t, id);
    if (p != NULL)
        return move_peer(p, address);
    if (peer_book_removed(t->book, id))
        return err_fail(ERR_CONFIG,
                        "node %llu was removed from the cluster: ids are not used again",
                        (unsigned long long)id);
    struct peer_out_config c = {.loop = t->loop,
                                .cluster_id = t->c.cluster_id,
                                .self = t->c.id,
                                .peer = id,
                                .incarnation = t->c.incarnation,
                                .ctx = t,
                                .on_change = on_out_change,
                                .judge = on_out_judge,
                                .on_refused = on_out_refused};
    struct peer_out *out;
    TRY(peer_out_open(&c, address, &out));
    p = MEM_NEW(struct peer);
    p->id = id;
    p->address = mem_strdup(address);
    p->out = out;
    t->open++;
    list_push_back(&t->peers, &p->link);
    return ERR_OK;
}

bool cns_transport_removed(const struct cns_transport *t, uint64_t id)
{
    return peer_book_removed(t->book, id);
}

bool cns_transport_met(const struct cns_transport *t, uint64_t id)
{
    return peer_book_met(t->book, id);
}

static void forget_peer(struct cns_transport *t, struct peer *p) ON_LOOP
{
    list_remove(&p->link);
    if (p->in != NULL)
        peer_in_close(p->in);
    peer_out_close(p->out, on_out_closed, t);
    free(p->address);
    free(p);
}

void cns_transport_remove_peer(struct cns_transport *t, uint64_t id)
{
    struct peer *p = find(t, id);
    if (t->closing)
        return;
    peer_book_remove(t->book, id);
    if (p == NULL)
        return;
    bool was_up = peer_out_queued(p->out) != UINT64_MAX;
    forget_peer(t, p);
    if (was_up)
        on_out_change(t, id, false);
}

/* --- life ------------------------------------------------------------------------------------- */

static enum err resolve(const char *text, struct addrinfo **out)
{
    struct peer_address a;
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    TRY(peer_address_parse(text, &a));
    int rc = getaddrinfo(a.host, a.port, &hints, out);
    if (rc != 0)
        return err_fail(ERR_CONFIG, "cannot resolve the listen address %s: %s", text,
                        gai_strerror(rc));
    return ERR_OK;
}

static enum err listen_on(struct cns_transport *t, const struct sockaddr *address)
{
    struct sockaddr_storage bound;
    int n = sizeof bound;
    memset(&bound, 0, sizeof bound);
    int rc = uv_tcp_bind(&t->listener, address, 0);
    if (rc == 0)
        rc = uv_listen((uv_stream_t *)&t->listener, BACKLOG, on_connection);
    if (rc == 0)
        rc = uv_tcp_getsockname(&t->listener, (struct sockaddr *)&bound, &n);
    if (rc != 0)
        return err_fail(ERR_IO, "cannot listen for peers on %s (peer-listen): %s", t->c.listen,
                        uv_strerror(rc));
    t->port = bound.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&bound)->sin6_port)
                                          : ntohs(((struct sockaddr_in *)&bound)->sin_port);
    return ERR_OK;
}

static void on_handle_closed(uv_handle_t *h)
{
    one_less(h->data);
}

static void start_flushing(struct cns_transport *t)
{
    CHECK(uv_prepare_init(t->loop, &t->before_poll) == 0 &&
          uv_check_init(t->loop, &t->after_poll) == 0); /* cannot fail */
    t->before_poll.data = t;
    t->after_poll.data = t;
    CHECK(uv_prepare_start(&t->before_poll, on_before_poll) == 0 &&
          uv_check_start(&t->after_poll, on_after_poll) == 0);
    t->open += 2;
}

static struct cns_transport *transport_new(uv_loop_t *loop, const struct cns_transport_config *c)
{
    struct cns_transport *t = MEM_NEW(struct cns_transport);
    t->c = *c;
    t->loop = loop;
    list_init(&t->peers);
    list_init(&t->strangers);
    list_init(&t->greeted);
    buf_init(&t->head, CNS_MESSAGE_HEAD_MAX);
    t->in_handler = (struct peer_in_handler){.ctx = t,
                                             .judge = judge,
                                             .on_greeted = on_greeted,
                                             .on_frame = on_frame,
                                             .on_refused = on_refused,
                                             .on_closed = on_in_closed};
    return t;
}

static void on_book_closed(void *ctx)
{
    one_less(ctx);
}

/* Nothing is made when it fails. */
static enum err open_book(struct cns_transport *t) ON_LOOP
{
    struct peer_book_config c = {.loop = t->loop,
                                 .dir = t->c.dir,
                                 .cluster_id = t->c.cluster_id,
                                 .self = t->c.id,
                                 .incarnation = t->c.incarnation,
                                 .ctx = t,
                                 .on_durable = on_book_durable};
    TRY(peer_book_open(&c, &t->book));
    int rc = uv_tcp_init(t->loop, &t->listener);
    CHECK(rc == 0); /* makes no socket yet: cannot fail */
    t->listener.data = t;
    t->open = 2; /* the book, the listener */
    return ERR_OK;
}

enum err cns_transport_open(uv_loop_t *loop, const struct cns_transport_config *c,
                            struct cns_transport **out)
{
    struct addrinfo *all;
    CHECK(c->id > 0 && c->cluster_id > 0 && c->incarnation > 0);
    CHECK(c->on_message != NULL && c->on_bytes != NULL);
    TRY(resolve(c->listen, &all));
    struct cns_transport *t = transport_new(loop, c);
    enum err e = open_book(t);
    if (e != ERR_OK) {
        freeaddrinfo(all);
        buf_fini(&t->head);
        free(t);
        return e;
    }
    e = listen_on(t, all->ai_addr);
    freeaddrinfo(all);
    if (e != ERR_OK) { /* freed in the loop's time */
        cns_transport_close(t, NULL, NULL);
        return e;
    }
    start_flushing(t);
    t->c.listen = t->c.dir = NULL; /* the caller's */
    *out = t;
    return ERR_OK;
}

unsigned cns_transport_port(const struct cns_transport *t)
{
    return t->port;
}

void cns_transport_close(struct cns_transport *t, void (*done)(void *ctx), void *ctx)
{
    CHECK(!t->closing);
    t->closing = true;
    t->closed = done;
    t->closed_ctx = ctx;
    peer_book_close(t->book, on_book_closed, t);
    uv_close((uv_handle_t *)&t->listener, on_handle_closed);
    if (t->before_poll.data != NULL) {
        uv_close((uv_handle_t *)&t->before_poll, on_handle_closed);
        uv_close((uv_handle_t *)&t->after_poll, on_handle_closed);
    }
    LIST_EACH(it, &t->strangers)
        peer_in_close(peer_in_of(it));
    LIST_EACH(it, &t->greeted)
        peer_in_close(peer_in_of(it));
    LIST_EACH(it, &t->peers)
        forget_peer(t, LIST_ENTRY(it, struct peer, link));
}
