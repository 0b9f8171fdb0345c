/* Room: consensus. Thread: loop. Owns: nothing. What message.c checks is not checked again: the
 * shape of the bytes. Here are the rules between the fields, and between them and our own state. */
#include "consensus/guard.h"

#include "base/sizes.h"
#include "consensus/members.h"

/* Nothing honest gets there (terms: see guard_is_far), and beyond it sums could overflow. */
#define TERM_MAX  (UINT64_MAX / 4)
#define INDEX_MAX (UINT64_MAX / 4)

static enum err check_items(const struct raft_append_entries *a, const struct cns_item *items,
                            unsigned n)
{
    uint64_t term = a->prev_log_term;
    for (unsigned i = 0; i < n; i++) {
        const struct cns_item *item = &items[i];
        if (item->index != a->prev_log_index + 1 + i)
            return err_fail(ERR_PROTOCOL, "entry %u of an AppendEntries has index %llu", i,
                            (unsigned long long)item->index);
        if (item->term == 0 || item->term < term || item->term > a->term)
            return err_fail(ERR_PROTOCOL, "entry %llu of term %llu cannot follow one of term %llu",
                            (unsigned long long)item->index, (unsigned long long)item->term,
                            (unsigned long long)term);
        term = item->term;
        if ((item->kind == CNS_BARRIER) != (item->payload == NULL))
            return err_fail(ERR_PROTOCOL, "entry %llu: a payload where none belongs, or none",
                            (unsigned long long)item->index);
        if (item->payload != NULL && item->payload->len > ENTRY_BYTES_MAX)
            return err_fail(ERR_PROTOCOL, "entry %llu is larger than an entry may be",
                            (unsigned long long)item->index);
        if (item->kind == CNS_CHANGE)
            TRY(cns_message_check_members(item->payload->data, item->payload->len));
    }
    return ERR_OK;
}

static enum err check_append(const struct raft *r, const struct cns_message *m)
{
    const struct raft_append_entries *a = &m->m.append_entries;
    if (a->term > TERM_MAX || a->prev_log_index > INDEX_MAX)
        return err_fail(ERR_PROTOCOL, "an AppendEntries of an impossible term or index");
    if (a->term == r->current_term && r->state == RAFT_LEADER)
        return err_fail(ERR_PROTOCOL, "two leaders of term %llu", (unsigned long long)a->term);
    if ((a->prev_log_index == 0) != (a->prev_log_term == 0) || a->prev_log_term > a->term)
        return err_fail(ERR_PROTOCOL, "an AppendEntries behind entry %llu of term %llu",
                        (unsigned long long)a->prev_log_index,
                        (unsigned long long)a->prev_log_term);
    return check_items(a, m->items, m->n_items);
}

enum err guard_message(const struct raft *r, uint64_t from, const struct cns_message *m)
{
    uint64_t term = 0, candidate = from;
    switch (m->m.type) {
    case RAFT_APPEND_ENTRIES:
        return check_append(r, m);
    case RAFT_APPEND_ENTRIES_RESULT:
        term = m->m.append_entries_result.term;
        if (m->m.append_entries_result.rejected > INDEX_MAX ||
            m->m.append_entries_result.last_log_index > INDEX_MAX)
            return err_fail(ERR_PROTOCOL, "an AppendEntriesResult of an impossible index");
        break;
    case RAFT_REQUEST_VOTE:
        term = m->m.request_vote.term;
        candidate = m->m.request_vote.candidate_id;
        break;
    case RAFT_REQUEST_VOTE_RESULT:
        term = m->m.request_vote_result.term;
        break;
    case RAFT_TIMEOUT_NOW:
        term = m->m.timeout_now.term;
        break;
    case RAFT_INSTALL_SNAPSHOT:
        return err_fail(ERR_PROTOCOL, "snapshots are not taken from peers by this version");
    default:
        return err_fail(ERR_PROTOCOL, "an unknown kind of message");
    }
    if (term == 0 || term > TERM_MAX)
        return err_fail(ERR_PROTOCOL, "a message of the impossible term %llu",
                        (unsigned long long)term);
    if (candidate != from)
        return err_fail(ERR_PROTOCOL, "a vote asked for in another's name");
    return ERR_OK;
}

static uint64_t term_of(const struct raft_message *m)
{
    switch (m->type) {
    case RAFT_APPEND_ENTRIES:
        return m->append_entries.term;
    case RAFT_APPEND_ENTRIES_RESULT:
        return m->append_entries_result.term;
    case RAFT_REQUEST_VOTE:
        return m->request_vote.pre_vote ? 0 : m->request_vote.term; /* a pre-vote moves no term */
    case RAFT_REQUEST_VOTE_RESULT:
        return m->request_vote_result.term;
    case RAFT_TIMEOUT_NOW:
        return m->timeout_now.term;
    case RAFT_INSTALL_SNAPSHOT:
    default:
        return 0;
    }
}

bool guard_is_far(const struct raft *r, const struct raft_message *m)
{
    uint64_t term = term_of(m);
    return term > r->current_term && term - r->current_term > GUARD_TERM_STEP;
}

/* A vote asked for by a candidate without a log is the one message that can move the term in every
 * role and nothing else: it is never granted, our log has at least the members. */
bool guard_step(const struct raft *r, struct raft_message *m)
{
    bool disrupt = false;
    switch (m->type) {
    case RAFT_APPEND_ENTRIES:
        disrupt = true;
        break;
    case RAFT_APPEND_ENTRIES_RESULT:
        disrupt = r->state == RAFT_LEADER;
        break;
    case RAFT_REQUEST_VOTE:
        disrupt = m->request_vote.disrupt_leader;
        break;
    case RAFT_REQUEST_VOTE_RESULT:
        disrupt = r->state == RAFT_CANDIDATE;
        break;
    case RAFT_TIMEOUT_NOW:
    case RAFT_INSTALL_SNAPSHOT:
    default:
        break;
    }
    if (!disrupt && m->type != RAFT_REQUEST_VOTE)
        return false;
    m->type = RAFT_REQUEST_VOTE;
    m->request_vote = (struct raft_request_vote){.version = 2,
                                                 .term = r->current_term + GUARD_TERM_STEP,
                                                 .candidate_id = m->server_id,
                                                 .disrupt_leader = disrupt};
    return true;
}

void guard_tell_term(const struct raft *r, struct raft_request_vote_result *res)
{
    if (res->pre_vote && !res->vote_granted && res->term < r->current_term)
        res->term = r->current_term;
}

unsigned guard_cut(const struct cns_item *items, unsigned n)
{
    for (unsigned i = 1; i < n; i++)
        if (items[i].kind == CNS_CHANGE)
            return i;
    return n;
}
