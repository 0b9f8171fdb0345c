/* Room: consensus. Thread: the loop until the log starts, then disk.
 * Owns: the files of the directory, the staging buffer.
 * Invariants: bytes that are durable in a segment are never written again;
 *             a segment is visible under its name only when it is whole (head synced, then
 * renamed); a newer segment becomes visible only when the older ones are durable up to its first
 *             index: so a torn end can only be in the newest one;
 *             no entry is published before it is durable.
 * Not here: threads and jobs (log.c), finding out what is there (log_load.c).
 *
 * Truncation without overwriting: a truncation at index i makes a new, empty segment that begins at
 * i, with a higher epoch. By rule, a segment voids everything from its first index on in all
 * segments of a lower epoch. So the rename of that file is the truncation: one atomic step, before
 * it the old log is there, after it the new one. Old tails are never read again, and can never be
 * taken for new entries: those are in another file, under another salt. The files that are void as
 * a whole are removed afterwards; a crash in between leaves some, and loading removes them. */
#include "consensus/log_store.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "consensus/log_read.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STAGE_BYTES MIB(2)
_Static_assert(ENTRY_BYTES_MAX + LOG_RECORD_HEAD_BYTES + 8 <= STAGE_BYTES, "a record fits");

void log_store_init(struct log_store *s, const char *dir, uint64_t cluster_id, uint64_t node_id,
                    uint64_t segment_bytes, const struct cns_log_file_calls *calls)
{
    memset(s, 0, sizeof *s);
    s->dir = mem_strdup(dir);
    s->cluster_id = cluster_id;
    s->node_id = node_id;
    s->segment_bytes = segment_bytes == 0 ? LOG_SEGMENT_BYTES : segment_bytes;
    CHECK(s->segment_bytes > LOG_RECORDS_AT && s->segment_bytes <= MIB(1024));
    s->lock_fd = -1;
    s->fd = -1;
    s->meta.fd = -1;
    s->spare_fd = -1;
    CHECK(pthread_mutex_init(&s->lock, NULL) == 0);
    s->stage = mem_alloc(STAGE_BYTES);
    log_files_init(&s->files, calls);
    log_index_init(&s->index);
}

void log_store_fini(struct log_store *s)
{
    log_index_fini(&s->index);
    log_meta_fini(&s->meta);
    log_snapshot_drop(&s->snapshot.s);
    (void)pthread_mutex_destroy(&s->lock);
    if (s->fd >= 0)
        (void)close(s->fd);
    if (s->spare_fd >= 0)
        (void)close(s->spare_fd);
    if (s->lock_fd >= 0)
        (void)close(s->lock_fd); /* and with it the lock */
    free(s->stage);
    free(s->dir);
}

enum err log_store_failed(struct log_store *s, enum err e)
{
    if (e == ERR_OK)
        return e;
    CHECK(pthread_mutex_lock(&s->lock) == 0);
    if (s->failed == ERR_OK) {
        s->failed = e;
        (void)snprintf(s->failure, sizeof s->failure, "%s", err_text());
    }
    CHECK(pthread_mutex_unlock(&s->lock) == 0);
    return e;
}

enum err log_store_refuse(struct log_store *s)
{
    CHECK(pthread_mutex_lock(&s->lock) == 0);
    enum err e = s->failed == ERR_OK ? ERR_OK : err_fail(s->failed, "%s", s->failure);
    CHECK(pthread_mutex_unlock(&s->lock) == 0);
    return e;
}

bool log_store_is_full(struct log_store *s, enum err e)
{
    return e == ERR_FULL && log_store_refuse(s) == ERR_OK;
}

/* --- segments --------------------------------------------------------------------------------- */

bool log_store_parse_name(const char *name, uint64_t *first_index, uint64_t *epoch)
{
    char again[64], *end;
    *first_index = strtoull(name, &end, 10);
    *epoch = *end == '-' ? strtoull(end + 1, &end, 10) : 0;
    if (*first_index == 0 || *epoch == 0)
        return false;
    /* What strtoull let pass (signs, space, overflow) does not come out the same again. */
    (void)snprintf(again, sizeof again, "%020" PRIu64 "-%012" PRIu64 ".seg", *first_index, *epoch);
    return strcmp(name, again) == 0;
}

/* The space of a segment, as *temp (the caller frees): the spare when it fits, else a new file. */
static enum err take_space(struct log_store *s, uint64_t size, char **temp, int *fd)
{
    CHECK(pthread_mutex_lock(&s->lock) == 0);
    *fd = size == s->segment_bytes ? s->spare_fd : -1;
    if (*fd >= 0)
        s->spare_fd = -1;
    CHECK(pthread_mutex_unlock(&s->lock) == 0);
    *temp = mem_printf("%s/%s", s->dir, *fd >= 0 ? "spare.new" : "segment.new");
    return *fd >= 0 ? ERR_OK : log_file_create(&s->files, *temp, size, fd);
}

/* *named: PATH may be there although the call failed. */
static enum err make_file(struct log_store *s, const struct log_segment_head *head, uint64_t size,
                          const char *path, int *fd, bool *named)
{
    uint8_t bytes[LOG_SEGMENT_HEAD_BYTES];
    char *temp;
    log_segment_head_encode(bytes, head);
    enum err e = take_space(s, size, &temp, fd);
    if (e == ERR_OK)
        e = log_file_write(&s->files, *fd, temp, bytes, sizeof bytes, 0);
    if (e == ERR_OK)
        e = log_file_sync(&s->files, *fd, temp);
    if (e == ERR_OK)
        e = log_file_rename(&s->files, temp, path);
    *named = e == ERR_OK;
    if (!*named)
        log_file_drop(&s->files, temp);
    if (e == ERR_OK)
        e = log_file_sync_dir(&s->files, s->dir);
    if (e != ERR_OK && *fd >= 0)
        (void)close(*fd);
    free(temp);
    return e;
}

/* The segments that begin at DEAD_FROM or later end with it. */
static enum err new_segment(struct log_store *s, const struct log_segment_head *head, uint64_t size,
                            uint64_t dead_from, bool *named)
{
    char *path = mem_printf("%s/%020llu-%012llu.seg", s->dir, (unsigned long long)head->first_index,
                            (unsigned long long)head->epoch);
    int fd;
    enum err e = make_file(s, head, size, path, &fd, named);
    if (e != ERR_OK) {
        free(path);
        return e;
    }
    if (s->fd >= 0)
        (void)close(s->fd); /* all of it is synced */
    s->fd = fd;
    s->active = log_segment_new(path, head, size);
    unsigned n_dead;
    struct log_segment **dead = log_index_begin(&s->index, s->active, dead_from, &n_dead);
    s->epoch = head->epoch;
    s->end = s->synced = s->stage_at = LOG_RECORDS_AT;
    for (unsigned i = 0; i < n_dead; i++) {
        if (e == ERR_OK)
            e = log_file_remove(&s->files, dead[i]->path);
        log_segment_unref(dead[i]);
    }
    free(dead);
    return e;
}

static enum err begin_segment(struct log_store *s, uint64_t first_index, uint64_t prev_term,
                              uint64_t chain, uint64_t bytes, uint64_t dead_from)
{
    CHECK(s->stage_n == 0);
    struct log_segment_head head = {
        .cluster_id = s->cluster_id,
        .node_id = s->node_id,
        .epoch = s->epoch + 1,
        .first_index = first_index,
        .prev_term = prev_term,
        .chain = chain,
    };
    TRY(log_store_failed(s, log_random(&head.salt)));
    uint64_t size =
        s->segment_bytes > LOG_RECORDS_AT + bytes ? s->segment_bytes : LOG_RECORDS_AT + bytes;
    bool named;
    enum err e = new_segment(s, &head, size, dead_from, &named);
    if (e == ERR_FULL && !named)
        return e; /* nothing has changed */
    TRY(log_store_failed(s, e));
    s->last = first_index - 1;
    s->last_term = prev_term;
    s->chain = chain;
    /* From now on a missing segment of this epoch is noticed. */
    return log_store_mark(s);
}

enum err log_store_new_segment(struct log_store *s, uint64_t first_index, uint64_t prev_term,
                               uint64_t chain, uint64_t bytes)
{
    return begin_segment(s, first_index, prev_term, chain, bytes, first_index);
}

enum err log_store_begin_anew(struct log_store *s, uint64_t first_index, uint64_t prev_term)
{
    uint64_t chain; /* of a history that is not known here: none that another file could continue */
    TRY(log_store_failed(s, log_random(&chain)));
    return begin_segment(s, first_index, prev_term, chain, 0, 0);
}

/* --- the spare -------------------------------------------------------------------------------- */

bool log_store_wants_spare(struct log_store *s)
{
    return s->end > s->segment_bytes / 4 * 3 && log_store_spare_bytes(s) == 0;
}

uint64_t log_store_spare_bytes(struct log_store *s)
{
    CHECK(pthread_mutex_lock(&s->lock) == 0);
    uint64_t bytes = s->spare_fd >= 0 ? s->segment_bytes : 0;
    CHECK(pthread_mutex_unlock(&s->lock) == 0);
    return bytes;
}

enum err log_store_make_spare(struct log_store *s)
{
    TRY(log_store_refuse(s));
    if (log_store_spare_bytes(s) > 0) /* asked for twice: only this thread makes any */
        return ERR_OK;
    char *path = mem_printf("%s/spare.new", s->dir);
    int fd = -1;
    enum err e = log_file_create(&s->files, path, s->segment_bytes, &fd);
    if (e == ERR_OK)
        e = log_file_sync(&s->files, fd, path);
    if (e != ERR_OK) {
        if (fd >= 0)
            (void)close(fd);
        log_file_drop(&s->files, path);
        free(path);
        return e == ERR_FULL ? e : log_store_failed(s, e);
    }
    free(path);
    CHECK(pthread_mutex_lock(&s->lock) == 0);
    CHECK(s->spare_fd < 0);
    s->spare_fd = fd;
    CHECK(pthread_mutex_unlock(&s->lock) == 0);
    return ERR_OK;
}

bool log_store_drop_spare(struct log_store *s)
{
    CHECK(pthread_mutex_lock(&s->lock) == 0);
    int fd = s->spare_fd;
    s->spare_fd = -1;
    CHECK(pthread_mutex_unlock(&s->lock) == 0);
    if (fd < 0)
        return false;
    char *path = mem_printf("%s/spare.new", s->dir);
    log_file_drop(&s->files, path);
    free(path);
    (void)close(fd);
    return true;
}

/* --- appending -------------------------------------------------------------------------------- */

static enum err flush(struct log_store *s)
{
    if (s->stage_n == 0)
        return ERR_OK;
    TRY(log_store_failed(
        s, log_file_write(&s->files, s->fd, s->active->path, s->stage, s->stage_n, s->stage_at)));
    s->stage_at += s->stage_n;
    s->stage_n = 0;
    return ERR_OK;
}

enum err log_store_sync(struct log_store *s)
{
    TRY(log_store_refuse(s));
    if (s->synced == s->end)
        return ERR_OK;
    TRY(flush(s));
    TRY(log_store_failed(s, log_file_sync(&s->files, s->fd, s->active->path)));
    s->synced = s->end;
    log_index_publish(&s->index, s->last, s->last_term);
    return ERR_OK;
}

static enum err append_one(struct log_store *s, const struct cns_item *it)
{
    CHECK(it->index == s->last + 1 && it->term >= s->last_term);
    CHECK(it->kind != CNS_CHANGE || it->payload != NULL);
    uint64_t bytes = log_record_bytes(it->payload == NULL ? 0 : it->payload->len);
    if (s->end + bytes > s->active->size) {
        TRY(log_store_sync(s));
        TRY(log_store_new_segment(s, s->last + 1, s->last_term, s->chain, bytes));
    }
    if (s->stage_n + bytes > STAGE_BYTES)
        TRY(flush(s));
    log_index_note(&s->index, it->index, s->end, s->end + bytes, s->chain);
    s->chain = log_record_encode(s->stage + s->stage_n, it, s->end, s->synced, s->active->head.salt,
                                 s->chain);
    s->stage_n += bytes;
    s->end += bytes;
    s->last = it->index;
    s->last_term = it->term;
    return ERR_OK;
}

enum err log_store_append(struct log_store *s, const struct cns_item *items, unsigned n)
{
    TRY(log_store_refuse(s));
    for (unsigned i = 0; i < n; i++)
        TRY(append_one(s, &items[i]));
    return ERR_OK;
}

/* --- term, vote, truncation ------------------------------------------------------------------- */

static enum err write_meta(struct log_store *s, uint64_t term, uint64_t vote)
{
    struct log_meta_record next = {
        .term = term,
        .vote = vote,
        .synced_epoch = s->epoch,
        .synced_offset = s->synced,
    };
    return log_store_failed(s, log_meta_write(&s->files, &s->meta, &next));
}

enum err log_store_set_meta(struct log_store *s, uint64_t term, uint64_t vote)
{
    TRY(log_store_sync(s));
    CHECK(term >= s->meta.now.term);
    return write_meta(s, term, vote);
}

enum err log_store_mark(struct log_store *s)
{
    TRY(log_store_refuse(s));
    if (s->meta.now.synced_epoch == s->epoch && s->meta.now.synced_offset == s->synced)
        return ERR_OK;
    return write_meta(s, s->meta.now.term, s->meta.now.vote);
}

/* The term of, and the chain after, entry INDEX - 1. */
static enum err find_before(struct log_store *s, uint64_t index, uint64_t *term, uint64_t *chain)
{
    uint64_t last;
    struct log_mark mark;
    struct log_segment *seg = log_index_find(&s->index, index, &mark, &last);
    CHECK(seg != NULL); /* INDEX is in the log: nothing that may be truncated was ever dropped */
    enum err e = ERR_OK;
    if (index == seg->head.first_index) {
        *term = seg->head.prev_term;
        *chain = seg->head.chain;
    } else {
        /* From a mark at or before INDEX - 1, so that at least one record is read. */
        log_segment_unref(seg);
        seg = log_index_find(&s->index, index - 1, &mark, &last);
        CHECK(seg != NULL);
        e = log_read_chain(seg, &mark, index - 1, term, chain);
    }
    log_segment_unref(seg);
    return e;
}

enum err log_store_truncate(struct log_store *s, uint64_t index)
{
    TRY(log_store_sync(s));
    if (index > s->last)
        return ERR_OK;
    uint64_t term, chain;
    TRY(log_store_failed(s, find_before(s, index, &term, &chain)));
    return log_store_new_segment(s, index, term, chain, 0);
}
