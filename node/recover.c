/* Room: node. Thread: main, before the others start.
 *
 * A member delivers an entry only when it is durable in its own log, so the database is never ahead
 * of the log, and the entry of the database's sequence is in it, or is the last one that was cut,
 * which the snapshot's note stands for. Its checksum must be that of the database: that is how
 * damage that happened while the node was down is found before anything is served. Where it differs
 * the pages are read and hashed once more (the hashes may be what is damaged, not the pages).
 *
 * When another program checkpointed and removed the WAL (opening a stopped node's file with sqlite3
 * does that), the sequence is not known; then the checksum tells which entry the pages are at. Two
 * entries with the same checksum are the same content: either is right. */
#include "node/recover.h"

#include "base/log.h"

#include <inttypes.h>

struct search {
    bool known;
    struct repl_position at;
    bool found;
    uint64_t index, newest_seq, oldest_seq;
    uint64_t seq, checksum; /* of what was found */
    enum err result;
};

static void find(struct search *s, uint64_t index, uint64_t seq, uint64_t checksum)
{
    s->found = true;
    s->index = index;
    s->seq = seq;
    s->checksum = checksum;
}

static bool visit(void *ctx, uint64_t index, uint64_t term, const uint8_t *p, size_t n)
{
    struct search *s = ctx;
    struct repl_entry e;
    (void)term;
    s->result = repl_entry_read(p, n, &e);
    if (s->result != ERR_OK)
        return false;
    if (s->newest_seq == 0)
        s->newest_seq = e.seq;
    s->oldest_seq = e.seq;
    if (e.part + 1 != e.parts) /* only the last part has the transaction done */
        return true;
    if (s->known ? e.seq == s->at.seq : e.checksum_after == s->at.checksum) {
        find(s, index, e.seq, e.checksum_after);
        return false;
    }
    return !s->known || e.seq > s->at.seq;
}

/* In the log, or as the state that it begins behind. */
static enum err look(struct search *s, struct cns *cns) ON_LOOP
{
    struct cns_snapshot snapshot;
    struct lane_mark m;
    s->found = false;
    s->newest_seq = s->oldest_seq = 0;
    TRY(cns_scan_back(cns, visit, s));
    TRY(s->result);
    if (s->found || !cns_snapshot_get(cns, &snapshot))
        return ERR_OK;
    TRY(note_decode(&snapshot, &m));
    if (s->known ? m.seq == s->at.seq : m.checksum == s->at.checksum)
        find(s, m.index, m.seq, m.checksum);
    if (m.seq > s->newest_seq)
        s->newest_seq = m.seq;
    if (s->oldest_seq == 0 || m.seq < s->oldest_seq)
        s->oldest_seq = m.seq + 1;
    return ERR_OK;
}

static bool compare(void *ctx, uint64_t index, uint64_t term, const uint8_t *p, size_t n)
{
    (void)index;
    (void)term;
    thread_expect_owner();
    /* An entry that cannot be read is not what is looked for here. */
    return repl_compare_entry(ctx, p, n) == ERR_OK;
}

/* Damaged, or changed by another program: says where. */
static enum err refuse(struct repl_db *db, struct cns *cns, const struct search *s) ON_OWNER ON_LOOP
{
    char where[200];
    struct repl_compare *c = repl_compare_new(db);
    enum err e = cns_scan_back(cns, compare, c);
    repl_compare_end(c, where, sizeof where);
    TRY(e);
    return err_fail(ERR_DIVERGED,
                    "the database differs from the log at sequence %" PRIu64 ": its pages have "
                    "checksum %016" PRIx64 ", the log says %016" PRIx64
                    "; %s. main.db or its WAL is damaged, or was changed outside of Lectern",
                    s->at.seq, s->at.checksum, s->checksum, where);
}

/* The database's sequence is not in the log: on which side of it is it? */
static enum err judge_missing(const struct search *s, struct recovered *out)
{
    if (!s->known) {
        out->not_ours = true;
        return err_fail(ERR_DIVERGED,
                        "main.db or its WAL is damaged, or was changed outside of Lectern: no "
                        "entry of the log leads to its checksum %016" PRIx64,
                        s->at.checksum);
    }
    if (s->at.seq >= s->oldest_seq)
        return err_fail(
            ERR_NOT_FOUND,
            "the database is at sequence %" PRIu64 ", but this node's log ends at %" PRIu64
            ": the raft directory is not the one that belongs to it. Remove this node's "
            "data directory and let it come back under a new id",
            s->at.seq, s->newest_seq);
    out->behind = true;
    log_warn("recover", "behind seq=%" PRIu64 " log_begins=%" PRIu64, s->at.seq, s->oldest_seq);
    return ERR_OK;
}

static bool differs(const struct search *s)
{
    return s->found ? s->checksum != s->at.checksum : !s->known;
}

enum err recover_position(struct repl_db *db, struct cns *cns, struct recovered *out)
{
    struct cns_snapshot snapshot;
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct search s = {.known = repl_db_position_known(db), .at = repl_db_position(db)};
    *out = (struct recovered){0};
    if (s.known && s.at.seq == 0 && !cns_snapshot_get(cns, &snapshot))
        return ERR_OK;
    TRY(look(&s, cns));
    if (differs(&s)) {
        TRY(repl_db_rehash(db));
        s.known = repl_db_position_known(db);
        s.at = repl_db_position(db);
        TRY(look(&s, cns));
    }
    if (!s.found)
        return judge_missing(&s, out);
    if (s.checksum != s.at.checksum)
        return refuse(db, cns, &s);
    if (!s.known)
        TRY(repl_db_adopt_position(db, s.seq));
    out->applied = s.index;
    log_info("recover", "position seq=%" PRIu64 " index=%" PRIu64 " checksum=%016" PRIx64, s.seq,
             s.index, s.checksum);
    return ERR_OK;
}
