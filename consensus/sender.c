/* Room: consensus. Thread: loop. Owns: one struct peer for each other member, the reads that are
 * under way for it.
 *
 * Invariants:
 *   1. A message is cut before a RAFT_CHANGE that is not its first entry (trap T1 of libraft).
 *   2. Nothing is sent while a record of term and vote is not durable (the outbox is not open).
 *   3. leader_commit never passes the last entry that the message vouches for: the core would take
 *      the smaller of the two even when that moves its commit index back.
 *   4. To one peer at most PEER_WINDOW_BYTES_MAX are sent and not yet reported as stored, and none
 *      while its connection holds more than a message: a slow follower costs bounded memory, and a
 *      heartbeat is never far back in the queue.
 *   5. A peer that has been silent for two heartbeats gets one small message a heartbeat.
 *   6. A heartbeat is always empty and always sent: the follower answers it at once, while the
 *      answer to entries waits for its disk. So a slow disk never costs the leadership.
 *   7. A voter that a change makes none gets the change only when it is committed. Else it could be
 *      the only one to have it when the leader dies: it would refuse its vote to those with the
 *      shorter log, and stand for no election itself, and nobody could ever lead.
 *
 * A peer is in one of two modes:
 *
 *      probing ----- any success -----> streaming
 *         ^                                 |
 *         +-- refusal, new connection ------+
 *
 * Probing: it is not known where its log meets ours, one message at a time. Streaming: `next` runs
 * ahead of the answers.
 *
 * A peer whose next entry is no longer in our log is *behind*: it gets heartbeats from where the
 * log begins (which it refuses, and which say that we live), and is told to fetch the state
 * elsewhere. As soon as it accepts one of them, it is a peer like the others.
 *
 * A peer that was removed is served until it knows, *leaving*: it stops by itself then, and does
 * not ask for votes.
 *
 * Not here: what is committed (the core), votes (driver.c). */
#include "consensus/sender.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "consensus/members.h"

#include <stdlib.h>

/* Entries of one message: keeps the array of items small (40 bytes each). */
#define ITEMS_MAX 4096u
/* A probe may be refused: it carries little. */
#define PROBE_BYTES_MAX KIB(64)
/* An empty message follows another one to the same peer after so many ms only (trap T9). */
#define EMPTY_GAP_MS 20u
/* A peer that is behind is told so once in so many ms. */
#define BEHIND_MS 1000u
/* Who was removed is served for so many heartbeats, and after it was told for so many. */
#define LEAVING_BEATS 100u
#define TOLD_BEATS    5u

struct flight {
    uint64_t last, bytes;
};

struct peer {
    struct list link;
    struct sender *s;
    uint64_t id;
    bool member;
    uint64_t leaving;  /* the change that removed it, while it is served; 0: no */
    uint64_t after;    /* invariant 7: nothing from this index on before it is committed; 0: none */
    uint64_t until_ms; /* leaving: no longer than this */
    bool probing;
    uint64_t next;  /* the next entry to send */
    uint64_t match; /* the core's */
    bool probe_out; /* while probing: a message behind the entry `probe` is out */
    uint64_t probe;
    uint64_t told;     /* highest leader_commit sent since the last reset */
    uint64_t heard_ms; /* last answer, or the beginning of the leadership */
    bool answered;     /* in this leadership */
    uint64_t sent_ms, empty_ms, behind_ms;
    bool beat;
    struct flight *window; /* sent, not known to be stored; a ring, cap is a power of two */
    size_t window_cap, window_head, window_n;
    uint64_t window_bytes;
    struct cns_disk_read read;
    bool reading;
    uint64_t read_epoch, read_cuts;
    struct cns_item *read_items; /* what the last read brought, not sent yet */
    unsigned n_read_items;
};

struct sender {
    struct sender_config c;
    struct list peers;
    bool leading;
    uint64_t term, first;
    uint64_t commit, stored;
    uint64_t epoch;           /* moves whenever entries may have changed: older reads are void */
    uint64_t cuts, cut_index; /* asked for; the newest one's */
    bool cutting;
    struct cns_item *batch;
};

struct sender *sender_new(const struct sender_config *c)
{
    struct sender *s = MEM_NEW(struct sender);
    s->c = *c;
    list_init(&s->peers);
    s->batch = mem_alloc(ITEMS_MAX * sizeof *s->batch);
    return s;
}

static void drop_read_items(struct peer *p)
{
    cns_items_free(p->read_items, p->n_read_items);
    p->read_items = NULL;
    p->n_read_items = 0;
}

void sender_free(struct sender *s)
{
    if (s == NULL)
        return;
    struct list *l;
    while ((l = list_pop_front(&s->peers)) != NULL) {
        struct peer *p = LIST_ENTRY(l, struct peer, link);
        drop_read_items(p);
        free(p->window);
        free(p);
    }
    free(s->batch);
    free(s);
}

static uint64_t now_ms(const struct sender *s)
{
    return s->c.io->now_ms(s->c.io->ctx);
}

static struct peer *find(const struct sender *s, uint64_t id)
{
    LIST_EACH(l, &s->peers) {
        struct peer *p = LIST_ENTRY(l, struct peer, link);
        if (p->id == id)
            return p;
    }
    return NULL;
}

/* --- the window --------------------------------------------------------------------------------
 */

static void window_clear(struct peer *p)
{
    p->window_head = p->window_n = 0;
    p->window_bytes = 0;
}

static void window_push(struct peer *p, uint64_t last, uint64_t bytes)
{
    if (p->window_n == p->window_cap) {
        size_t cap = p->window_cap == 0 ? 16 : p->window_cap * 2;
        struct flight *w = mem_alloc(cap * sizeof *w);
        for (size_t i = 0; i < p->window_n; i++)
            w[i] = p->window[(p->window_head + i) & (p->window_cap - 1)];
        free(p->window);
        p->window = w;
        p->window_cap = cap;
        p->window_head = 0;
    }
    p->window[(p->window_head + p->window_n++) & (p->window_cap - 1)] =
        (struct flight){last, bytes};
    p->window_bytes += bytes;
}

static void window_pop(struct peer *p, uint64_t match)
{
    while (p->window_n > 0 && p->window[p->window_head].last <= match) {
        p->window_bytes -= p->window[p->window_head].bytes;
        p->window_head = (p->window_head + 1) & (p->window_cap - 1);
        p->window_n--;
    }
}

/* Begins anew at NEXT: what was sent behind it is void. */
static void probe_from(struct peer *p, uint64_t next)
{
    CHECK(next > 0);
    p->next = next;
    p->probing = true;
    p->probe_out = false;
    p->told = 0;
    window_clear(p);
    drop_read_items(p);
}

/* --- what the driver tells ----------------------------------------------------------------------
 */

static void begin(struct sender *s, struct peer *p)
{
    p->match = 0;
    p->heard_ms = now_ms(s);
    p->answered = false;
    p->sent_ms = p->empty_ms = p->behind_ms = 0;
    p->beat = true;
    probe_from(p, s->first);
}

static struct peer *find_or_make(struct sender *s, uint64_t id)
{
    struct peer *p = find(s, id);
    if (p != NULL)
        return p;
    p = MEM_NEW(struct peer);
    p->s = s;
    p->id = id;
    list_push_back(&s->peers, &p->link);
    return p;
}

static const struct raft_server *receiver(const struct sender *s,
                                          const struct raft_configuration *conf, uint64_t id)
{
    for (unsigned i = 0; i < conf->n; i++)
        if (conf->servers[i].id == id)
            return id == s->c.self || conf->servers[i].role == RAFT_SPARE ? NULL
                                                                          : &conf->servers[i];
    return NULL;
}

static bool is_voter(const struct raft_configuration *conf, uint64_t id)
{
    const struct raft_server *server = members_find(conf, id);
    return server != NULL && server->role == RAFT_VOTER;
}

void sender_set_members(struct sender *s, const struct raft_configuration *conf,
                        const struct raft_configuration *old, uint64_t change)
{
    for (unsigned i = 0; i < conf->n; i++)
        if (receiver(s, conf, conf->servers[i].id) != NULL)
            (void)find_or_make(s, conf->servers[i].id);
    for (unsigned i = 0; change > 0 && i < old->n; i++)
        if (receiver(s, old, old->servers[i].id) != NULL)
            (void)find_or_make(s, old->servers[i].id);
    LIST_EACH(l, &s->peers) {
        struct peer *p = LIST_ENTRY(l, struct peer, link);
        bool was = p->member || p->leaving > 0, is = receiver(s, conf, p->id) != NULL;
        p->after = change > 0 && is_voter(old, p->id) && !is_voter(conf, p->id) ? change : 0;
        p->member = is;
        if (is) {
            p->leaving = 0;
        } else if (change > 0 && p->leaving == 0 && receiver(s, old, p->id) != NULL) {
            p->leaving = change;
            p->until_ms = now_ms(s) + (uint64_t)LEAVING_BEATS * s->c.heartbeat_ms;
        }
        if (s->leading && !was && (p->member || p->leaving > 0))
            begin(s, p);
    }
}

bool sender_keeps(const struct sender *s, uint64_t peer)
{
    const struct peer *p = find(s, peer);
    return s->leading && p != NULL && p->leaving > 0;
}

void sender_cut(struct sender *s, uint64_t index)
{
    s->cuts++;
    s->cutting = true;
    s->cut_index = index;
}

void sender_cut_done(struct sender *s)
{
    s->cutting = false;
    LIST_EACH(l, &s->peers) {
        struct peer *p = LIST_ENTRY(l, struct peer, link);
        if (p->next < s->c.terms->first)
            drop_read_items(p);
    }
    s->c.dirty(s->c.ctx);
}

void sender_lead(struct sender *s, uint64_t term, uint64_t first)
{
    s->leading = true;
    s->term = term;
    s->first = first;
    s->epoch++;
    LIST_EACH(l, &s->peers) {
        struct peer *p = LIST_ENTRY(l, struct peer, link);
        p->leaving = 0;
        begin(s, p);
    }
    s->c.dirty(s->c.ctx);
}

void sender_stop_leading(struct sender *s)
{
    s->leading = false;
    s->epoch++;
    LIST_EACH(l, &s->peers) {
        struct peer *p = LIST_ENTRY(l, struct peer, link);
        p->leaving = 0;
        drop_read_items(p);
    }
}

void sender_set_marks(struct sender *s, uint64_t commit, uint64_t stored)
{
    s->commit = commit;
    s->stored = stored;
}

void sender_on_result(struct sender *s, uint64_t peer, uint64_t rejected, uint64_t last,
                      uint64_t match)
{
    struct peer *p = find(s, peer);
    if (!s->leading || p == NULL)
        return;
    CHECK(match <= s->c.terms->last);
    p->heard_ms = now_ms(s);
    p->answered = true;
    p->match = match;
    window_pop(p, match);
    if (p->next <= match) {
        p->next = match + 1;
        drop_read_items(p);
    }
    s->c.dirty(s->c.ctx);
    if (rejected == 0) {
        if (p->probing && p->probe_out && p->next <= p->probe)
            p->next = p->probe + 1; /* it was taken for behind; stored it may not be yet */
        p->probing = false;
        return;
    }
    /* A leader never truncates, so only a peer out of its mind refuses what was never sent. */
    if (rejected > s->c.terms->last)
        return;
    if (last > s->c.terms->last)
        last = s->c.terms->last;
    /* A refusal of something sent before we began anew says nothing new. */
    if (p->probing && (!p->probe_out || rejected != p->probe))
        return;
    if (rejected <= match) {
        log_error("consensus", "peer-lost-entries peer=%llu refused=%llu acknowledged=%llu",
                  (unsigned long long)peer, (unsigned long long)rejected,
                  (unsigned long long)match);
        return;
    }
    uint64_t next = rejected <= last ? rejected : last + 1;
    probe_from(p, next <= match ? match + 1 : next);
}

void sender_beat(struct sender *s)
{
    LIST_EACH(l, &s->peers)
        LIST_ENTRY(l, struct peer, link)->beat = true;
    s->c.dirty(s->c.ctx);
}

void sender_peer_up(struct sender *s, uint64_t peer, uint64_t match)
{
    struct peer *p = find(s, peer);
    if (!s->leading || p == NULL)
        return;
    uint64_t again = match > 0 ? match + 1 : s->first;
    probe_from(p, again < p->next ? again : p->next);
    p->beat = true;
    p->empty_ms = 0;
    s->c.dirty(s->c.ctx);
}

uint64_t sender_heard_ms(const struct sender *s, uint64_t peer)
{
    const struct peer *p = find(s, peer);
    return !s->leading || p == NULL ? 0 : p->heard_ms;
}

uint64_t sender_answered_ms(const struct sender *s, uint64_t peer)
{
    const struct peer *p = find(s, peer);
    return s->leading && p != NULL && p->answered ? p->heard_ms : 0;
}

uint64_t sender_match(const struct sender *s, uint64_t peer)
{
    const struct peer *p = find(s, peer);
    return s->leading && p != NULL ? p->match : 0;
}

/* --- sending ------------------------------------------------------------------------------------
 */

static void send_append(struct sender *s, struct peer *p, uint64_t prev,
                        const struct cns_item *items, unsigned n)
{
    CHECK(prev + n <= s->c.terms->last);
    uint64_t vouched = prev + n;
    struct raft_message m = {.type = RAFT_APPEND_ENTRIES, .server_id = p->id, .server_address = ""};
    m.append_entries.term = s->term;
    m.append_entries.prev_log_index = prev;
    m.append_entries.prev_log_term = prev == 0 ? 0 : terms_at(s->c.terms, prev);
    m.append_entries.leader_commit = s->commit < vouched ? s->commit : vouched;
    CHECK(prev == 0 || m.append_entries.prev_log_term > 0);
    if (m.append_entries.leader_commit > p->told)
        p->told = m.append_entries.leader_commit;
    p->sent_ms = now_ms(s);
    s->c.io->send(s->c.io->ctx, p->id, &m, items, n);
}

static bool is_behind(const struct sender *s, const struct peer *p)
{
    return p->next < s->c.terms->first;
}

static void send_empty(struct sender *s, struct peer *p)
{
    uint64_t prev = p->next - 1;
    if (prev + 1 < s->c.terms->first || (p->probe_out && p->probe + 1 < s->c.terms->first)) {
        prev = p->probe = s->c.terms->first - 1;
        p->probing = p->probe_out = true;
    } else if (p->probing && p->probe_out)
        prev = p->probe;
    else if (p->probing) {
        p->probe = prev;
        p->probe_out = true;
    }
    send_append(s, p, prev, NULL, 0);
    p->empty_ms = p->sent_ms;
    p->beat = false;
}

static void read_done(struct cns_disk_read *read, enum err e)
{
    struct peer *p = read->ctx;
    struct sender *s = p->s;
    p->reading = false;
    bool current = s->leading && p->read_epoch == s->epoch && p->next == read->index &&
                   p->next >= s->c.terms->first;
    if (e != ERR_OK) {
        /* A cut that was asked for meanwhile may have taken it: then the peer is behind. */
        bool gone = e == ERR_NOT_FOUND && p->read_cuts != s->cuts && read->index <= s->cut_index;
        /* After a change of leadership the entries may have been truncated meanwhile. */
        if (!gone && s->leading && p->read_epoch == s->epoch)
            s->c.read_failed(s->c.ctx, e);
        s->c.dirty(s->c.ctx);
        return;
    }
    CHECK(read->n_items > 0 && p->read_items == NULL);
    for (unsigned i = 0; current && i < read->n_items; i++)
        if (read->items[i].index != read->index + i ||
            read->items[i].term != terms_at(s->c.terms, read->index + i)) {
            s->c.read_failed(s->c.ctx, err_fail(ERR_CORRUPT, "the disk has another entry %llu",
                                                (unsigned long long)read->index + i));
            current = false;
        }
    if (current) {
        p->read_items = read->items;
        p->n_read_items = read->n_items;
    } else {
        cns_items_free(read->items, read->n_items);
    }
    read->items = NULL;
    s->c.dirty(s->c.ctx);
}

static void start_read(struct sender *s, struct peer *p)
{
    if (p->reading || (s->cutting && p->next <= s->cut_index))
        return;                  /* what is being cut is not begun to be read */
    CHECK(p->next <= s->stored); /* what is not stored is in the cache */
    uint64_t n = s->stored - p->next + 1;
    p->reading = true;
    p->read_epoch = s->epoch;
    p->read_cuts = s->cuts;
    p->read = (struct cns_disk_read){.index = p->next,
                                     .max_bytes = APPEND_BYTES_MAX,
                                     .max_items = n < ITEMS_MAX ? (unsigned)n : ITEMS_MAX,
                                     .ctx = p,
                                     .done = read_done};
    s->c.io->disk_read(s->c.io->ctx, &p->read);
}

/* Invariant 7. */
static bool is_kept_back(const struct sender *s, const struct peer *p, uint64_t index)
{
    return p->after > 0 && index >= p->after && s->commit < p->after;
}

/* Entries from p->next on for one message, borrowed; 0 when they must come from the disk. */
static unsigned gather(struct sender *s, struct peer *p, uint64_t max_bytes, uint64_t *bytes)
{
    unsigned n = 0;
    *bytes = 0;
    for (uint64_t index = p->next; index <= s->c.terms->last && n < ITEMS_MAX; index++) {
        const struct cns_item *item = NULL;
        if (p->read_items == NULL)
            item = cache_get(s->c.cache, index);
        else if (n < p->n_read_items)
            item = &p->read_items[n];
        if (item == NULL || is_kept_back(s, p, index))
            break;
        CHECK(item->index == index && item->term == terms_at(s->c.terms, index));
        uint64_t len = item->payload == NULL ? 0 : item->payload->len;
        if (n > 0 && (item->kind == CNS_CHANGE || *bytes + len > max_bytes))
            break; /* invariant 1, and the size of a message */
        s->batch[n++] = *item;
        *bytes += len + CACHE_ITEM_OVERHEAD;
    }
    return n;
}

static bool may_send_entries(const struct sender *s, const struct peer *p, uint64_t queued,
                             uint64_t now)
{
    if (p->next > s->c.terms->last || is_behind(s, p) || is_kept_back(s, p, p->next))
        return false;
    if (p->probing)
        return !p->probe_out;
    if (now - p->heard_ms >= 2ull * s->c.heartbeat_ms && p->window_n > 0)
        return false; /* silent: it has enough to chew on, or it is gone */
    return p->window_bytes < PEER_WINDOW_BYTES_MAX && queued < APPEND_BYTES_MAX;
}

/* One message of entries; false when the peer can get no more now. */
static bool send_entries(struct sender *s, struct peer *p, uint64_t now)
{
    if (!may_send_entries(s, p, s->c.io->queued(s->c.io->ctx, p->id), now))
        return false;
    uint64_t bytes;
    unsigned n = gather(s, p, p->probing ? PROBE_BYTES_MAX : APPEND_BYTES_MAX, &bytes);
    if (n == 0) {
        start_read(s, p);
        return false;
    }
    if (p->probing) {
        p->probe = p->next - 1;
        p->probe_out = true;
    }
    send_append(s, p, p->next - 1, s->batch, n);
    window_push(p, p->next + n - 1, bytes);
    p->next += n;
    if (p->read_items != NULL) {
        /* The rest of a read is cheap to read again, and mostly there is none. */
        drop_read_items(p);
    }
    return true;
}

/* A removed peer has been told, or had its time. */
static bool has_left(const struct sender *s, struct peer *p, uint64_t now)
{
    if (p->leaving == 0 || s->commit < p->leaving)
        return false;
    uint64_t told_ms = (uint64_t)TOLD_BEATS * s->c.heartbeat_ms;
    if (p->told >= p->leaving && p->match >= p->leaving && p->until_ms > now + told_ms)
        p->until_ms = now + told_ms;
    return now >= p->until_ms;
}

static void flush_peer(struct sender *s, struct peer *p)
{
    uint64_t now = now_ms(s);
    if (s->c.io->queued(s->c.io->ctx, p->id) == UINT64_MAX)
        return; /* not connected: sender_peer_up begins anew */
    while (send_entries(s, p, now))
        ;
    bool silent = now - p->heard_ms >= 2ull * s->c.heartbeat_ms;
    uint64_t vouched = s->commit < p->next - 1 ? s->commit : p->next - 1;
    if (p->beat && (p->empty_ms == 0 || now - p->empty_ms >= EMPTY_GAP_MS))
        send_empty(s, p);
    else if (vouched > p->told && !p->probing && !silent)
        send_empty(s, p); /* followers learn of a commit at once: their readers wait for it */
    if (is_behind(s, p) && p->answered && !silent &&
        (p->behind_ms == 0 || now - p->behind_ms >= BEHIND_MS)) {
        p->behind_ms = now;
        s->c.behind(s->c.ctx, p->id);
    }
}

void sender_flush(struct sender *s)
{
    bool left = false;
    if (!s->leading || !outbox_is_open(s->c.outbox))
        return;
    LIST_EACH(l, &s->peers) {
        struct peer *p = LIST_ENTRY(l, struct peer, link);
        if (has_left(s, p, now_ms(s))) {
            p->leaving = 0;
            left = true;
        }
        if (p->member || p->leaving > 0)
            flush_peer(s, p);
    }
    if (left)
        s->c.left(s->c.ctx);
}
