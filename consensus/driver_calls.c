/* Room: consensus. Thread: loop. Owns: nothing (driver_state.h). What the node asks for. */
#include "base/check.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "consensus/driver_state.h"
#include "consensus/members.h"

#include <stdlib.h>
#include <string.h>

/* The payloads as entries of the current term behind the log's last. */
static struct cns_item *make_items(const struct driver *d, struct cns_payload *const *payloads,
                                   unsigned n)
{
    struct cns_item *items = mem_alloc(n * sizeof *items);
    for (unsigned i = 0; i < n; i++)
        items[i] =
            (struct cns_item){d->terms.last + 1 + i, d->r.current_term, CNS_COMMAND, payloads[i]};
    return items;
}

enum err driver_propose(struct driver *d, uint64_t term, struct cns_payload *const *payloads,
                        unsigned n, uint64_t *first_index)
{
    if (d->life != RUNNING)
        return err_fail(ERR_STOPPED, "this member takes part no more");
    if (!d->leading || term != d->lead_term)
        return err_fail(ERR_NOT_LEADER, "not the leader of term %llu", (unsigned long long)term);
    uint64_t bytes = 0;
    for (unsigned i = 0; i < n; i++) {
        if (payloads[i]->len > ENTRY_BYTES_MAX)
            return err_fail(ERR_TOO_BIG, "an entry of %zu bytes; at most %llu", payloads[i]->len,
                            ENTRY_BYTES_MAX);
        bytes += journal_item_cost(payloads[i]);
    }
    if (n == 0)
        return err_fail(ERR_MISUSE, "nothing proposed");
    uint64_t busy = driver_busy_bytes(d);
    if (driver_is_handing_over(d) || (busy > 0 && busy + bytes > INFLIGHT_BYTES_MAX)) {
        d->want_room = true;
        return err_fail(ERR_BUSY, "too many bytes wait for a majority");
    }
    struct cns_item *items = make_items(d, payloads, n);
    void *batch = entries_batch(&d->entries, items, n);
    uint64_t first = d->terms.last + 1;
    d->src = items;
    d->n_src = n;
    d->inflight_bytes += bytes;
    struct raft_event e = {.type = RAFT_SUBMIT};
    e.submit.entries = d->entries.e;
    e.submit.n = n;
    bool ok = driver_step(d, &e);
    d->n_src = 0;
    free(items);
    if (!ok) {
        d->inflight_bytes -= d->leading ? bytes : 0;
        raft_free(batch);
        return err_fail(d->life == RUNNING ? ERR_NOT_LEADER : ERR_STOPPED,
                        "the proposal was refused");
    }
    for (unsigned i = 0; i < n; i++)
        cns_payload_unref(payloads[i]); /* the log has its own references */
    *first_index = first;
    return ERR_OK;
}

void driver_applied(struct driver *d, uint64_t index)
{
    if (d->delivery != NULL && d->life != STOPPED)
        delivery_applied(d->delivery, index);
}

enum err driver_cut(struct driver *d, uint64_t index, const uint8_t *data, size_t len,
                    uint64_t keep_bytes)
{
    struct cns_snapshot s;
    if (d->life != RUNNING)
        return err_fail(ERR_STOPPED, "this member takes part no more");
    if (len > CNS_SNAPSHOT_DATA_MAX)
        return err_fail(ERR_TOO_BIG, "a note of %zu bytes for a snapshot record; at most %u", len,
                        CNS_SNAPSHOT_DATA_MAX);
    if (journal_is_cutting(d->journal))
        return err_fail(ERR_BUSY, "the last cut is still on its way");
    TRY(driver_describe(d, index, &s));
    s.data_len = len;
    if (len > 0)
        memcpy(s.data, data, len);
    sender_cut(d->sender, index);
    journal_cut(d->journal, &s, keep_bytes);
    return ERR_OK;
}

void driver_read_index(struct driver *d, struct cns_read *r, uint64_t timeout_ms)
{
    reads_add(d->reads, r, driver_now_ms(d) + timeout_ms);
    d->dirty = true;
}

/* The voter with most of the log, heard of late. */
static uint64_t best_transferee(const struct driver *d)
{
    uint64_t best = 0, best_match = 0, now = driver_now_ms(d);
    for (unsigned i = 0; i < d->r.configuration.n; i++) {
        const struct raft_server *s = &d->r.configuration.servers[i];
        raft_index match = 0;
        if (s->id == d->c.id || s->role != RAFT_VOTER ||
            raft_match_index(&d->r, s->id, &match) != 0 ||
            now - sender_heard_ms(d->sender, s->id) >= d->c.election_ms)
            continue;
        if (best == 0 || match > best_match) {
            best = s->id;
            best_match = match;
        }
    }
    return best;
}

enum err driver_transfer(struct driver *d, uint64_t id)
{
    if (d->life != RUNNING)
        return err_fail(ERR_STOPPED, "this member takes part no more");
    if (!d->leading)
        return err_fail(ERR_NOT_LEADER, "only the leader can hand over");
    if (id == 0)
        id = best_transferee(d);
    const struct raft_server *s = members_find(&d->r.configuration, id);
    if (s == NULL || s->id == d->c.id || s->role != RAFT_VOTER)
        return err_fail(ERR_NOT_FOUND, "no other voter to hand over to");
    if (driver_is_handing_over(d))
        return err_fail(ERR_BUSY, "leadership is being handed over already");
    handover_plan(&d->handover, id, driver_now_ms(d) + d->c.election_ms);
    d->dirty = true;
    return ERR_OK;
}

void driver_send(struct driver *d, uint64_t to, const uint8_t *p, size_t n)
{
    if (d->life != RUNNING)
        return;
    for (unsigned i = 0; i < d->r.configuration.n; i++) {
        uint64_t id = d->r.configuration.servers[i].id;
        if (id != d->c.id && (to == 0 || to == id))
            outbox_send_bytes(&d->outbox, id, CNS_BYTES_NODE, p, n);
    }
}
