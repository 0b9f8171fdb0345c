/* Room: client.   Thread: the loop's.   Owns: the loop, the members and their links, the numbers of
 * the streams.
 *
 * Invariants: a member has one link at most; `ready` is true between its WELCOME and its end only;
 * every frame that comes in is given to the stream whose number it bears now, or dropped; nodes of
 * two clusters are never mixed.
 *
 * A link is made when a call needs it and kept. When one goes down, what waited for it is routed
 * anew, and what was sent over it decides by itself whether it may be sent again (call.c).
 * Not here: whom to ask (members.c), what STATUS tells (cluster_news.c). */
#include "client/cluster.h"

#include "base/check.h"
#include "client/call_state.h"
#include "client/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define SLOTS_FIRST      16u
#define GENERATIONS_MASK ((1u << (32u - STREAM_SLOT_BITS)) - 1)

/* --- a cluster -------------------------------------------------------------------------------- */

static uint64_t any_seed(void)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != (ssize_t)sizeof seed)
        seed = clock_mono_ns(); /* only lots and jitter depend on it */
    return seed;
}

static bool init_lock(pthread_mutex_t *lock)
{
    pthread_mutexattr_t attributes;
    if (pthread_mutexattr_init(&attributes) != 0)
        return false;
    bool ok = pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE) == 0 &&
              pthread_mutex_init(lock, &attributes) == 0;
    (void)pthread_mutexattr_destroy(&attributes);
    return ok;
}

enum err cluster_new(const struct url *url, struct lectern_cluster **out)
{
    struct lectern_cluster *c = *out = NULL;
    if (url->n_addresses == 0)
        return err_fail(ERR_CONFIG, "no address of a node is given");
    c = calloc(1, sizeof *c);
    if (c == NULL || !init_lock(&c->lock)) {
        free(c);
        return err_fail(ERR_NOMEM, "out of memory for a cluster's connections");
    }
    enum err e = loop_new(&c->loop);
    if (e != ERR_OK) {
        (void)pthread_mutex_destroy(&c->lock);
        free(c);
        return e;
    }
    c->url = *url;
    members_init(&c->members, url, any_seed());
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        c->members.all[i].cluster = c;
    c->born_ms = clock_mono_ms();
    list_init(&c->parked);
    c->news.timer.fire = news_timer;
    *out = c;
    return ERR_OK;
}

void cluster_free(struct lectern_cluster *c)
{
    if (c == NULL)
        return;
    CHECK(c->n_streams == 0);
    for (unsigned i = 0; i < c->members.n; i++)
        if (c->members.all[i].link != NULL)
            link_free(c->members.all[i].link);
    loop_timer_stop(c->loop, &c->news.timer);
    loop_free(c->loop);
    (void)pthread_mutex_destroy(&c->lock);
    free(c->slots);
    free(c);
}

struct loop *cluster_loop(struct lectern_cluster *c)
{
    return c->loop;
}

const struct url *cluster_url(const struct lectern_cluster *c)
{
    return &c->url;
}

void cluster_lock(struct lectern_cluster *c)
{
    CHECK(pthread_mutex_lock(&c->lock) == 0);
    c->locked++;
}

void cluster_unlock(struct lectern_cluster *c)
{
    c->locked--;
    CHECK(pthread_mutex_unlock(&c->lock) == 0);
}

unsigned cluster_release(struct lectern_cluster *c)
{
    unsigned levels = c->locked;
    for (unsigned i = 0; i < levels; i++)
        cluster_unlock(c);
    return levels;
}

void cluster_regain(struct lectern_cluster *c, unsigned levels)
{
    for (unsigned i = 0; i < levels; i++)
        cluster_lock(c);
}

void cluster_sleep(struct lectern_cluster *c, pthread_cond_t *wake, uint64_t until_ms)
{
    unsigned levels = c->locked;
    while (c->locked > 1)
        cluster_unlock(c);
    c->locked = 0; /* the one level that the wait gives away by itself */
    if (until_ms == WAIT_FOR_EVER) {
        CHECK(pthread_cond_wait(wake, &c->lock) == 0);
    } else {
        struct timespec t = {.tv_sec = (time_t)(until_ms / 1000),
                             .tv_nsec = (long)(until_ms % 1000) * 1000000};
        int e = pthread_cond_timedwait(wake, &c->lock, &t);
        CHECK(e == 0 || e == ETIMEDOUT);
    }
    c->locked = 1;
    cluster_regain(c, levels - 1);
}

void cluster_set_face(struct lectern_cluster *c, void *face)
{
    c->face = face;
}

void *cluster_face(const struct lectern_cluster *c)
{
    return c->face;
}

unsigned cluster_sessions(const struct lectern_cluster *c)
{
    return c->n_streams;
}

uint64_t cluster_id(const struct lectern_cluster *c)
{
    return c->id;
}

uint32_t cluster_next_keep(struct lectern_cluster *c)
{
    if (++c->last_keep == 0)
        c->last_keep = 1; /* after four billion statements: the first ones are long gone */
    return c->last_keep;
}

void cluster_forget(struct lectern_cluster *c, uint32_t keep)
{
    for (unsigned i = 0; keep != 0 && i < c->members.n; i++)
        if (c->members.all[i].ready)
            link_forget(c->members.all[i].link, keep);
}

void cluster_saw_seq(struct lectern_cluster *c, uint64_t seq)
{
    c->newest_seq = seq > c->newest_seq ? seq : c->newest_seq;
}

/* --- streams ---------------------------------------------------------------------------------- */

static uint32_t number_of(const struct lectern_cluster *c, uint32_t slot)
{
    return slot | (c->slots[slot].given & GENERATIONS_MASK) << STREAM_SLOT_BITS;
}

static uint32_t slot_of(uint32_t number)
{
    return number & (STREAM_SLOTS_MAX - 1);
}

static struct stream *find_stream(const struct lectern_cluster *c, uint32_t number)
{
    uint32_t slot = slot_of(number);
    if (slot >= c->n_slots || c->slots[slot].stream == NULL || number_of(c, slot) != number)
        return NULL;
    return c->slots[slot].stream;
}

static enum err grow_slots(struct lectern_cluster *c)
{
    if (c->n_slots == STREAM_SLOTS_MAX)
        return err_fail(ERR_TOO_BIG, "more than %u sessions on one cluster", STREAM_SLOTS_MAX);
    if (c->n_slots < c->slots_cap)
        return ERR_OK;
    uint32_t cap = c->slots_cap == 0 ? SLOTS_FIRST : c->slots_cap * 2;
    struct stream_slot *slots = realloc(c->slots, cap * sizeof *slots);
    if (slots == NULL)
        return err_fail(ERR_NOMEM, "out of memory for one more session");
    memset(slots + c->slots_cap, 0, (cap - c->slots_cap) * sizeof *slots);
    c->slots = slots;
    c->slots_cap = cap;
    if (c->n_slots <= STREAM_OF_NEWS)
        c->n_slots = STREAM_OF_NEWS + 1;
    return ERR_OK;
}

enum err cluster_add_stream(struct lectern_cluster *c, struct stream *s)
{
    uint32_t slot = c->first_free;
    if (slot == 0) {
        TRY(grow_slots(c));
        slot = c->n_slots++;
    } else {
        c->first_free = c->slots[slot].next_free;
    }
    c->slots[slot].stream = s;
    s->number = number_of(c, slot);
    c->n_streams++;
    return ERR_OK;
}

void cluster_renumber_stream(struct lectern_cluster *c, struct stream *s)
{
    uint32_t slot = slot_of(s->number);
    CHECK(c->slots[slot].stream == s);
    c->slots[slot].given++;
    s->number = number_of(c, slot);
}

void cluster_remove_stream(struct lectern_cluster *c, struct stream *s)
{
    uint32_t slot = slot_of(s->number);
    CHECK(c->slots[slot].stream == s);
    c->slots[slot].stream = NULL;
    c->slots[slot].given++;
    c->slots[slot].next_free = c->first_free;
    c->first_free = slot;
    c->n_streams--;
}

/* --- links ------------------------------------------------------------------------------------ */

void cluster_await(struct member *m)
{
    if (m->awaited++ == 0)
        link_set_busy(m->link, true);
}

void cluster_awaited(struct member *m)
{
    CHECK(m->awaited > 0);
    if (--m->awaited == 0)
        link_set_busy(m->link, false);
}

void cluster_suspect(struct member *m, uint64_t ms)
{
    uint64_t now = clock_mono_ms();
    if (!m->ready || m->silent || link_heard_ms(m->link) + ms > now)
        return;
    member_fell_silent(m, now);
    if (!m->sign_awaited) { /* so that the link finds out whether it lives */
        m->sign_awaited = true;
        cluster_await(m);
        link_ping(m->link);
    }
    news_silent(m->cluster, m);
}

/* A sign of life. */
static void member_spoke(struct member *m)
{
    bool silent = m->silent;
    m->silent = false;
    if (m->sign_awaited) {
        m->sign_awaited = false;
        cluster_awaited(m);
    }
    if (!silent)
        return;
    news_wanted(m->cluster);
    news_wake_parked(m->cluster);
}

/* Of a node that never served us: will not change by waiting. */
static bool is_refusal(enum err code)
{
    return code == ERR_CONFIG || code == ERR_PROTOCOL || code == ERR_VERSION ||
           code == ERR_NOT_FOUND;
}

/* Those that waited for M's link look for another way. */
static void route_waiting(struct member *m, enum err why, const char *sentence)
{
    struct list waiting;
    list_init(&waiting);
    list_splice(&waiting, &m->waiting);
    for (struct list *l; (l = list_pop_front(&waiting)) != NULL;) {
        struct call *call = LIST_ENTRY(l, struct call, in_member);
        if (why != ERR_OK) {
            call->avoid = m;
            call->trouble = why;
            buf_reset(&call->said);
            buf_put(&call->said, sentence, strlen(sentence));
        }
        call_advance(call);
    }
}

/* A connection to M ended, or did not come about. */
static void note_failure(struct member *m, enum err code, bool greeted)
{
    struct members *ms = &m->cluster->members;
    uint64_t now = clock_mono_ms();
    if (!greeted && code == ERR_CLOSED)
        member_absent(ms, m, now);
    else
        member_failed(ms, m, !greeted && is_refusal(code) ? code : ERR_OK, now);
}

/* M's connection is no more. Every call and stream on it hears of that once. */
static void member_down(struct member *m, enum err code, const char *why)
{
    struct lectern_cluster *c = m->cluster;
    struct list lost;
    bool greeted = m->ready;
    char said[ERR_TEXT_MAX];
    (void)snprintf(said, sizeof said, "%s", why); /* it may be the link's */
    list_init(&lost);
    list_splice(&lost, &m->in_flight);
    m->sent_total = link_sent_total(m->link);
    link_free(m->link);
    m->link = NULL;
    m->ready = false;
    m->awaited = 0;
    m->sign_awaited = false;
    streams_lost(c, m);
    note_failure(m, code, greeted);
    if (code == ERR_TIMEOUT)
        member_fell_silent(m, clock_mono_ms());
    c->trouble = code;
    memcpy(c->trouble_text, said, sizeof said);
    news_link_down(c, m);
    for (struct list *l; (l = list_pop_front(&lost)) != NULL;)
        call_lost(LIST_ENTRY(l, struct call, in_member), code, said);
    LIST_EACH(l, &m->in_txn)
        stream_lose_transaction(LIST_ENTRY(l, struct stream, in_txn));
    route_waiting(m, code, said);
}

static void on_down(void *ctx, enum err code, const char *why)
{
    struct member *m = ctx;
    member_down(m, code, why);
}

static void keep_text(char out[MEMBER_TEXT], const char *s, size_t n)
{
    (void)snprintf(out, MEMBER_TEXT, "%.*s", (int)(n < MEMBER_TEXT ? n : MEMBER_TEXT),
                   n == 0 ? "" : s);
}

static void on_ready(void *ctx, const struct wire_welcome *w)
{
    struct member *m = ctx;
    struct lectern_cluster *c = m->cluster;
    if (c->id != 0 && w->cluster_id != 0 && w->cluster_id != c->id) {
        char why[ERR_TEXT_MAX];
        (void)snprintf(why, sizeof why,
                       "%s belongs to another cluster (%016" PRIx64
                       ") than the nodes before it (%016" PRIx64 "): correct the addresses",
                       m->address, w->cluster_id, c->id);
        member_down(m, ERR_CONFIG, why);
        return;
    }
    c->id = c->id == 0 ? w->cluster_id : c->id;
    members_identified(&c->members, m, w->node_id);
    if (m->same) { /* the other entry's link is enough */
        link_free(m->link);
        m->link = NULL;
        route_waiting(m, ERR_OK, "");
        return;
    }
    m->ready = true;
    m->refusal = ERR_OK;
    m->avoid_until_ms = 0;
    c->trouble = ERR_OK;
    c->trouble_text[0] = 0;
    m->seq = w->seq > m->seq ? w->seq : m->seq;
    cluster_saw_seq(c, w->seq);
    keep_text(m->server, w->server, w->server_len);
    keep_text(m->sqlite, w->sqlite, w->sqlite_len);
    m->rtt_us = link_rtt_us(m->link) + 1; /* 0 is "not known" */
    news_link_ready(c);
    member_spoke(m);
    route_waiting(m, ERR_OK, "");
}

static enum err connection_frame(struct member *m, struct wire_frame *f)
{
    struct wire_pong p;
    struct lectern_cluster *c = m->cluster;
    if (f->type != WIRE_PONG)
        return err_fail(ERR_PROTOCOL, "a frame of type %d for the connection", (int)f->type);
    TRY(wire_get_pong(f, &p));
    m->rtt_us = link_rtt_us(m->link) + 1;
    m->seq = p.seq > m->seq ? p.seq : m->seq;
    cluster_saw_seq(c, p.seq);
    if (p.leader_id != 0 && p.leader_id != c->members.leader_id)
        news_wanted(c);
    return ERR_OK;
}

static void on_frame(void *ctx, struct wire_frame *f)
{
    struct member *m = ctx;
    struct stream *s;
    enum err e = ERR_OK;
    if (f->id.stream == 0)
        e = connection_frame(m, f);
    else if (f->id.stream == STREAM_OF_NEWS)
        e = news_frame(m->cluster, m, f);
    else if ((s = find_stream(m->cluster, f->id.stream)) != NULL)
        e = stream_frame(s, m, f);
    if (e != ERR_OK) {
        char why[URL_ADDRESS_MAX + ERR_TEXT_MAX];
        (void)snprintf(why, sizeof why, "%s broke the protocol: %.300s", m->address, err_text());
        member_down(m, ERR_PROTOCOL, why);
    } else if (m->silent || m->sign_awaited) {
        member_spoke(m);
    }
}

static enum err dial(struct member *m)
{
    struct lectern_cluster *c = m->cluster;
    struct link_events events = {
        .ctx = m, .on_ready = on_ready, .on_frame = on_frame, .on_down = on_down};
    TRY(link_new(c->loop, m->address, c->url.name, &events, &m->link));
    m->serial = ++c->serials;
    m->dialled_ms = clock_mono_ms();
    return ERR_OK;
}

/* --- whom to ask ------------------------------------------------------------------------------ */

/* A short-lived program needs one link or two; one that stays shall find out who is near. */
static void explore(struct lectern_cluster *c, uint64_t now_ms)
{
    bool pending = false;
    if (c->settled || now_ms < c->born_ms + EXPLORE_AFTER_MS)
        return;
    for (unsigned i = 0; i < c->members.n; i++) {
        struct member *m = &c->members.all[i];
        if (!m->used || m->gone || m->same || m->sick || m->rtt_us != 0 ||
            member_is_avoided(m, now_ms))
            continue;
        if (m->link != NULL || dial(m) == ERR_OK)
            pending = true;
    }
    if (!pending) { /* now the reads may choose among all */
        c->settled = true;
        c->members.reader = NULL;
    }
}

/* Is there anybody? Known nodes come back; where none was found yet, a call that began at SINCE_MS
 * need not wait for its limit. */
static enum err look_whether_empty(struct lectern_cluster *c, uint64_t since_ms, uint64_t now_ms,
                                   uint64_t *until_ms)
{
    uint64_t patient_ms = since_ms + CLUSTER_START_MS;
    if (c->id != 0)
        return ERR_OK;
    enum err e = members_refused(&c->members, now_ms >= patient_ms);
    if (e == ERR_OK && now_ms < patient_ms && patient_ms < *until_ms)
        *until_ms = patient_ms;
    if (e == ERR_OK || c->members.n == 1)
        return e == ERR_OK ? e : err_fail(e, "%s", c->trouble_text);
    return err_fail(e, "no node at any of the %u addresses; the last one: %.400s", c->members.n,
                    c->trouble_text);
}

static void dial_unless_avoided(struct member *m, uint64_t now_ms)
{
    if (m->link != NULL || member_is_avoided(m, now_ms))
        return;
    enum err e = dial(m);
    if (e != ERR_OK && e != ERR_NOMEM)
        note_failure(m, e, false);
}

/* The leader is silent: it may come back, and somebody else may know who leads now. */
static void look_for_leader(struct lectern_cluster *c, uint64_t now_ms)
{
    static const struct member_wish anybody = {.leader = false};
    struct members *ms = &c->members;
    struct member *leader = members_by_id(ms, ms->leader_id);
    uint64_t until_ms;
    if (leader == NULL || !leader->silent)
        return;
    dial_unless_avoided(leader, now_ms);
    struct member *m = members_choose(ms, &anybody, now_ms, &until_ms);
    if (m != NULL)
        dial_unless_avoided(m, now_ms);
    news_wanted(c);
}

enum err cluster_route(struct lectern_cluster *c, const struct member_wish *wish, uint64_t since_ms,
                       uint64_t now_ms, struct member **out, uint64_t *until_ms)
{
    if (wish->read)
        explore(c, now_ms);
    if (wish->leader)
        look_for_leader(c, now_ms);
    for (;;) {
        struct member *m = *out = members_choose(&c->members, wish, now_ms, until_ms);
        if (m == NULL)
            return look_whether_empty(c, since_ms, now_ms, until_ms);
        if (m->link != NULL)
            return ERR_OK;
        enum err e = dial(m);
        if (e == ERR_OK)
            return ERR_OK;
        if (e == ERR_NOMEM)
            return e;
        c->trouble = e;
        (void)snprintf(c->trouble_text, sizeof c->trouble_text, "%s", err_text());
        note_failure(m, e, false);
    }
}
