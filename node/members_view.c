/* Room: node. Thread: loop. Not here: what follows from it (admin.c, status.c). */
#include "node/members_view.h"

#include "base/clock.h"
#include "base/sizes.h"
#include "node/gossip.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A follower answers each heartbeat; a leader without its majority resigns in one election timeout.
 */
#define SILENT_ELECTIONS 2
/* Behind by less: it gets there in the time of a few messages. */
#define NEAR_ENTRIES 16
#define NEAR_BYTES   MIB(8)

unsigned members_copy_all(const struct node *n, struct member *out, unsigned max)
{
    unsigned members;
    const struct cns_server *s = cns_members(n->cns, &members);
    members = members < max ? members : max;
    for (unsigned i = 0; i < members; i++) {
        out[i].id = s[i].id;
        out[i].role = s[i].role;
        (void)snprintf(out[i].address, sizeof out[i].address, "%s", s[i].address);
    }
    return members;
}

bool member_find(const struct node *n, uint64_t id, struct member *out)
{
    struct member all[CLUSTER_MAX];
    unsigned members = members_copy_all(n, all, CLUSTER_MAX);
    for (unsigned i = 0; i < members; i++)
        if (all[i].id == id) {
            *out = all[i];
            return true;
        }
    return false;
}

bool member_at(const struct node *n, const char *address, struct member *out)
{
    struct member all[CLUSTER_MAX];
    unsigned members = members_copy_all(n, all, CLUSTER_MAX);
    for (unsigned i = 0; i < members; i++)
        if (strcmp(all[i].address, address) == 0) {
            *out = all[i];
            return true;
        }
    return false;
}

const char *member_role_name(enum cns_member_role role)
{
    switch (role) {
    case CNS_VOTER:
        return "voter";
    case CNS_STANDBY:
        return "replica";
    case CNS_SPARE:
        return "spare";
    }
    return "unknown";
}

static bool answered_within(const struct node *n, uint64_t id, uint64_t ms) ON_LOOP
{
    struct cns_progress p;
    if (id == n->config->id)
        return true;
    return cns_get_progress(n->cns, id, &p) && p.heard_ms != 0 &&
           clock_mono_ms() <= p.heard_ms + ms;
}

bool member_answers(const struct node *n, uint64_t id)
{
    return answered_within(n, id, SILENT_ELECTIONS * n->config->election_ms);
}

static bool majority_answers(const struct node *n) ON_LOOP
{
    unsigned members, voters = 0, answer = 0;
    const struct cns_server *s = cns_members(n->cns, &members);
    for (unsigned i = 0; i < members; i++) {
        if (s[i].role != CNS_VOTER)
            continue;
        voters++;
        answer += answered_within(n, s[i].id, n->config->election_ms);
    }
    return answer > voters / 2;
}

uint64_t member_known_leader(const struct node *n)
{
    bool leads = n->role == CNS_LEADER;
    return leads && (n->cns == NULL || !majority_answers(n)) ? 0 : n->leader_id;
}

bool members_follow(const struct node *n)
{
    return node_is_serving(n) && member_known_leader(n) != 0;
}

bool member_was_heard(const struct node *n, uint64_t id)
{
    struct cns_progress p;
    return id == n->config->id || gossip_of(n->gossip, id) != NULL || cns_was_met(n->cns, id) ||
           (cns_get_progress(n->cns, id, &p) && p.heard_ms != 0);
}

/* About how much of the log lies behind AT. The log's files are made in advance, so the mean of a
 * short one is wrong; an entry's limit bounds it. */
static uint64_t bytes_behind(const struct cns_status *s, uint64_t at)
{
    uint64_t entries = s->last_index >= s->first_index ? s->last_index - s->first_index + 1 : 1;
    uint64_t mean = s->log_bytes / entries;
    return (s->last_index - at) * (mean < ENTRY_BYTES_MAX ? mean : ENTRY_BYTES_MAX);
}

bool member_is_caught_up(const struct node *n, uint64_t id, char *how, size_t max)
{
    struct cns_progress p = {0};
    struct cns_status s;
    const struct gossip_news *news = gossip_of(n->gossip, id);
    if (id == n->config->id)
        return true;
    if (!cns_get_progress(n->cns, id, &p) || !member_answers(n, id) || news == NULL) {
        (void)snprintf(how, max, "cannot be reached now");
        return false;
    }
    cns_get_status(n->cns, &s);
    uint64_t at = p.match < news->applied_index ? p.match : news->applied_index;
    if (at >= s.last_index || s.last_index - at <= NEAR_ENTRIES ||
        bytes_behind(&s, at) <= NEAR_BYTES)
        return true;
    (void)snprintf(how, max, "is about %" PRIu64 " MB (%" PRIu64 " entries of the log) behind",
                   (uint64_t)(bytes_behind(&s, at) / MIB(1)), s.last_index - at);
    return false;
}

bool member_can_lead(const struct node *n, uint64_t id, char *how, size_t max)
{
    struct member m;
    const struct gossip_news *news = gossip_of(n->gossip, id);
    if (id == n->config->id || !member_find(n, id, &m) || m.role != CNS_VOTER) {
        (void)snprintf(how, max, "is no other voter");
        return false;
    }
    if (!member_answers(n, id)) {
        (void)snprintf(how, max, "cannot be reached now");
        return false;
    }
    /* One that has said nothing yet is believed to be well. One whose disk is nearly full serves,
     * if it has a database. */
    if (news == NULL || strcmp(news->state, "ok") == 0 || (news->waits_for_room && news->seq > 0))
        return true;
    (void)snprintf(how, max, "says: %s", news->state);
    return false;
}

uint64_t member_next_leader(const struct node *n)
{
    struct member all[CLUSTER_MAX];
    struct cns_progress p;
    uint64_t best = 0, match = 0;
    char how[ERR_TEXT_MAX];
    unsigned members = members_copy_all(n, all, CLUSTER_MAX);
    for (unsigned i = 0; i < members; i++) {
        if (!member_can_lead(n, all[i].id, how, sizeof how) ||
            !cns_get_progress(n->cns, all[i].id, &p) || (best != 0 && p.match <= match))
            continue;
        best = all[i].id;
        match = p.match;
    }
    return best;
}
