/* Room: client.   Thread: the loop's.   Owns: the table of members.
 *
 * Invariants: an entry never moves; no two entries that are not `same` have one id; the leader is
 * named by id and term, and older news never replaces newer.
 *
 * An entry comes from the URL (its id becomes known with its WELCOME) or from a STATUS row. A node
 * may be known by two addresses: where it was dialled, and what it tells of itself; each is tried
 * when the other fails. Not here: connections (cluster.c). */
#include "client/members.h"

#include "base/check.h"

#include <stdio.h>
#include <string.h>

/* Round trips within this are the same to us: noise of a local network. */
#define RTT_NOISE_US 500u

static const char *const names[8] = {"node",   "address", "role", "term",
                                     "leader", "state",   "peer", "seq"};
enum { AT_NODE, AT_ADDRESS, AT_ROLE, AT_TERM, AT_LEADER, AT_STATE, AT_PEER, AT_SEQ };

static void reset_entry(struct member *m, const char *address)
{
    unsigned index = m->index;
    struct lectern_cluster *cluster = m->cluster;
    *m = (struct member){.used = true, .index = index, .cluster = cluster};
    (void)snprintf(m->address, sizeof m->address, "%s", address);
    list_init(&m->in_flight);
    list_init(&m->waiting);
    list_init(&m->in_txn);
}

void members_init(struct members *ms, const struct url *url, uint64_t seed)
{
    memset(ms, 0, sizeof *ms);
    ms->rng.state = seed;
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        ms->all[i].index = i;
    for (unsigned i = 0; i < url->n_addresses && i < MEMBERS_MAX; i++) {
        reset_entry(&ms->all[ms->n], url->addresses[i]);
        ms->all[ms->n++].from_url = true;
    }
}

struct member *members_by_id(struct members *ms, uint64_t id)
{
    for (unsigned i = 0; id != 0 && i < ms->n; i++)
        if (ms->all[i].used && ms->all[i].id == id)
            return &ms->all[i];
    return NULL;
}

/* A free entry, or that of a member of long ago. NULL: there is none. */
static struct member *add(struct members *ms, const char *address)
{
    for (unsigned i = 0; i < MEMBERS_MAX; i++) {
        struct member *m = &ms->all[i];
        bool over = m->used && (m->gone || m->same) && !m->from_url && m->link == NULL &&
                    m->refs == 0 && m != ms->reader;
        if (m->used && !(over && list_empty(&m->waiting)))
            continue;
        reset_entry(m, address);
        ms->n = i >= ms->n ? i + 1 : ms->n;
        return m;
    }
    return NULL;
}

void members_identified(struct members *ms, struct member *m, uint64_t id)
{
    for (unsigned i = 0; i < ms->n; i++) {
        struct member *o = &ms->all[i];
        if (o == m || !o->used || o->id != id || id == 0)
            continue;
        if (o->ready) { /* what is connected is right: M is one more way to it */
            m->same = true;
            m->id = 0;
            return;
        }
        if (m->another[0] == 0 && strcmp(o->address, m->address) != 0)
            memcpy(m->another, o->address, sizeof m->another);
        m->sick = o->sick;
        o->same = true;
        o->id = 0;
    }
    m->same = m->gone = false;
    m->id = id;
}

/* --- failures --------------------------------------------------------------------------------- */

void member_worked(struct member *m)
{
    m->failures = 0;
    m->avoid_until_ms = 0;
    m->refusal = ERR_OK;
}

void member_failed(struct members *ms, struct member *m, enum err refusal, uint64_t now_ms)
{
    uint64_t wait = MEMBER_AVOID_MAX_MS;
    if (refusal == ERR_OK && m->failures < 6)
        wait = (uint64_t)MEMBER_AVOID_MIN_MS << m->failures;
    wait = wait > MEMBER_AVOID_MAX_MS ? MEMBER_AVOID_MAX_MS : wait;
    m->failures++;
    m->refusal = refusal;
    m->avoid_until_ms = now_ms + wait / 2 + rng_below(&ms->rng, wait / 2 + 1);
    ms->reader = ms->reader == m ? NULL : ms->reader;
    if (m->id != 0 && m->id == ms->leader_id)
        ms->leader_doubted = true;
    if (m->another[0] != 0 && m->link == NULL) {
        char other[URL_ADDRESS_MAX];
        memcpy(other, m->another, sizeof other);
        memcpy(m->another, m->address, sizeof other);
        memcpy(m->address, other, sizeof other);
    }
}

void member_absent(struct members *ms, struct member *m, uint64_t now_ms)
{
    member_failed(ms, m, ERR_OK, now_ms);
    m->refusal = ERR_CLOSED;
}

void member_fell_silent(struct member *m, uint64_t now_ms)
{
    m->silent_ms = m->silent ? m->silent_ms : now_ms;
    m->silent = true;
}

bool member_is_avoided(const struct member *m, uint64_t now_ms)
{
    return m->avoid_until_ms > now_ms;
}

enum err members_refused(const struct members *ms, bool waited)
{
    enum err first = ERR_OK;
    for (unsigned i = 0; i < ms->n; i++) {
        const struct member *m = &ms->all[i];
        if (!m->used)
            continue;
        bool may_come = m->refusal == ERR_CLOSED && (!waited || m->failures < MEMBER_ROUNDS);
        if (m->refusal == ERR_OK || may_come)
            return ERR_OK;
        if (first == ERR_OK || m->refusal == ERR_CLOSED)
            first = m->refusal;
    }
    return first;
}

/* --- news ------------------------------------------------------------------------------------- */

/* Splits "host:port", "[v6]:port" into the host with its brackets and ":port". */
static size_t host_length(const char *address)
{
    const char *end = strrchr(address, ':');
    const char *bracket = strrchr(address, ']');
    if (end == NULL || (bracket != NULL && end < bracket))
        return strlen(address);
    return (size_t)(end - address);
}

/* Means "all interfaces" to who listens, and nothing to who dials. */
static bool is_wildcard(const char *address)
{
    static const char *const hosts[] = {"", "*", "0.0.0.0", "[::]", "[::0]", "::"};
    size_t n = host_length(address);
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++)
        if (strlen(hosts[i]) == n && memcmp(hosts[i], address, n) == 0)
            return true;
    return false;
}

static bool copy_address(char out[URL_ADDRESS_MAX], const char *s, size_t n)
{
    if (n == 0 || n >= URL_ADDRESS_MAX)
        return false;
    for (size_t i = 0; i < n; i++)
        if (s[i] <= ' ' || s[i] > '~' || s[i] == ',' || s[i] == '/')
            return false;
    memcpy(out, s, n);
    out[n] = 0;
    return true;
}

/* Where this member can be dialled from here: a wildcard takes the host of its peer listener, or
 * that through which FROM was reached. */
static bool dialable(char out[URL_ADDRESS_MAX], const struct member *from,
                     const struct member_news *n)
{
    char told[URL_ADDRESS_MAX], peer[URL_ADDRESS_MAX];
    if (!copy_address(told, n->address, n->address_len))
        return false;
    if (!is_wildcard(told)) {
        memcpy(out, told, sizeof told);
        return true;
    }
    const char *host = from->address;
    if (n->id != from->id && copy_address(peer, n->peer, n->peer_len) && !is_wildcard(peer))
        host = peer;
    int wrote = snprintf(out, URL_ADDRESS_MAX, "%.*s%s", (int)host_length(host), host,
                         told + host_length(told));
    return wrote > 0 && wrote < (int)URL_ADDRESS_MAX;
}

static bool is(const char *text, size_t n, const char *word)
{
    return n == strlen(word) && memcmp(text, word, n) == 0;
}

void members_begin_news(struct members *ms)
{
    ms->news_leader = ms->news_term = 0;
    ms->news_rows = 0;
    ms->news_unheard = false;
    for (unsigned i = 0; i < ms->n; i++)
        ms->all[i].told = false;
}

static struct member *entry_for(struct members *ms, uint64_t id, const char *address)
{
    struct member *m = members_by_id(ms, id);
    for (unsigned i = 0; m == NULL && i < ms->n; i++) {
        struct member *o = &ms->all[i];
        if (o->used && o->id == 0 && !o->same && address[0] != 0 &&
            strcmp(o->address, address) == 0)
            m = o;
    }
    if (m == NULL && address[0] != 0)
        m = add(ms, address);
    return m;
}

void members_take_news(struct members *ms, const struct member *from, const struct member_news *n)
{
    char address[URL_ADDRESS_MAX] = "";
    if (n->id == 0)
        return;
    uint64_t leader = is(n->role, n->role_len, "leader") ? n->id : n->leader_id;
    if (leader != 0 && (ms->news_leader == 0 || n->term > ms->news_term)) {
        ms->news_leader = leader;
        ms->news_term = n->term;
    }
    if (!dialable(address, from, n))
        address[0] = 0;
    struct member *m = entry_for(ms, n->id, address);
    if (m == NULL) {
        ms->news_unheard = ms->news_unheard || n->is_member;
        return;
    }
    m->id = n->id;
    m->told = true;
    m->gone = !n->is_member;
    m->sick = !is(n->state, n->state_len, "ok");
    m->seq = n->seq > m->seq ? n->seq : m->seq;
    if (address[0] != 0 && strcmp(address, m->address) != 0)
        memcpy(m->another, address, sizeof address);
    if (m->sick && ms->reader == m)
        ms->reader = NULL;
    ms->news_rows++;
}

bool members_end_news(struct members *ms)
{
    if (ms->news_rows == 0)
        return false;
    for (unsigned i = 0; i < ms->n; i++)
        if (ms->all[i].used && !ms->all[i].told && ms->all[i].id != 0)
            ms->all[i].gone = true;
    if (ms->news_leader == 0 || ms->news_term < ms->leader_term)
        return false;
    struct member *leader = members_by_id(ms, ms->news_leader);
    if (leader != NULL && leader->silent && ms->news_term == ms->leader_term)
        return false; /* the others have not noticed yet */
    bool changed = ms->news_leader != ms->leader_id || ms->leader_doubted;
    if (leader != NULL)
        leader->silent = false;
    ms->leader_id = ms->news_leader;
    ms->leader_term = ms->news_term;
    ms->leader_doubted = false;
    return changed;
}

void member_columns_find(struct member_columns *c, uint32_t n, struct rd columns)
{
    c->n = n;
    for (unsigned k = 0; k < 8; k++)
        c->at[k] = -1;
    for (uint32_t i = 0; i < n; i++) {
        size_t len, type_len;
        const char *name = rd_str(&columns, &len);
        (void)rd_str(&columns, &type_len);
        for (unsigned k = 0; k < 8 && name != NULL; k++)
            if (is(name, len, names[k]))
                c->at[k] = (int)i;
    }
}

static uint64_t number_of(const struct wire_value *v)
{
    return v->type == WIRE_INTEGER && v->integer > 0 ? (uint64_t)v->integer : 0;
}

static const char *text_of(const struct wire_value *v, size_t *n)
{
    *n = v->type == WIRE_TEXT ? v->text.len : 0;
    return v->type == WIRE_TEXT ? v->text.bytes : "";
}

void members_take_rows(struct members *ms, const struct member *from,
                       const struct member_columns *c, uint32_t n_rows, struct rd values)
{
    static const struct wire_value nothing = {.type = WIRE_NULL};
    for (uint32_t row = 0; row < n_rows; row++) {
        struct wire_value v, at[8];
        for (unsigned k = 0; k < 8; k++)
            at[k] = nothing;
        for (uint32_t i = 0; i < c->n; i++) {
            if (wire_get_value(&values, &v) != ERR_OK)
                return;
            for (unsigned k = 0; k < 8; k++)
                if (c->at[k] == (int)i)
                    at[k] = v;
        }
        struct member_news news = {.id = number_of(&at[AT_NODE]),
                                   .term = number_of(&at[AT_TERM]),
                                   .seq = number_of(&at[AT_SEQ]),
                                   .leader_id = number_of(&at[AT_LEADER]),
                                   /* Who is no member has no address of peers. */
                                   .is_member =
                                       c->at[AT_PEER] < 0 || at[AT_PEER].type != WIRE_NULL};
        news.address = text_of(&at[AT_ADDRESS], &news.address_len);
        news.role = text_of(&at[AT_ROLE], &news.role_len);
        news.state = text_of(&at[AT_STATE], &news.state_len);
        news.peer = text_of(&at[AT_PEER], &news.peer_len);
        members_take_news(ms, from, &news);
    }
}

/* --- the choice ------------------------------------------------------------------------------- */

struct member *members_leader(struct members *ms)
{
    struct member *m = members_by_id(ms, ms->leader_id);
    return ms->leader_doubted || m == NULL || m->silent ? NULL : m;
}

struct member *members_silent_leader(struct members *ms, uint64_t now_ms)
{
    struct member *m = members_by_id(ms, ms->leader_id);
    return m != NULL && m->silent && now_ms < m->silent_ms + MEMBER_ELECTION_MS ? m : NULL;
}

static bool is_slow(const struct member *m, uint64_t now_ms)
{
    return m->link != NULL && !m->ready && now_ms >= m->dialled_ms + MEMBER_SLOW_MS;
}

/* Lower is better. */
static unsigned rank(const struct member *m, const struct member_wish *w, uint64_t now_ms)
{
    unsigned r = m->ready ? 0 : 1;
    r += m == w->avoid ? 2 : 0;
    r += m->sick ? 4 : 0;
    r += is_slow(m, now_ms) ? 8 : 0;
    r += m->silent ? 16 : 0;
    return r + (m->gone || m->same ? 32 : 0);
}

static uint64_t distance(const struct member *m)
{
    return m->rtt_us == 0 ? UINT64_MAX / 4 : m->rtt_us;
}

static bool is_near(const struct member *m, uint64_t nearest)
{
    return distance(m) / 2 <= nearest + RTT_NOISE_US;
}

struct member *members_choose(struct members *ms, const struct member_wish *w, uint64_t now_ms,
                              uint64_t *until_ms)
{
    struct member *best[MEMBERS_MAX];
    unsigned n = 0, lowest = UINT32_MAX;
    uint64_t nearest = UINT64_MAX / 4;
    struct member *leader = w->leader ? members_leader(ms) : NULL;
    if (leader != NULL && leader != w->avoid && !member_is_avoided(leader, now_ms) &&
        !is_slow(leader, now_ms))
        return leader;
    if (w->leader && members_silent_leader(ms, now_ms) != NULL) {
        *until_ms = now_ms + MEMBER_NEWS_MS;
        return NULL;
    }
    *until_ms = UINT64_MAX;
    for (unsigned i = 0; i < ms->n; i++) {
        struct member *m = &ms->all[i];
        if (!m->used)
            continue;
        if (member_is_avoided(m, now_ms)) {
            *until_ms = m->avoid_until_ms < *until_ms ? m->avoid_until_ms : *until_ms;
            continue;
        }
        unsigned r = rank(m, w, now_ms);
        if (r < lowest) {
            lowest = r;
            n = 0;
            nearest = UINT64_MAX / 4;
        }
        if (r != lowest)
            continue;
        best[n++] = m;
        nearest = distance(m) < nearest ? distance(m) : nearest;
    }
    if (n == 0)
        return NULL;
    /* A reader that is as good as the best stays; else one of the near ones, by lot: many clients
     * spread over them. */
    unsigned near = 0;
    for (unsigned i = 0; i < n; i++) {
        if (w->read && best[i] == ms->reader && is_near(best[i], nearest))
            return best[i];
        if (is_near(best[i], nearest))
            best[near++] = best[i];
    }
    CHECK(near > 0);
    struct member *m = best[rng_below(&ms->rng, near)];
    if (w->read && !w->leader)
        ms->reader = m;
    return m;
}
