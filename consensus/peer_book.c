/* Room: consensus. Thread: loop; write_file on libuv's pool.
 * Owns: the file `peers`, a timer.
 * Invariants: PEER_KNOWN is said only of what is durable in the file; the first incarnation noted
 *             for an id is never replaced; a removed id stays removed.
 * Not here: who is a member (transport.c), what a greeting looks like (peer_wire.c).
 *
 * The file is small and replaced as a whole. One write is under way at most; what is noted
 * meanwhile goes with the next one. A write that fails (a full disk) is tried again for as long as
 * it takes: the old file is still whole, and who is not in it is not let in, so nothing wrong is
 * promised.
 *
 * A damaged file is refused, not begun anew: it would trust whoever comes next under each id, and
 * the disk that damaged it may have cost another node its files as well. That the others did not
 * lose theirs is for people to say, by removing the file. */
#include "consensus/peer_book.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAGIC       "LecRaftP"
#define VERSION     1u
#define HEAD_BYTES  40u
#define ENTRY_BYTES 24u
/* Ids that a cluster uses in its life: a handful of members, and one more for each node replaced.
 */
#define ENTRIES_MAX 1024u
#define FILE_MAX    (HEAD_BYTES + ENTRIES_MAX * ENTRY_BYTES + 8u)
#define RETRY_MS    500u

enum state { MET = 1, REMOVED = 2 };

struct entry {
    uint64_t id, incarnation; /* incarnation 0: removed before it was met */
    enum state state;
    uint64_t noted; /* the edition of the book that has it */
};

struct peer_book {
    struct peer_book_config c;
    char *path;
    struct entry *entries;
    unsigned n;
    uint64_t edition, durable; /* of the book in memory, and of the one in the file */
    uv_timer_t retry;
    uv_work_t work;
    struct buf bytes; /* being written */
    uint64_t writing; /* the edition under way; 0: none */
    enum err result;
    char sentence[ERR_TEXT_MAX];
    enum err last_error; /* logged already */
    bool closing, timer_closed;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

static struct entry *find(const struct peer_book *b, uint64_t id)
{
    for (unsigned i = 0; i < b->n; i++)
        if (b->entries[i].id == id)
            return &b->entries[i];
    return NULL;
}

static struct peer_book *book_new(const struct peer_book_config *c)
{
    struct peer_book *b = MEM_NEW(struct peer_book);
    b->c = *c;
    b->path = c->dir == NULL ? NULL : mem_printf("%s/peers", c->dir);
    b->entries = mem_zalloc(ENTRIES_MAX * sizeof *b->entries);
    buf_init(&b->bytes, FILE_MAX);
    return b;
}

static void book_free(struct peer_book *b)
{
    buf_fini(&b->bytes);
    free(b->entries);
    free(b->path);
    free(b);
}

/* --- the file --------------------------------------------------------------------------------- */

static void encode(const struct peer_book *b, struct buf *out)
{
    buf_reset(out);
    buf_put(out, MAGIC, 8);
    buf_put_u32(out, VERSION);
    buf_put_u32(out, b->n);
    buf_put_u64(out, b->c.cluster_id);
    buf_put_u64(out, b->c.self);
    buf_put_u64(out, b->c.incarnation);
    for (unsigned i = 0; i < b->n; i++) {
        buf_put_u64(out, b->entries[i].id);
        buf_put_u64(out, b->entries[i].incarnation);
        buf_put_u32(out, (uint32_t)b->entries[i].state);
        buf_put_u32(out, 0);
    }
    buf_put_u64(out, hash64(out->data, out->len, 0));
    CHECK(buf_status(out) == ERR_OK);
}

static enum err damaged(const struct peer_book *b, const char *what)
{
    return err_fail(ERR_CORRUPT,
                    "%s is damaged (%s): it says with which files each member was known. If no "
                    "other node lost its files, remove this one, and it is learned anew; else "
                    "remove this node (lectern cluster remove %llu) and let it join again under a "
                    "new id: lecternd --join",
                    b->path, what, (unsigned long long)b->c.self);
}

static enum err decode_entry(struct peer_book *b, struct rd *r)
{
    struct entry e = {.id = rd_u64(r), .incarnation = rd_u64(r)};
    uint32_t state = rd_u32(r), zero = rd_u32(r);
    if (e.id == 0 || e.id == b->c.self || (state != MET && state != REMOVED) || zero != 0 ||
        (state == MET && e.incarnation == 0) || find(b, e.id) != NULL)
        return damaged(b, "an entry that no version writes");
    e.state = (enum state)state;
    b->entries[b->n++] = e;
    return ERR_OK;
}

static enum err decode(struct peer_book *b, const struct buf *in)
{
    struct rd r = rd_of(in->data, in->len);
    const uint8_t *magic = rd_bytes(&r, 8);
    uint32_t version = rd_u32(&r), n = rd_u32(&r);
    uint64_t cluster = rd_u64(&r), self = rd_u64(&r), incarnation = rd_u64(&r);
    if (magic == NULL || memcmp(magic, MAGIC, 8) != 0)
        return damaged(b, "it does not begin like one");
    if (!r.failed && version > VERSION)
        return err_fail(ERR_FORMAT, "%s has format %u; this version reads up to %u", b->path,
                        version, VERSION);
    if (r.failed || version != VERSION || n > ENTRIES_MAX ||
        in->len != HEAD_BYTES + n * ENTRY_BYTES + 8)
        return damaged(b, "its size is wrong");
    if (hash64(in->data, in->len - 8, 0) != get_le64(in->data + in->len - 8))
        return damaged(b, "its checksum is wrong");
    if (cluster != b->c.cluster_id || self != b->c.self || incarnation != b->c.incarnation)
        return err_fail(ERR_CONFIG,
                        "%s belongs to another log directory (cluster %016llx, node %llu): it was "
                        "copied here, or the files beside it were replaced. Put back what belongs "
                        "together, or remove the directory and let the node join under a new id: "
                        "lecternd --join",
                        b->path, (unsigned long long)cluster, (unsigned long long)self);
    for (uint32_t i = 0; i < n; i++)
        TRY(decode_entry(b, &r));
    return ERR_OK;
}

/* What a killed process had renamed and not synced is in the kernel's memory only: it is promised
 * on, so it must be durable first. */
static enum err make_durable(const struct peer_book *b)
{
    int fd;
    TRY(file_open(b->path, O_RDONLY, 0, &fd));
    enum err e = file_sync(fd, b->path);
    (void)close(fd);
    return e == ERR_OK ? file_sync_dir(b->c.dir) : e;
}

static bool has_file(const struct peer_book *b)
{
    return access(b->path, F_OK) == 0 || errno != ENOENT;
}

static enum err read_file(struct peer_book *b)
{
    enum err e = file_read_all(b->path, &b->bytes);
    if (e == ERR_TOO_BIG)
        e = damaged(b, "its size is wrong");
    return e == ERR_OK ? decode(b, &b->bytes) : e;
}

static enum err load(struct peer_book *b)
{
    if (!has_file(b)) {
        log_info("consensus", "peers_new path=%s", b->path);
        return ERR_OK;
    }
    TRY(read_file(b));
    return make_durable(b);
}

/* --- writing ---------------------------------------------------------------------------------- */

static void write_if_needed(struct peer_book *b) ON_LOOP;

/* On a thread of the pool; the loop touches neither `bytes` nor `result` meanwhile. */
static void write_file(uv_work_t *w)
{
    struct peer_book *b = w->data;
    b->result = file_replace(b->path, b->bytes.data, b->bytes.len);
    if (b->result != ERR_OK)
        (void)snprintf(b->sentence, sizeof b->sentence, "%s", err_text());
}

static void maybe_free(struct peer_book *b)
{
    if (!b->closing || !b->timer_closed || b->writing != 0)
        return;
    void (*closed)(void *ctx) = b->closed;
    void *ctx = b->closed_ctx;
    book_free(b);
    closed(ctx);
}

static void on_retry(uv_timer_t *t)
{
    thread_expect_loop();
    write_if_needed(t->data);
}

static void on_written(uv_work_t *w, int status)
{
    thread_expect_loop();
    struct peer_book *b = w->data;
    uint64_t edition = b->writing;
    CHECK(status == 0 && edition != 0); /* it is never cancelled */
    b->writing = 0;
    if (b->result == ERR_OK)
        b->durable = edition;
    if (b->closing) {
        maybe_free(b);
        return;
    }
    if (b->result != ERR_OK) {
        if (b->result != b->last_error)
            log_error("consensus",
                      "peers_not_written reason=\"%s\" meaning=\"members met for the first time "
                      "are not let in before it is; tried again\"",
                      b->sentence);
        b->last_error = b->result;
        (void)uv_timer_start(&b->retry, on_retry, RETRY_MS, 0);
        return;
    }
    if (b->last_error != ERR_OK)
        log_info("consensus", "peers_written path=%s", b->path);
    b->last_error = ERR_OK;
    write_if_needed(b);
    b->c.on_durable(b->c.ctx);
}

static void write_if_needed(struct peer_book *b)
{
    if (b->writing != 0 || b->closing || b->durable == b->edition)
        return;
    encode(b, &b->bytes);
    b->writing = b->edition;
    (void)uv_timer_stop(&b->retry);
    CHECK(uv_queue_work(b->c.loop, &b->work, write_file, on_written) == 0); /* cannot fail */
}

/* --- the door --------------------------------------------------------------------------------- */

/* Room for one more: the oldest removed ids go first. They are no members either way. */
static bool make_room(struct peer_book *b)
{
    struct entry *oldest = NULL;
    if (b->n < ENTRIES_MAX)
        return true;
    for (unsigned i = 0; i < b->n; i++)
        if (b->entries[i].state == REMOVED && (oldest == NULL || b->entries[i].id < oldest->id))
            oldest = &b->entries[i];
    if (oldest == NULL)
        return false;
    *oldest = b->entries[--b->n];
    return true;
}

static void note(struct peer_book *b, struct entry *e) ON_LOOP
{
    e->noted = ++b->edition;
    if (b->path == NULL)
        b->durable = b->edition;
    else if (b->last_error == ERR_OK) /* else the timer tries again */
        write_if_needed(b);
}

enum peer_verdict peer_book_meet(struct peer_book *b, uint64_t id, uint64_t incarnation)
{
    CHECK(id > 0 && id != b->c.self && incarnation > 0 && !b->closing);
    struct entry *e = find(b, id);
    if (e == NULL) {
        if (!make_room(b))
            return PEER_NO_ROOM;
        e = &b->entries[b->n++];
        *e = (struct entry){.id = id, .incarnation = incarnation, .state = MET};
        note(b, e);
    }
    if (e->state == REMOVED)
        return PEER_REMOVED;
    if (e->incarnation != incarnation)
        return PEER_LOST_FILES;
    return e->noted <= b->durable ? PEER_KNOWN : PEER_WAITS;
}

void peer_book_remove(struct peer_book *b, uint64_t id)
{
    CHECK(id > 0 && !b->closing);
    struct entry *e = find(b, id);
    if (id == b->c.self || (e != NULL && e->state == REMOVED))
        return;
    if (e == NULL) {
        if (!make_room(b))
            return; /* no member any more: refused all the same */
        e = &b->entries[b->n++];
        *e = (struct entry){.id = id};
    }
    e->state = REMOVED;
    note(b, e);
}

bool peer_book_removed(const struct peer_book *b, uint64_t id)
{
    const struct entry *e = find(b, id);
    return e != NULL && e->state == REMOVED;
}

bool peer_book_met(const struct peer_book *b, uint64_t id)
{
    const struct entry *e = find(b, id);
    return e != NULL && e->incarnation != 0;
}

void peer_book_sentence(char *to, size_t n, uint64_t id, enum peer_standing s)
{
    unsigned long long node = id;
    if (s == PEER_STANDING_LOST_FILES)
        (void)snprintf(to, n,
                       "node %llu was known with other files: they were lost, so it may have "
                       "forgotten votes and acknowledgements. Remove it: lectern cluster remove "
                       "%llu, and let it join again under a new id: lecternd --join",
                       node, node);
    else
        (void)snprintf(to, n,
                       "node %llu was removed from the cluster. Ids are not used again: remove "
                       "its directory and let it join under a new one: lecternd --join",
                       node);
}

enum err peer_book_look(const char *dir, uint64_t cluster_id, uint64_t self, uint64_t incarnation)
{
    struct peer_book *b = book_new(&(struct peer_book_config){
        .dir = dir, .cluster_id = cluster_id, .self = self, .incarnation = incarnation});
    enum err e = has_file(b) ? read_file(b) : ERR_OK;
    book_free(b);
    return e;
}

enum err peer_book_open(const struct peer_book_config *c, struct peer_book **out)
{
    CHECK(c->cluster_id > 0 && c->self > 0 && c->on_durable != NULL);
    struct peer_book *b = book_new(c);
    enum err e = c->dir == NULL ? ERR_OK : load(b);
    if (e != ERR_OK) {
        book_free(b);
        return e;
    }
    CHECK(uv_timer_init(c->loop, &b->retry) == 0); /* cannot fail */
    b->retry.data = b->work.data = b;
    b->c.dir = NULL; /* the caller's */
    *out = b;
    return ERR_OK;
}

static void on_timer_closed(uv_handle_t *h)
{
    struct peer_book *b = h->data;
    b->timer_closed = true;
    maybe_free(b);
}

void peer_book_close(struct peer_book *b, void (*closed)(void *ctx), void *ctx)
{
    CHECK(!b->closing);
    b->closing = true;
    b->closed = closed;
    b->closed_ctx = ctx;
    uv_close((uv_handle_t *)&b->retry, on_timer_closed);
}
