/* Room: node. Thread: main; no loop runs. Owns: DIR/recovery.
 *
 *   look        the log is whole (cns_check), what it holds is told, the operator confirms
 *   mark        DIR/recovery/begun, durable: from here on the database may hold what the old
 * cluster takes back, and its next start there builds or fetches another one (startup.c) apply all
 * whole transactions of the own log, committed or not, into the database; closed build
 * DIR/recovery/raft: a new log that begins behind that state, one member, a new cluster id: no node
 * of the old cluster will ever be heard by the new one decide      DIR/recovery/node, durable: from
 * here on there is only forward switch      no mark, raft -> raft.lost-DATE, recovery/raft -> raft,
 * recovery/node -> node
 *
 * *If the process dies* before `decide`, the old node is as it was, but for its database, see
 * `mark`; after it, the node does not start until this was run again, which goes on with `switch`.
 *
 * Nothing is deleted: the old log stays aside. Entries keep their database id, so `position` need
 * not change; what separates the clusters is the cluster id, in the peers' greeting. */
#include "node/lost_majority.h"

#include "base/check.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "node/join.h"
#include "node/node.h"
#include "node/record.h"
#include "node/startup.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define WINDOW_BYTES MIB(64) /* of entries in memory at once */
#define ID_STEP      100u    /* the ids of the new cluster begin above the next hundred */
#define CONFIRMS     "--yes-i-may-lose-data"

struct recovery {
    struct config *config;
    struct node_past past; /* .who: the node in the old cluster */
    struct cns_report log;
    uint64_t newest_seq;  /* of the log's entries, 0: it has none */
    struct lane_mark at;  /* where the database ends up */
    struct identity next; /* the node in the new cluster */
    char *dir, *raft;
    char *new_dir, *new_raft; /* DIR/recovery, DIR/recovery/raft */
};

static char *mark_of(const char *dir)
{
    return mem_printf("%s/recovery/begun", dir);
}

bool lost_majority_unfinished(const char *dir)
{
    char *path = mem_printf("%s/recovery", dir);
    bool is = identity_exists(path);
    free(path);
    return is;
}

bool lost_majority_given_up(const char *dir)
{
    char *path = mark_of(dir);
    bool is = file_is_there(path);
    free(path);
    return is;
}

enum err lost_majority_forget(const char *dir)
{
    char *mark = mark_of(dir), *in = mem_printf("%s/recovery", dir);
    enum err e = ERR_OK;
    if (unlink(mark) == 0)
        e = file_sync_dir(in);
    else if (errno != ENOENT && errno != ENOTDIR)
        e = file_error("remove", mark);
    free(mark);
    free(in);
    return e;
}

/* --- look ------------------------------------------------------------------------------------- */

static bool visit_newest(void *ctx, uint64_t index, uint64_t term, const uint8_t *p, size_t n)
{
    struct recovery *r = ctx;
    struct repl_entry e;
    (void)index;
    (void)term;
    if (repl_entry_read(p, n, &e) == ERR_OK)
        r->newest_seq = e.seq;
    return false;
}

static enum err look(struct recovery *r)
{
    TRY(identity_read(r->dir, &r->past.who));
    TRY(cns_check(r->raft, visit_newest, r, &r->log));
    if (r->log.damage != ERR_OK)
        return err_fail(r->log.damage,
                        "this node's log is damaged, it cannot tell what was in it: %s. Recover "
                        "from another node that is left",
                        r->log.sentence);
    if (r->log.peers != ERR_OK)
        return err_fail(r->log.peers, "%s", r->log.peers_sentence);
    if (r->log.unfinished)
        return err_fail(ERR_CONFIG, "a fetched state is being taken up: start the node once, and "
                                    "stop it when it says that it is ready");
    if (r->log.cluster_id != r->past.who.cluster_id || r->log.id != r->past.who.id)
        return err_fail(ERR_CONFIG, "%s and %s/node are of two different nodes", r->raft, r->dir);
    return ERR_OK;
}

static void tell(const struct recovery *r)
{
    (void)printf(
        "This is node %" PRIu64 " of cluster %" PRIu64 ". Its log ends with entry %" PRIu64
        " of term %" PRIu64 ", transaction %" PRIu64 ".\n"
        "\n"
        "`lecternd recover` makes it a new cluster of one node, with all that its own log holds.\n"
        "What may be lost: every write after that which the other nodes acknowledged without this\n"
        "one. Nobody can tell here whether there are any. If another node is left whose log ends\n"
        "with a higher term, or the same term and a higher entry, recover from that one instead.\n"
        "The other nodes can never come back into it: they join anew, with empty directories.\n"
        "First make sure that none of them runs, or will be started again.\n\n",
        r->past.who.id, r->past.who.cluster_id, r->log.last_index, r->log.last_term, r->newest_seq);
    (void)fflush(stdout);
}

static enum err confirm(const struct recovery *r, bool confirmed)
{
    char line[64], wanted[32];
    if (confirmed)
        return ERR_OK;
    if (!isatty(STDIN_FILENO))
        return err_fail(ERR_CANCELLED, "nothing was done. Give " CONFIRMS " to do it");
    (void)printf("Type the number of this node to go on: ");
    (void)fflush(stdout);
    (void)snprintf(wanted, sizeof wanted, "%" PRIu64 "\n", r->past.who.id);
    if (fgets(line, sizeof line, stdin) == NULL || strcmp(line, wanted) != 0)
        return err_fail(ERR_CANCELLED, "nothing was done");
    return ERR_OK;
}

static enum err mark_begun(const struct recovery *r)
{
    static const char word[] = "a recovery was begun\n";
    char *mark = mark_of(r->dir);
    enum err e = file_make_dirs(r->new_dir);
    if (e == ERR_OK)
        e = file_replace(mark, word, sizeof word - 1);
    free(mark);
    return e == ERR_OK ? file_sync_dir(r->dir) : e;
}

/* --- apply ------------------------------------------------------------------------------------ */

struct tail_entry {
    uint64_t index, term;
    size_t len;
    uint8_t *data; /* while it is in the window */
};

/* The commands of the log behind the database, newest first. */
struct tail {
    struct tail_entry *entries;
    size_t n, room;
    uint64_t applied;   /* the last index that is not wanted */
    size_t first, last; /* the window: entries[first], the oldest, down to entries[last] */
};

static bool visit_tail(void *ctx, uint64_t index, uint64_t term, const uint8_t *p, size_t n)
{
    struct tail *t = ctx;
    (void)p;
    if (index <= t->applied)
        return false;
    if (t->n == t->room) {
        t->room = t->room == 0 ? 1024 : 2 * t->room;
        t->entries = mem_realloc(t->entries, t->room * sizeof *t->entries);
    }
    t->entries[t->n++] = (struct tail_entry){.index = index, .term = term, .len = n};
    return true;
}

static bool visit_window(void *ctx, uint64_t index, uint64_t term, const uint8_t *p, size_t n)
{
    struct tail *t = ctx;
    size_t at = t->last, behind = t->first + 1;
    (void)term;
    while (behind - at > 1) { /* indexes fall */
        size_t middle = at + (behind - at) / 2;
        if (t->entries[middle].index >= index)
            at = middle;
        else
            behind = middle;
    }
    if (t->entries[at].index == index) {
        CHECK(t->entries[at].len == n);
        t->entries[at].data = mem_alloc(n);
        memcpy(t->entries[at].data, p, n);
    }
    return index > t->entries[t->first].index;
}

static enum err apply_window(struct tail *t, struct repl_db *db, uint64_t *term) ON_OWNER
{
    enum err e = ERR_OK;
    for (size_t i = t->first + 1; i-- > t->last;) {
        struct tail_entry *entry = &t->entries[i];
        bool quiet;
        CHECK(entry->data != NULL);
        if (entry->term != *term)
            repl_db_apply_reset(db); /* what an older leader did not finish is void */
        *term = entry->term;
        if (e == ERR_OK)
            e = repl_db_apply(db, entry->data, entry->len);
        if (e == ERR_OK)
            e = repl_db_upkeep(db, true, &quiet);
        free(entry->data);
        entry->data = NULL;
    }
    return e;
}

/* The log is read from its end only: so many bytes at a time are kept, the oldest first. */
static enum err apply_tail(struct tail *t, struct repl_db *db, struct cns *cns) ON_OWNER ON_LOOP
{
    uint64_t term = 0;
    enum err e = ERR_OK;
    for (size_t left = t->n; e == ERR_OK && left > 0;) {
        size_t bytes = 0;
        t->first = left - 1;
        while (left > 0 && (bytes == 0 || bytes + t->entries[left - 1].len <= WINDOW_BYTES))
            bytes += t->entries[--left].len;
        t->last = left;
        e = cns_scan_back(cns, visit_window, t);
        if (e == ERR_OK)
            e = apply_window(t, db, &term);
    }
    return e;
}

static enum err apply_log(struct recovery *r, struct node *n, uint64_t applied) ON_LOOP
{
    struct tail t = {.applied = applied};
    struct repl_db *db = lane_db(n->lane);
    struct repl_stats stats;
    enum err e = cns_scan_back(n->cns, visit_tail, &t);
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    if (e == ERR_OK)
        e = apply_tail(&t, db, n->cns);
    struct repl_position at = repl_db_position(db);
    thread_become(THREAD_LOOP);
    repl_db_stats(db, &stats);
    r->at = (struct lane_mark){.index = r->log.last_index,
                               .seq = at.seq,
                               .checksum = at.checksum,
                               .pages = stats.pages,
                               .page_size = stats.page_size};
    for (size_t i = 0; i < t.n; i++)
        free(t.entries[i].data);
    free(t.entries);
    return e;
}

static void on_stopped(void *ctx)
{
    (void)ctx; /* it was not started: it stops at once */
}

/* What was closed must be what was meant: it is opened again and looked at. */
static enum err check_closed(const struct recovery *r) ON_LOOP
{
    struct repl_config rc;
    struct repl_db *db;
    char *path = mem_printf("%s/main.db", r->dir);
    repl_config_init(&rc, path);
    rc.database_id = r->past.who.database_id;
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    enum err e = repl_db_open(&rc, &db);
    free(path);
    if (e == ERR_OK) {
        struct repl_position at = repl_db_position(db);
        bool same =
            repl_db_position_known(db) && at.seq == r->at.seq && at.checksum == r->at.checksum;
        e = repl_db_close(db);
        if (e == ERR_OK && !same)
            e = err_fail(ERR_DIVERGED, "the database did not come back as it was closed");
    }
    thread_become(THREAD_LOOP);
    return e;
}

static enum err with_open_files(struct recovery *r, struct node *n) ON_LOOP
{
    struct startup s;
    uint64_t applied = 0;
    struct cns_config cc = {.dir = r->raft,
                            .cluster_id = r->past.who.cluster_id,
                            .id = r->past.who.id,
                            .listen = r->config->peer_listen,
                            .election_ms = (unsigned)r->config->election_ms,
                            .heartbeat_ms = (unsigned)r->config->heartbeat_ms};
    TRY(startup_look(r->config, &s));
    enum err e = cns_open(&cc, &n->cns);
    if (e == ERR_OK)
        e = startup_database(n, &s, &applied);
    startup_fini(&s);
    if (e == ERR_CORRUPT)
        e = err_fail(e, "%s. Recover from another node that is left", err_text());
    if (e == ERR_OK)
        e = apply_log(r, n, applied);
    return e;
}

static enum err apply(struct recovery *r) ON_LOOP
{
    struct node n = {.config = r->config, .past = &r->past};
    char sentence[ERR_TEXT_MAX];
    mail_init(&n.mail, NULL, NULL);
    enum err e = with_open_files(r, &n);
    (void)snprintf(sentence, sizeof sentence, "%s", err_text());
    if (n.lane != NULL)
        lane_close(n.lane);
    if (n.cns != NULL)
        cns_stop(n.cns, on_stopped, NULL);
    mail_fini(&n.mail);
    return e == ERR_OK ? check_closed(r) : err_fail(e, "%s", sentence);
}

/* --- build, decide ---------------------------------------------------------------------------- */

/* The files of DIR, and DIR; it need not be there. */
static enum err remove_files(const char *dir)
{
    DIR *d = opendir(dir);
    const struct dirent *entry;
    enum err e = ERR_OK;
    if (d == NULL)
        return errno == ENOENT ? ERR_OK : file_error("read", dir);
    while (e == ERR_OK && (entry = readdir(d)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        char *path = mem_printf("%s/%s", dir, entry->d_name);
        if (unlink(path) != 0)
            e = file_error("remove", path);
        free(path);
    }
    (void)closedir(d);
    if (e == ERR_OK && rmdir(dir) != 0)
        e = file_error("remove", dir);
    return e;
}

static enum err new_cluster_id(uint64_t old, uint64_t *out)
{
    uint32_t random;
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        return err_fail(ERR_IO, "no random number: %s", strerror(errno));
    *out = (uint64_t)random + 2; /* 1 is everybody's default */
    *out += *out == old;
    return ERR_OK;
}

static enum err build_log(struct recovery *r) ON_LOOP
{
    struct cns_server self = {.id = r->next.id, .address = r->next.peer, .role = CNS_VOTER};
    struct cns_snapshot base = {
        .index = r->log.last_index, .term = r->log.last_term, .members_index = r->log.last_index};
    uint64_t highest = r->log.snapshot.highest_id;
    highest = highest > r->next.id ? highest : r->next.id;
    base.highest_id = highest - highest % ID_STEP + ID_STEP;
    base.data_len = note_encode(&r->at, base.data);
    TRY(cns_encode_members(&self, 1, &base.members));
    struct cns_config cc = {.dir = r->new_raft,
                            .cluster_id = r->next.cluster_id,
                            .id = r->next.id,
                            .listen = r->config->peer_listen,
                            .base = &base,
                            .election_ms = (unsigned)r->config->election_ms,
                            .heartbeat_ms = (unsigned)r->config->heartbeat_ms};
    struct cns *cns = NULL;
    enum err e = cns_open(&cc, &cns);
    if (e == ERR_OK)
        cns_stop(cns, on_stopped, NULL);
    cns_payload_unref(base.members);
    return e;
}

static enum err build(struct recovery *r) ON_LOOP
{
    TRY(remove_files(r->new_raft)); /* left by a recovery that died before it was decided */
    r->next = r->past.who;
    r->next.joined = r->next.begun = true;
    r->next.wish = WISH_NONE;
    r->next.replace = r->next.since = 0;
    r->next.contacts[0] = 0;
    TRY(new_cluster_id(r->past.who.cluster_id, &r->next.cluster_id));
    TRY(build_log(r));
    TRY(file_sync_dir(r->new_dir));
    TRY(file_sync_dir(r->dir));
    return identity_write(r->new_dir, &r->next);
}

/* --- switch ----------------------------------------------------------------------------------- */

static enum err move(const char *from, const char *to)
{
    if (rename(from, to) != 0)
        return err_fail(ERR_IO, "cannot rename %s to %s: %s", from, to, strerror(errno));
    return ERR_OK;
}

static enum err put_aside(const struct recovery *r)
{
    char date[32];
    struct tm tm;
    time_t now = time(NULL);
    if (!file_is_there(r->raft))
        return ERR_OK; /* done before we died */
    if (gmtime_r(&now, &tm) == NULL || strftime(date, sizeof date, "%Y%m%dT%H%M%SZ", &tm) == 0)
        return err_fail(ERR_IO, "no date");
    char *lost = mem_printf("%s.lost-%s", r->raft, date);
    for (unsigned i = 2; file_is_there(lost); i++) {
        free(lost);
        lost = mem_printf("%s.lost-%s.%u", r->raft, date, i);
    }
    enum err e = move(r->raft, lost);
    if (e == ERR_OK)
        (void)printf("The old log is kept as %s.\n", lost);
    free(lost);
    return e;
}

static enum err switch_over(struct recovery *r)
{
    TRY(identity_read(r->new_dir, &r->next));
    TRY(lost_majority_forget(r->dir)); /* the new cluster takes nothing back */
    if (file_is_there(r->new_raft)) {
        TRY(put_aside(r));
        TRY(file_sync_dir(r->dir));
        TRY(move(r->new_raft, r->raft));
        TRY(file_sync_dir(r->dir));
        TRY(file_sync_dir(r->new_dir));
    }
    char *from = mem_printf("%s/node", r->new_dir), *to = mem_printf("%s/node", r->dir);
    enum err e = move(from, to);
    free(from);
    free(to);
    TRY(e);
    TRY(file_sync_dir(r->dir));
    (void)rmdir(r->new_dir); /* empty; harmless if it stays */
    return ERR_OK;
}

/* --- the command ------------------------------------------------------------------------------ */

static enum err run(struct recovery *r, bool confirmed) ON_LOOP
{
    if (!lost_majority_unfinished(r->dir)) {
        TRY(look(r));
        tell(r);
        TRY(confirm(r, confirmed));
        TRY(mark_begun(r));
        TRY(apply(r));
        TRY(build(r));
    } else {
        (void)printf("A recovery of %s was begun: it goes on.\n", r->dir);
    }
    TRY(switch_over(r));
    (void)printf(
        "Done: node %" PRIu64 " is a cluster of its own, with the id %" PRIu64 ".\n"
        "Start it with --data %s and its addresses (--listen, --peer-listen), without --id,"
        "\n--cluster and --cluster-id. Then let others join: lecternd --join.\n",
        r->next.id, r->next.cluster_id, r->dir);
    return ERR_OK;
}

static bool take_flag(int *argc, char **argv)
{
    bool found = false;
    int kept = 0;
    for (int i = 0; i < *argc; i++) {
        if (strcmp(argv[i], CONFIRMS) == 0)
            found = true;
        else
            argv[kept++] = argv[i];
    }
    argv[kept] = NULL;
    *argc = kept;
    return found;
}

/* Without one the settings of a first start would be asked for. No --data: that is said first. */
static bool has_node(const struct config *c)
{
    return c->data == NULL || c->data[0] == 0 || identity_exists(c->data) ||
           lost_majority_unfinished(c->data);
}

int lost_majority_main(int argc, char **argv)
{
    struct config c;
    enum config_wish wish;
    bool confirmed = take_flag(&argc, argv);
    enum err e = config_load(&c, argc, argv, &wish);
    if (e == ERR_OK && wish == CONFIG_HELP)
        (void)printf(
            "Usage: lecternd recover --data DIR [" CONFIRMS "]\n\n"
            "The majority of the cluster is lost for good: makes the stopped node of DIR a "
            "cluster of one.\nWithout the flag it says what that may lose, and asks. See "
            "lecternd(8).\n");
    const bool no_node = wish == CONFIG_RUN && (e == ERR_OK || e == ERR_CONFIG) && !has_node(&c);
    if (no_node)
        e = err_fail(ERR_NOT_FOUND,
                     "there is no node in %s (no file `node`): --data DIR is the "
                     "directory of the node that is left",
                     c.data);
    if (e != ERR_OK || wish != CONFIG_RUN) {
        if (e != ERR_OK)
            (void)fprintf(stderr, "lecternd recover: %s\n", err_text());
        config_fini(&c);
        return e == ERR_OK ? 0 : no_node ? 1 : 2;
    }
    struct recovery *r = MEM_NEW(struct recovery);
    r->config = &c;
    r->past.alone = true;
    r->dir = mem_printf("%s", c.data);
    r->raft = mem_printf("%s/raft", c.data);
    r->new_dir = mem_printf("%s/recovery", c.data);
    r->new_raft = mem_printf("%s/recovery/raft", c.data);
    e = run(r, confirmed);
    if (e != ERR_OK)
        (void)fprintf(stderr, "lecternd recover: %s\n", err_text());
    cns_payload_unref(r->log.snapshot.members);
    free(r->dir);
    free(r->raft);
    free(r->new_dir);
    free(r->new_raft);
    free(r);
    config_fini(&c);
    return e == ERR_OK ? 0 : 1;
}
