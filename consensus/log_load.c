/* Room: consensus. Thread: loop, before the log starts.
 * Owns: nothing after it returns.
 * Invariants: what is loaded is durable when log_load returns, whatever the page cache held;
 *             no entry that was acknowledged is dropped unless nothing on the disk shows that it
 *             was there (docs/FORMATS.md names that case).
 * Not here: the formats (log_segment.c, log_meta.c, log_snapshot.c), a new log (log_make.c).
 *
 * A directory with log files and no identity is not ours to judge: it is refused. */
#include "consensus/log_load.h"

#include "base/check.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "consensus/log_make.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* A segment's file as the directory names it. */
struct found {
    char *path;
    uint64_t first_index, epoch;
};
struct listing {
    struct found *all;
    size_t n, cap;
    bool has_files; /* of a log, other than segments */
};

/* --- the directory ---------------------------------------------------------------------------- */

static void listing_fini(struct listing *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->all[i].path);
    free(l->all);
}

static int by_epoch(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    return x->epoch < y->epoch ? -1 : x->epoch > y->epoch;
}

static enum err remove_file(struct log_store *s, const char *path)
{
    return s->read_only ? ERR_OK : log_file_remove(&s->files, path);
}

static bool is_left_over(const char *name)
{
    static const char *const names[] = {"segment.new", "spare.new", "identity.new", "snapshot.new",
                                        "peers.new"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

/* Segments by epoch. Temporary files are left overs of a crash: removed. */
static enum err list_dir(struct log_store *s, struct listing *l)
{
    *l = (struct listing){0};
    DIR *d = opendir(s->dir);
    if (d == NULL)
        return file_error("list", s->dir);
    enum err e = ERR_OK;
    errno = 0;
    for (struct dirent *it; e == ERR_OK && (it = readdir(d)) != NULL; errno = 0) {
        struct found f;
        if (strcmp(it->d_name, "meta") == 0 || strcmp(it->d_name, "snapshot") == 0)
            l->has_files = true;
        if (is_left_over(it->d_name)) {
            char *path = mem_printf("%s/%s", s->dir, it->d_name);
            e = remove_file(s, path);
            free(path);
        }
        if (!log_store_parse_name(it->d_name, &f.first_index, &f.epoch))
            continue;
        if (l->n == l->cap) {
            l->cap = l->cap == 0 ? 16 : l->cap * 2;
            l->all = mem_realloc(l->all, l->cap * sizeof *l->all);
        }
        f.path = mem_printf("%s/%s", s->dir, it->d_name);
        l->all[l->n++] = f;
    }
    if (e == ERR_OK && errno != 0)
        e = file_error("list", s->dir);
    (void)closedir(d);
    if (l->n > 0)
        qsort(l->all, l->n, sizeof *l->all, by_epoch);
    return e;
}

/* The head of the segment F, open as FD, which must be what its name says. */
static enum err read_head(const struct log_store *s, const struct found *f, int fd,
                          struct log_segment_head *head)
{
    uint8_t bytes[LOG_SEGMENT_HEAD_BYTES] = {0};
    size_t got;
    TRY(file_read_at(fd, f->path, bytes, sizeof bytes, 0, &got));
    TRY(log_segment_head_decode(bytes, f->path, head));
    if (head->cluster_id != s->cluster_id || head->node_id != s->node_id ||
        head->first_index != f->first_index || head->epoch != f->epoch)
        return err_fail(ERR_CORRUPT,
                        "%s is not what its name says, or of another node's log: take it away if "
                        "it does not belong here",
                        f->path);
    return ERR_OK;
}

static enum err check_head(const struct log_store *s, const struct found *f)
{
    struct log_segment_head head;
    int fd;
    TRY(file_open(f->path, O_RDONLY, 0, &fd));
    enum err e = read_head(s, f, fd, &head);
    (void)close(fd);
    return e;
}

/* Takes out of L the segments that newer ones void as a whole; their files are removed. A name
 * proves nothing: before anything is removed for a segment, its head must say the same. */
static enum err drop_void(struct log_store *s, struct listing *l)
{
    size_t kept = 0;
    enum err e = ERR_OK;
    for (size_t i = 0; i < l->n; i++) {
        bool voids = kept > 0 && l->all[kept - 1].first_index >= l->all[i].first_index;
        if (e == ERR_OK && voids)
            e = check_head(s, &l->all[i]);
        while (kept > 0 && l->all[kept - 1].first_index >= l->all[i].first_index) {
            struct found *f = &l->all[--kept];
            if (e == ERR_OK)
                e = remove_file(s, f->path);
            free(f->path);
        }
        struct found f = l->all[i];
        l->all[i].path = NULL; /* moved */
        l->all[kept++] = f;
    }
    l->n = kept;
    return e;
}

/* Takes out of L, and removes, the segments that the installation of another state voided. */
static enum err drop_older(struct log_store *s, struct listing *l)
{
    size_t kept = 0;
    enum err e = ERR_OK;
    for (size_t i = 0; i < l->n; i++) {
        struct found f = l->all[i];
        l->all[i].path = NULL; /* moved */
        if (f.epoch >= s->snapshot.epoch) {
            l->all[kept++] = f;
            continue;
        }
        if (e == ERR_OK)
            e = remove_file(s, f.path);
        free(f.path);
    }
    l->n = kept;
    return e;
}

static enum err take_lock(struct log_store *s)
{
    char *path = mem_printf("%s/lock", s->dir);
    enum err e = file_open(path, s->read_only ? O_RDONLY : O_RDWR | O_CREAT, 0644, &s->lock_fd);
    if (e == ERR_OK && flock(s->lock_fd, LOCK_EX | LOCK_NB) != 0)
        e = errno == EWOULDBLOCK ? err_fail(ERR_LOCKED,
                                            "%s is locked: another process runs this node; stop it "
                                            "first",
                                            s->dir)
                                 : file_error("lock", path);
    free(path);
    return e;
}

/* --- one segment ------------------------------------------------------------------------------ */

static enum err open_segment(struct log_store *s, const struct found *f, struct log_segment **out)
{
    struct log_segment_head head = {0};
    uint64_t size = 0;
    *out = NULL;
    if (s->fd >= 0)
        (void)close(s->fd); /* of the one before, which is sealed then */
    TRY(file_open(f->path, s->read_only ? O_RDONLY : O_RDWR, 0, &s->fd));
    TRY(file_size(s->fd, f->path, &size));
    TRY(read_head(s, f, s->fd, &head));
    if (size > UINT32_MAX)
        return err_fail(ERR_CORRUPT, "%s has an impossible size", f->path);
    *out = log_segment_new(mem_strdup(f->path), &head, size);
    return ERR_OK;
}

/* The records of the segment that was added last, up to entry LIMIT. Leaves the cursor behind the
 * last good one; *stopped says why it stopped there. */
static enum err walk(struct log_store *s, struct log_outline *outline, uint64_t limit,
                     struct log_cursor *c, enum log_step *stopped)
{
    struct log_record r;
    enum log_step step = LOG_STEP_RECORD;
    *stopped = LOG_STEP_RECORD;
    while (c->index < limit) {
        uint64_t chain = c->chain;
        step = log_cursor_next(c, true, &r);
        if (step != LOG_STEP_RECORD)
            break;
        log_index_note(&s->index, r.index, r.offset, c->offset, chain);
        log_outline_add(outline, &r);
    }
    *stopped = step;
    s->last = c->index;
    s->last_term = c->term;
    s->chain = c->chain;
    s->end = c->offset;
    return step == LOG_STEP_FAILED ? ERR_IO : ERR_OK;
}

/* A segment with a newer one behind it: all its entries up to LIMIT must be whole. */
static enum err load_sealed(struct log_store *s, struct log_outline *outline, uint64_t limit,
                            struct log_cursor *c)
{
    enum log_step stopped;
    TRY(walk(s, outline, limit, c, &stopped));
    if (stopped == LOG_STEP_ZEROS)
        return err_fail(ERR_CORRUPT,
                        "%s offset %llu: entries %llu to %llu are missing before the next segment",
                        c->path, (unsigned long long)c->offset, (unsigned long long)c->index + 1,
                        (unsigned long long)limit);
    return stopped == LOG_STEP_BAD ? ERR_CORRUPT : ERR_OK;
}

/* Rewrites [from, end) of the active segment with the same bytes and syncs. After a failed sync the
 * kernel may hold pages as clean that never reached the disk: a process that starts again would
 * read them, count them as stored, and lose them with the power. Written anew, they are dirty. */
static enum err rewrite_tail(struct log_store *s, uint64_t from)
{
    const struct log_segment *a = s->active;
    while (from < s->end) {
        size_t n = s->end - from < MIB(1) ? (size_t)(s->end - from) : MIB(1), got;
        TRY(file_read_at(s->fd, a->path, s->stage, n, from, &got));
        if (got != n)
            return err_fail(ERR_IO, "%s became shorter while it was read", a->path);
        TRY(log_file_write(&s->files, s->fd, a->path, s->stage, n, from));
        from += n;
    }
    return log_file_sync(&s->files, s->fd, a->path);
}

static enum err damaged_end(const struct log_cursor *c, uint64_t proof, bool marked)
{
    char *why = proof == 0 || marked
                    ? mem_printf("the term record says that more was stored")
                    : mem_printf("a later one at offset %llu shows that it was stored",
                                 (unsigned long long)proof);
    enum err e =
        err_fail(ERR_CORRUPT,
                 "%s offset %llu: entry %llu is damaged, and %s: restore this node from "
                 "its peers under a new id",
                 c->path, (unsigned long long)c->offset, (unsigned long long)c->index + 1, why);
    free(why);
    return e;
}

/* The newest segment: its end may be torn, and then goes; or damaged, and then we stop. */
static enum err load_newest(struct log_store *s, struct log_outline *outline, struct log_cursor *c)
{
    enum log_step stopped;
    bool rest;
    uint64_t proof;
    const struct log_meta_record *m = &s->meta.now;
    TRY(walk(s, outline, UINT64_MAX, c, &stopped));
    TRY(log_cursor_look_behind(c, &rest, &proof));
    bool here = m->synced_epoch == s->epoch;
    bool marked = here && c->offset < m->synced_offset;
    if (proof != 0 || marked)
        return damaged_end(c, proof, marked);
    s->stage_at = s->end;
    if (!s->read_only)
        TRY(rewrite_tail(s, here ? m->synced_offset : LOG_RECORDS_AT));
    s->synced = s->end;
    log_index_publish(&s->index, s->last, s->last_term);
    outline->torn = rest;
    if (!rest || s->read_only)
        return ERR_OK;
    log_warn("consensus", "log_torn_end file=%s offset=%llu index=%llu action=cut", c->path,
             (unsigned long long)c->offset, (unsigned long long)c->index + 1);
    /* The scraps are never written over: a new segment voids them, durably. */
    return log_store_new_segment(s, s->last + 1, s->last_term, s->chain, 0);
}

/* The first segment begins where it may: its head, which passed its checksum, says behind what. */
static enum err check_first(const struct log_store *s, const struct log_segment *seg)
{
    const struct log_segment_head *h = &seg->head;
    const struct cns_snapshot *r = &s->snapshot.s;
    if (h->first_index == 1 && (h->prev_term != 0 || h->chain != 0))
        return err_fail(ERR_CORRUPT, "%s offset 48: entry 1 has nothing before it", seg->path);
    if (r->index > 0 && h->first_index == r->index + 1 && h->prev_term != r->term)
        return err_fail(ERR_CORRUPT,
                        "%s does not continue %s/snapshot: entry %llu is of term %llu there, of "
                        "term %llu here",
                        seg->path, s->dir, (unsigned long long)r->index,
                        (unsigned long long)r->term, (unsigned long long)h->prev_term);
    return ERR_OK;
}

static enum err check_next(const struct log_store *s, const struct log_segment *seg)
{
    if (seg->head.chain == s->chain && seg->head.prev_term == s->last_term)
        return ERR_OK;
    return err_fail(ERR_CORRUPT, "%s does not continue the segment before it", seg->path);
}

static enum err load_segment(struct log_store *s, const struct listing *l, size_t i,
                             struct log_outline *outline)
{
    struct log_segment *seg;
    TRY(open_segment(s, &l->all[i], &seg));
    enum err e = i == 0 ? check_first(s, seg) : check_next(s, seg);
    if (e != ERR_OK) {
        log_segment_unref(seg);
        return e;
    }
    if (i == 0)
        outline->prev_term = seg->head.prev_term;
    log_index_add(&s->index, seg);
    s->active = seg;
    s->epoch = seg->head.epoch;
    struct log_cursor c;
    log_cursor_init(&c, s->fd, seg->path, seg->size, seg->head.salt);
    log_cursor_seek(&c, LOG_RECORDS_AT, seg->head.first_index, seg->head.prev_term,
                    seg->head.chain);
    e = i + 1 < l->n ? load_sealed(s, outline, l->all[i + 1].first_index - 1, &c)
                     : load_newest(s, outline, &c);
    log_cursor_fini(&c);
    return e;
}

/* --- where the log begins --------------------------------------------------------------------- */

/* The record of an installation is there and its first segment is not: that is made now. */
static enum err finish_install(struct log_store *s, struct log_outline *outline)
{
    const struct cns_snapshot *r = &s->snapshot.s;
    outline->unfinished = true;
    outline->first_index = r->index + 1;
    outline->prev_term = r->term;
    s->epoch = s->snapshot.epoch - 1;
    if (!s->read_only)
        return log_store_begin_anew(s, r->index + 1, r->term);
    s->last = r->index;
    s->last_term = r->term;
    return ERR_OK;
}

/* The first segment that is there is the one that the log begins with. */
static enum err check_beginning(const struct log_store *s, const struct listing *l)
{
    uint64_t record = s->snapshot.s.index;
    if (l->n > 0 && l->all[0].first_index <= record + 1)
        return ERR_OK;
    if (record == 0)
        return err_fail(ERR_CORRUPT,
                        "%s: the log segment with entry 1 is missing, and there is no snapshot "
                        "record: restore this node from its peers under a new id",
                        s->dir);
    return err_fail(ERR_CORRUPT,
                    "%s: the log segment with entry %llu, the first behind the snapshot record, is "
                    "missing: restore this node from its peers under a new id",
                    s->dir, (unsigned long long)record + 1);
}

/* What the snapshot record says of its entry, the log says, too. */
static enum err check_record(const struct log_store *s, const struct log_outline *outline)
{
    const struct cns_snapshot *r = &s->snapshot.s;
    if (r->index == 0)
        return ERR_OK;
    if (r->index > s->last)
        return err_fail(
            ERR_CORRUPT,
            "%s/snapshot is of entry %llu, and the log ends with entry %llu: the newest "
            "entries are missing; restore this node from its peers under a new id",
            s->dir, (unsigned long long)r->index, (unsigned long long)s->last);
    uint64_t term = log_outline_term(outline, r->index);
    if (r->term != term)
        return err_fail(ERR_CORRUPT,
                        "%s/snapshot says term %llu of entry %llu, the log says %llu: they are not "
                        "of one history",
                        s->dir, (unsigned long long)r->term, (unsigned long long)r->index,
                        (unsigned long long)term);
    return ERR_OK;
}

/* --- the whole -------------------------------------------------------------------------------- */

static enum err load_segments(struct log_store *s, struct listing *l, struct log_outline *outline)
{
    uint64_t newest = l->n == 0 ? 0 : l->all[l->n - 1].epoch;
    uint64_t marked = s->meta.now.synced_epoch, installed = s->snapshot.epoch;
    /* A record of an epoch beyond the mark voids the marked segment, too. */
    if (newest < marked && installed <= marked)
        return err_fail(ERR_CORRUPT,
                        "%s: the newest log segment, epoch %llu, is missing: restore this node "
                        "from its peers under a new id",
                        s->dir, (unsigned long long)marked);
    TRY(drop_older(s, l));
    if (l->n == 0 && installed > marked)
        return finish_install(s, outline);
    TRY(drop_void(s, l));
    TRY(check_beginning(s, l));
    outline->first_index = l->all[0].first_index;
    for (size_t i = 0; i < l->n; i++)
        TRY(load_segment(s, l, i, outline));
    return check_record(s, outline);
}

/* Those of before there were incarnations get one. */
static enum err renew_identity(struct log_store *s)
{
    struct log_owner owner = {s->cluster_id, s->node_id, 0};
    if (s->incarnation != 0)
        return ERR_OK;
    TRY(log_random(&owner.incarnation));
    TRY(log_identity_write(&s->files, s->dir, &owner, LOG_IDENTITY_READY));
    s->incarnation = owner.incarnation;
    return ERR_OK;
}

static enum err load_ready(struct log_store *s, struct listing *l, struct log_outline *outline)
{
    TRY(log_meta_open(s->dir, s->cluster_id, s->node_id, s->read_only, &s->meta));
    /* A rename that only the cache has must not be built upon. */
    if (!s->read_only)
        TRY(log_file_sync_dir(&s->files, s->dir));
    TRY(log_snapshot_read(s->dir, s->cluster_id, s->node_id, &s->snapshot));
    TRY(load_segments(s, l, outline));
    if (s->last_term > s->meta.now.term)
        return err_fail(ERR_CORRUPT,
                        "%s says term %llu, older than the log's last entry (term %llu): it was "
                        "replaced or lost a write; this node must rejoin under a new id",
                        s->meta.path, (unsigned long long)s->meta.now.term,
                        (unsigned long long)s->last_term);
    if (s->read_only)
        return ERR_OK;
    TRY(renew_identity(s));
    /* Both slots anew: one may be damaged, or newer than what was acknowledged and not synced. */
    return log_store_set_meta(s, s->meta.now.term, s->meta.now.vote);
}

/* What an unfinished making left is of no use. */
static enum err make(const struct cns_log_config *c, struct log_store *s, const struct listing *l,
                     struct log_outline *outline)
{
    for (size_t i = 0; i < l->n; i++)
        TRY(log_file_remove(&s->files, l->all[i].path));
    return log_make(c, s, outline);
}

static enum err ownerless(const struct log_store *s)
{
    return err_fail(ERR_CORRUPT,
                    "%s has log files and no identity: it does not say whose log this is", s->dir);
}

enum err log_load(const struct cns_log_config *c, struct log_store *s, struct log_outline *outline)
{
    CHECK(c->cluster_id > 0 && c->node_id > 0);
    *outline = (struct log_outline){0};
    log_store_init(s, c->dir, c->cluster_id, c->node_id, c->segment_bytes, c->calls);
    TRY(file_make_dirs(c->dir));
    TRY(take_lock(s));
    enum log_identity state;
    struct log_owner owner;
    struct listing l;
    TRY(log_identity_read(s->dir, &owner, &state));
    if (state != LOG_IDENTITY_NONE)
        TRY(log_identity_expect(s->dir, &owner, s->cluster_id, s->node_id));
    s->incarnation = owner.incarnation;
    enum err e = list_dir(s, &l);
    if (e == ERR_OK && state == LOG_IDENTITY_READY)
        e = load_ready(s, &l, outline);
    else if (e == ERR_OK && state == LOG_IDENTITY_NONE && (l.n > 0 || l.has_files))
        e = ownerless(s);
    else if (e == ERR_OK)
        e = make(c, s, &l, outline);
    listing_fini(&l);
    return e;
}

enum err log_load_look(const char *dir, struct log_store *s, struct log_outline *outline)
{
    static const struct cns_log_file_calls none; /* to make one would crash: none is made */
    enum log_identity state;
    struct log_owner owner;
    struct listing l;
    *outline = (struct log_outline){0};
    log_store_init(s, dir, 0, 0, 0, &none);
    s->read_only = true;
    enum err locked = take_lock(s);
    if (locked != ERR_OK && locked != ERR_NOT_FOUND)
        return locked;
    TRY(log_identity_read(dir, &owner, &state));
    s->cluster_id = owner.cluster_id;
    s->node_id = owner.node_id;
    s->incarnation = owner.incarnation;
    if (state == LOG_IDENTITY_MAKING)
        return err_fail(ERR_NOT_FOUND, "%s was never finished: the next start makes it anew", dir);
    enum err e = list_dir(s, &l);
    if (e == ERR_OK && state == LOG_IDENTITY_READY)
        e = load_ready(s, &l, outline);
    else if (e == ERR_OK)
        e = l.n == 0 && !l.has_files ? err_fail(ERR_NOT_FOUND, "%s holds no log", dir)
                                     : ownerless(s);
    listing_fini(&l);
    return e;
}
