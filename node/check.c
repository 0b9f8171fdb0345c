/* Room: node. Thread: main; no loop runs. Owns: nothing; writes nothing.
 *
 *   database   repl_check: position, WAL, every page, `hashes`
 *   log        cns_check: every byte of every segment, term, vote, snapshot record, `peers`
 *   both       the entry (or the snapshot's note) of the database's sequence has its checksum
 *   fetch      a database on its way from another node
 *
 * Not here: mending. A node that starts mends what can be mended (startup.c). */
#include "node/check.h"

#include "base/mem.h"
#include "node/identity.h"
#include "node/record.h"
#include "replication/replication.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "Usage: lecternd check DIR\n\n"
    "Verifies the files of a stopped node: every page and every entry of the log against their\n"
    "checksums, and the database against the log. Changes nothing.\n"
    "Exit status: 0 all is well; 1 something is damaged, or cannot be checked; 2 wrong usage.\n";

struct check {
    const char *dir;
    char *database, *raft;
    unsigned damages;
    bool has_database, has_log;
    struct repl_check db;
    struct cns_report log;
    uint64_t found_index, found_checksum; /* the log's word on the database's sequence; 0: none */
    uint64_t oldest_seq; /* of the log's transactions that were looked at, or of its snapshot */
};

static void damage(struct check *c, const char *sentence)
{
    c->damages++;
    (void)printf("DAMAGED   %s\n", sentence);
}

static void say(void *ctx, bool is_damage, const char *sentence)
{
    if (is_damage)
        damage(ctx, sentence);
    else
        (void)printf("note      %s\n", sentence);
}

static void say_megabytes(uint64_t bytes)
{
    (void)printf("%.1f MiB", (double)bytes / (1024.0 * 1024.0));
}

/* --- the parts -------------------------------------------------------------------------------- */

static void check_identity(struct check *c)
{
    struct identity who;
    if (!identity_exists(c->dir))
        return;
    if (identity_read(c->dir, &who) != ERR_OK) {
        damage(c, err_text());
        return;
    }
    (void)printf("node      %" PRIu64 " of cluster %" PRIu64 "\n", who.id, who.cluster_id);
}

/* ERR_LOCKED: the node runs, nothing can be said. */
static enum err check_database(struct check *c)
{
    enum err e = repl_check(c->database, say, c, &c->db);
    if (e == ERR_NOT_FOUND || e == ERR_LOCKED)
        return e;
    if (e != ERR_OK) {
        damage(c, err_text());
        return ERR_OK;
    }
    c->has_database = true;
    if (c->db.position_known)
        (void)printf("database  sequence %" PRIu64 ", ", c->db.seq);
    else
        (void)printf("database  sequence not told by its files, ");
    (void)printf("checksum %016" PRIx64 ", %u pages, ", c->db.checksum, c->db.pages);
    say_megabytes((uint64_t)c->db.pages * c->db.page_size);
    (void)printf("; WAL of ");
    say_megabytes(c->db.wal_bytes);
    (void)printf(" with %u frames that count; %s\n", c->db.wal_frames,
                 c->db.closed ? "closed cleanly" : "not closed cleanly");
    if (!c->db.hashes_fit)
        (void)printf("note      `hashes` does not fit: the next start reads all pages\n");
    return ERR_OK;
}

/* The newest entry that ends the transaction which the database is at. */
static bool visit(void *ctx, uint64_t index, uint64_t term, const uint8_t *p, size_t n)
{
    struct check *c = ctx;
    struct repl_entry e;
    (void)term;
    if (repl_entry_read(p, n, &e) != ERR_OK) {
        damage(c, err_text());
        return false;
    }
    if (e.part + 1 != e.parts)
        return true;
    c->oldest_seq = e.seq;
    if (c->db.position_known ? e.seq == c->db.seq : e.checksum_after == c->db.checksum) {
        c->found_index = index;
        c->found_checksum = e.checksum_after;
        return false;
    }
    return !c->db.position_known || e.seq > c->db.seq;
}

static enum err check_log(struct check *c)
{
    enum err e = cns_check(c->raft, c->has_database ? visit : NULL, c, &c->log);
    if (e == ERR_NOT_FOUND || e == ERR_LOCKED)
        return e;
    if (e != ERR_OK) {
        damage(c, err_text());
        return ERR_OK;
    }
    c->has_log = true;
    const struct cns_report *l = &c->log;
    if (l->last_index < l->first_index)
        (void)printf("log       empty behind entry %" PRIu64, l->last_index);
    else
        (void)printf("log       entries %" PRIu64 " to %" PRIu64, l->first_index, l->last_index);
    (void)printf(", term %" PRIu64 ", vote %" PRIu64 "; %" PRIu64 " segments, ", l->term, l->vote,
                 l->segments);
    say_megabytes(l->bytes);
    if (l->snapshot.index > 0)
        (void)printf("; snapshot at entry %" PRIu64, l->snapshot.index);
    (void)putchar('\n');
    if (l->torn)
        (void)printf("note      the last write to the log was cut short; it was acknowledged to "
                     "nobody, and the next start drops it\n");
    if (l->unfinished)
        (void)printf("note      a fetched state is being taken up: the next start finishes it\n");
    if (l->damage != ERR_OK)
        damage(c, l->sentence);
    if (l->peers != ERR_OK)
        damage(c, l->peers_sentence);
    return ERR_OK;
}

static void check_agreement(struct check *c)
{
    struct lane_mark m;
    char text[256];
    if (!c->has_database || !c->has_log || c->log.damage != ERR_OK)
        return;
    if (c->found_index == 0 && c->log.snapshot.index > 0) {
        if (note_decode(&c->log.snapshot, &m) != ERR_OK) {
            damage(c, err_text());
            return;
        }
        if (c->db.position_known ? m.seq == c->db.seq : m.checksum == c->db.checksum) {
            c->found_index = m.index;
            c->found_checksum = m.checksum;
        }
        c->oldest_seq = c->oldest_seq == 0 ? m.seq + 1 : c->oldest_seq;
    }
    if (c->found_index == 0 && c->db.position_known && c->db.seq + 1 < c->oldest_seq) {
        (void)snprintf(text, sizeof text,
                       "the database is at sequence %" PRIu64 ", the log begins behind that: the "
                       "next start fetches the database from another node",
                       c->db.seq);
        damage(c, text);
    } else if (c->found_index == 0 && c->db.position_known && c->db.seq == 0) {
        return; /* an empty database: no entry says anything of it */
    } else if (c->found_index == 0) {
        (void)snprintf(text, sizeof text,
                       "no entry of the log leads to the database's %s: it was changed outside of "
                       "Lectern, or belongs to another log",
                       c->db.position_known ? "sequence" : "checksum");
        damage(c, text);
    } else if (c->found_checksum != c->db.checksum) {
        (void)snprintf(text, sizeof text,
                       "the pages have checksum %016" PRIx64 ", entry %" PRIu64 " of the log says "
                       "%016" PRIx64 " for their sequence",
                       c->db.checksum, c->found_index, c->found_checksum);
        damage(c, text);
    } else {
        (void)printf("agree     entry %" PRIu64 " of the log has the database's checksum\n",
                     c->found_index);
    }
}

static void check_fetch(struct check *c)
{
    struct repl_image_head head;
    enum repl_fetch_state state;
    uint8_t *note = mem_alloc(REPL_FETCH_NOTE_MAX);
    size_t n;
    enum err e = repl_fetch_look(c->database, &state, &head, note, &n);
    free(note);
    if (e != ERR_OK)
        damage(c, err_text());
    else if (state == REPL_FETCH_BEGUN)
        (void)printf("note      a fetch from another node was begun: the next start goes on with "
                     "it\n");
    else if (state == REPL_FETCH_COMPLETE)
        (void)printf("note      a fetched database of sequence %" PRIu64 " is complete: the next "
                     "start takes it up\n",
                     head.seq);
}

/* --- all -------------------------------------------------------------------------------------- */

static enum err check_all(struct check *c)
{
    check_identity(c);
    enum err db = check_database(c), log = ERR_OK;
    if (db != ERR_LOCKED)
        log = check_log(c);
    if (db == ERR_LOCKED || log == ERR_LOCKED)
        return ERR_LOCKED;
    if (db == ERR_NOT_FOUND && log == ERR_NOT_FOUND)
        return err_fail(ERR_NOT_FOUND, "%s holds no node: neither main.db nor raft/", c->dir);
    check_fetch(c);
    if (db == ERR_NOT_FOUND)
        (void)printf("note      there is no main.db: the next start builds or fetches it\n");
    if (log == ERR_NOT_FOUND)
        damage(c, "the log (raft/) is missing: this node may have forgotten votes and "
                  "acknowledgements; it must join again under a new id");
    check_agreement(c);
    return ERR_OK;
}

int check_main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        (void)fputs(usage, stdout);
        return 0;
    }
    if (argc != 2 || argv[1][0] == '-') {
        (void)fputs(usage, stderr);
        return 2;
    }
    struct check c = {.dir = argv[1]};
    c.database = mem_printf("%s/main.db", c.dir);
    c.raft = mem_printf("%s/raft", c.dir);
    enum err e = check_all(&c);
    if (e != ERR_OK)
        (void)fprintf(stderr, "lecternd check: %s\n", err_text());
    else if (c.damages == 0)
        (void)printf("ok        nothing is damaged\n");
    else
        (void)printf(
            "DAMAGED   %u times: see above. A start with others in the cluster repairs the "
            "database; a damaged log means a new id (lecternd --join)\n",
            c.damages);
    cns_payload_unref(c.log.snapshot.members);
    free(c.database);
    free(c.raft);
    return e == ERR_OK && c.damages == 0 ? 0 : 1;
}
