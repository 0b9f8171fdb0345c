/* Room: node. Thread: main, before the others start.
 *
 * A member delivers an entry only when it is durable in its own log, so the database is never ahead
 * of the log, and the entry of the database's sequence is in it. Its `checksum_after` must be the
 * checksum of the pages as they lie on the disk now: that is how damage that happened while the
 * node was down is found before anything is served.
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
    uint64_t index, newest_seq;
    struct repl_entry entry;
    enum err result;
};

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
    if (e.part + 1 != e.parts) /* only the last part has the transaction done */
        return true;
    bool same = s->known ? e.seq == s->at.seq : e.checksum_after == s->at.checksum;
    if (same) {
        s->found = true;
        s->index = index;
        s->entry = e;
        return false;
    }
    return !s->known || e.seq > s->at.seq;
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
                    s->at.seq, s->at.checksum, s->entry.checksum_after, where);
}

enum err recover_position(struct repl_db *db, struct cns *cns, uint64_t *applied)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    struct search s = {.known = repl_db_position_known(db), .at = repl_db_position(db)};
    *applied = 0;
    if (s.known && s.at.seq == 0)
        return ERR_OK;
    TRY(cns_scan_back(cns, visit, &s));
    TRY(s.result);
    if (!s.found && s.known)
        return err_fail(
            ERR_NOT_FOUND,
            "the database is at sequence %" PRIu64 ", but this node's log ends at %" PRIu64
            ": the raft directory is not the one that belongs to it. Remove this node's "
            "data directory and let it come back under a new id",
            s.at.seq, s.newest_seq);
    if (!s.found)
        return err_fail(
            ERR_DIVERGED,
            "the database was changed outside of Lectern while this node was down: no entry "
            "of the log leads to its checksum %016" PRIx64,
            s.at.checksum);
    if (s.entry.checksum_after != s.at.checksum)
        return refuse(db, cns, &s);
    if (!s.known)
        TRY(repl_db_adopt_position(db, s.entry.seq));
    *applied = s.index;
    log_info("recover", "position seq=%" PRIu64 " index=%" PRIu64 " checksum=%016" PRIx64,
             s.entry.seq, s.index, s.entry.checksum_after);
    return ERR_OK;
}
