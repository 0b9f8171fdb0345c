/* Room: tests. The virtual network: one connection each way between two members, in order, nothing
 * twice; what is under way is lost when the connection breaks. Owns: packets until delivered. */
#include "base/check.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#define RECONNECT_US 5000u

struct connection {
    bool up, cut;
    uint64_t epoch;   /* moves when it breaks */
    uint64_t last_us; /* when the last packet arrives: the next one not before */
    uint64_t free_us; /* when the wire has taken all that was sent */
    uint64_t per_ms;  /* bandwidth; 0: unlimited */
};

struct packet {
    uint64_t from, to, epoch;
    uint8_t type; /* 0: a message of the core */
    struct buf head, body;
    bool raw;
    struct cns_message message; /* raw */
};

struct sim_net {
    struct connection c[SIM_MEMBERS_MAX + 1][SIM_MEMBERS_MAX + 1];
    sim_filter filter;
    void *filter_ctx;
};

struct sim_net *sim_net_new(struct sim *s)
{
    (void)s;
    return MEM_NEW(struct sim_net);
}

void sim_net_free(struct sim_net *net)
{
    free(net);
}

void sim_set_filter(struct sim *s, sim_filter filter, void *ctx)
{
    sim_net_of(s)->filter = filter;
    sim_net_of(s)->filter_ctx = ctx;
}

void sim_net_packet_drop(void *packet)
{
    struct packet *p = packet;
    buf_fini(&p->head);
    buf_fini(&p->body);
    if (p->raw)
        cns_message_fini(&p->message);
    free(p);
}

static struct connection *connection(struct sim *s, uint64_t from, uint64_t to)
{
    CHECK(from > 0 && from <= SIM_MEMBERS_MAX && to > 0 && to <= SIM_MEMBERS_MAX);
    return &sim_net_of(s)->c[from][to];
}

static void post(struct sim *s, struct packet *p, uint64_t bytes)
{
    struct connection *c = connection(s, p->from, p->to);
    const struct sim_options *o = sim_opts(s);
    uint64_t now = sim_now_us(s);
    uint64_t at = now + o->net_us_min + rng_below(sim_rng(s), o->net_us_max - o->net_us_min + 1);
    if (c->per_ms > 0) {
        c->free_us = (c->free_us > now ? c->free_us : now) + bytes * 1000 / c->per_ms;
        at += c->free_us - now;
    }
    if (at <= c->last_us)
        at = c->last_us + 1; /* in order */
    c->last_us = at;
    p->epoch = c->epoch;
    sim_post(s, at - now, SIM_PACKET, p->to, 0, 0, p);
}

static struct packet *packet_new(struct sim_member *m, uint64_t to, uint8_t type)
{
    struct packet *p = MEM_NEW(struct packet);
    p->from = m->id;
    p->to = to;
    p->type = type;
    buf_init(&p->head, PEER_FRAME_MAX);
    buf_init(&p->body, PEER_FRAME_MAX);
    return p;
}

static void fill_raw(struct packet *p, const struct raft_message *msg, const struct cns_item *items,
                     unsigned n)
{
    p->raw = true;
    p->message.m = *msg;
    p->message.n_items = n;
    p->message.items = mem_alloc((n + 1) * sizeof *items);
    for (unsigned i = 0; i < n; i++) {
        p->message.items[i] = items[i];
        if (items[i].payload != NULL)
            (void)cns_payload_ref(items[i].payload);
    }
}

void sim_net_send(struct sim_member *m, uint64_t to, const struct raft_message *msg,
                  const struct cns_item *items, unsigned n)
{
    struct sim_net *net = sim_net_of(m->sim);
    struct connection *c = connection(m->sim, m->id, to);
    if (net->filter != NULL && !net->filter(net->filter_ctx, m->id, to, msg, items, n))
        return;
    if (!c->up || c->cut)
        return;
    struct packet *p = packet_new(m, to, 0);
    uint64_t bytes = 64;
    if (sim_opts(m->sim)->raw) {
        fill_raw(p, msg, items, n);
        for (unsigned i = 0; i < n; i++)
            bytes += items[i].payload == NULL ? 0 : items[i].payload->len;
    } else {
        if (cns_message_encode(&p->head, msg, items, n) != ERR_OK)
            sim_fail(m->sim, "a message does not encode: %s", err_text());
        for (unsigned i = 0; i < n; i++)
            if (items[i].payload != NULL)
                buf_put(&p->body, items[i].payload->data, items[i].payload->len);
        CHECK(buf_status(&p->body) == ERR_OK);
        bytes += p->head.len + p->body.len;
    }
    post(m->sim, p, bytes);
}

void sim_net_send_bytes(struct sim_member *m, uint64_t to, uint8_t type, const uint8_t *data,
                        size_t n)
{
    struct connection *c = connection(m->sim, m->id, to);
    CHECK(type != 0);
    if (!c->up || c->cut)
        return;
    struct packet *p = packet_new(m, to, type);
    buf_put(&p->body, data, n);
    post(m->sim, p, n + 16);
}

uint64_t sim_net_queued(struct sim_member *m, uint64_t to)
{
    const struct connection *c = connection(m->sim, m->id, to);
    uint64_t now = sim_now_us(m->sim);
    if (!c->up)
        return UINT64_MAX;
    return c->per_ms > 0 && c->free_us > now ? (c->free_us - now) * c->per_ms / 1000 : 0;
}

static void deliver(struct sim_member *m, struct packet *p)
{
    thread_expect_loop();
    if (p->type != 0) {
        driver_receive_bytes(m->d, p->from, p->type, p->body.data, p->body.len);
        return;
    }
    if (p->raw) {
        driver_receive(m->d, p->from, &p->message);
        return;
    }
    struct cns_message in;
    if (cns_message_decode(p->head.data, p->head.len, p->body.data, p->body.len, &in) != ERR_OK)
        sim_fail(m->sim, "a message does not decode: %s", err_text());
    driver_receive(m->d, p->from, &in);
    cns_message_fini(&in);
}

void sim_net_packet_event(struct sim *s, void *packet)
{
    struct packet *p = packet;
    struct connection *c = connection(s, p->from, p->to);
    struct sim_member *m = sim_member(s, p->to);
    if (m->d != NULL && c->up && !c->cut && c->epoch == p->epoch && m->peers[p->from]) {
        deliver(m, p);
        sim_turn(m);
    }
    sim_net_packet_drop(p);
}

void sim_net_packet_defer(struct sim *s, const void *packet, uint64_t until_us)
{
    const struct packet *p = packet;
    struct connection *c = connection(s, p->from, p->to);
    if (c->epoch == p->epoch && c->last_us < until_us)
        c->last_us = until_us;
}

static void dial(struct sim *s, uint64_t from, uint64_t to)
{
    sim_post(s, RECONNECT_US + rng_below(sim_rng(s), RECONNECT_US), SIM_UP, from, to,
             connection(s, from, to)->epoch, NULL);
}

void sim_net_dial(struct sim *s, uint64_t from, uint64_t to)
{
    dial(s, from, to);
}

static void break_one(struct sim *s, uint64_t from, uint64_t to)
{
    struct connection *c = connection(s, from, to);
    c->epoch++;
    c->up = false;
    c->last_us = c->free_us = 0;
    struct sim_member *m = sim_member(s, from);
    thread_expect_loop();
    if (m->d != NULL)
        driver_peer(m->d, to, false);
    dial(s, from, to);
}

void sim_net_up_event(struct sim *s, uint64_t from, uint64_t to, uint64_t epoch)
{
    struct connection *c = connection(s, from, to);
    struct sim_member *m = sim_member(s, from);
    thread_expect_loop();
    const struct sim_member *other = sim_member(s, to);
    if (c->up || c->epoch != epoch || m->d == NULL || !m->peers[to])
        return;
    if (other->d == NULL || c->cut || !other->peers[from]) {
        if (other->d != NULL && !c->cut && other->removed[from]) {
            driver_refused(m->d, ERR_CONFIG, "removed, says another member");
            sim_turn(m);
        }
        dial(s, from, to);
        return;
    }
    c->up = true;
    driver_peer(m->d, to, true);
    sim_turn(m);
}

void sim_net_member(struct sim *s, uint64_t id, bool up)
{
    (void)up;
    for (uint64_t other = 1; other <= sim_count(s); other++)
        if (other != id)
            sim_reset(s, id, other);
}

void sim_reset(struct sim *s, uint64_t a, uint64_t b)
{
    break_one(s, a, b);
    break_one(s, b, a);
}

void sim_cut(struct sim *s, uint64_t from, uint64_t to, bool on)
{
    struct connection *c = connection(s, from, to);
    if (c->cut == on)
        return;
    c->cut = on;
    if (!on)
        break_one(s, from, to); /* a new connection, after what TCP would have given up */
}

void sim_isolate(struct sim *s, uint64_t id, bool on)
{
    for (uint64_t other = 1; other <= sim_count(s); other++) {
        if (other == id)
            continue;
        sim_cut(s, id, other, on);
        sim_cut(s, other, id, on);
    }
}

void sim_heal(struct sim *s)
{
    for (uint64_t id = 1; id <= sim_count(s); id++)
        sim_isolate(s, id, false);
}

void sim_bandwidth(struct sim *s, uint64_t from, uint64_t to, uint64_t bytes_per_ms)
{
    connection(s, from, to)->per_ms = bytes_per_ms;
}
