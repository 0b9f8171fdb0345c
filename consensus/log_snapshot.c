/* Room: consensus. Thread: any, one at a time.
 * Owns: nothing after a call.
 * Invariants: under its name the record is whole, always; a record that is read passed its checksum
 *             and makes sense in itself.
 * Not here: what follows from it for the segments (log_cut.c, log_load.c). */
#include "consensus/log_snapshot.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "consensus/message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SNAPSHOT_MAGIC "LecRaftB"
#define FORMAT_VERSION 1u
#define HEAD_BYTES     80u
#define MEMBERS_MAX    ((CNS_MESSAGE_ADDRESS_MAX + 10ull) * CNS_MESSAGE_MEMBERS_MAX + 16)
#define FILE_MAX       KIB(32)
_Static_assert(HEAD_BYTES + MEMBERS_MAX + CNS_SNAPSHOT_DATA_MAX + 8 <= FILE_MAX, "all fits");

struct cns_snapshot log_snapshot_copy(const struct cns_snapshot *s)
{
    struct cns_snapshot copy = *s;
    if (s->members != NULL)
        (void)cns_payload_ref(s->members);
    return copy;
}

void log_snapshot_drop(struct cns_snapshot *s)
{
    cns_payload_unref(s->members);
    *s = (struct cns_snapshot){0};
}

enum err log_snapshot_check(const struct cns_snapshot *s)
{
    const char *why = NULL;
    if (s->index == 0 || s->index == UINT64_MAX || s->term == 0)
        why = "no entry";
    else if (s->members_index > s->index)
        why = "members that came after it";
    else if (s->data_len > CNS_SNAPSHOT_DATA_MAX)
        why = "too much of the node's own";
    else if (s->members == NULL || s->members->len > MEMBERS_MAX ||
             cns_message_check_members(s->members->data, s->members->len) != ERR_OK)
        why = "members that do not decode";
    return why == NULL ? ERR_OK : err_fail(ERR_MISUSE, "a snapshot record with %s", why);
}

/* --- bytes ------------------------------------------------------------------------------------ */

static void encode(struct buf *b, uint64_t cluster_id, uint64_t node_id,
                   const struct log_snapshot *r)
{
    const struct cns_snapshot *s = &r->s;
    buf_put(b, SNAPSHOT_MAGIC, 8);
    buf_put_u32(b, FORMAT_VERSION);
    buf_put_u32(b, 0);
    buf_put_u64(b, cluster_id);
    buf_put_u64(b, node_id);
    buf_put_u64(b, s->index);
    buf_put_u64(b, s->term);
    buf_put_u64(b, s->members_index);
    buf_put_u64(b, s->highest_id);
    buf_put_u64(b, r->epoch);
    buf_put_u32(b, (uint32_t)s->members->len);
    buf_put_u32(b, (uint32_t)s->data_len);
    buf_put(b, s->members->data, s->members->len);
    buf_put(b, s->data, s->data_len);
    buf_put_u64(b, hash64(b->data, b->len, 0));
}

static enum err damaged(const char *path, const char *how)
{
    return err_fail(ERR_CORRUPT,
                    "%s is damaged (%s): it does not say where the log begins; this node must "
                    "rejoin under a new id",
                    path, how);
}

/* The N bytes at P are the whole file. */
static enum err decode(const char *path, const uint8_t *p, size_t n, uint64_t cluster_id,
                       uint64_t node_id, struct log_snapshot *out)
{
    if (n >= 12 && memcmp(p, SNAPSHOT_MAGIC, 8) == 0 && get_le32(p + 8) > FORMAT_VERSION)
        return err_fail(ERR_FORMAT, "%s has format %u; this version reads up to %u", path,
                        get_le32(p + 8), FORMAT_VERSION);
    if (n < HEAD_BYTES + 8 || memcmp(p, SNAPSHOT_MAGIC, 8) != 0)
        return damaged(path, "offset 0: its head is not whole");
    if (hash64(p, n - 8, 0) != get_le64(p + n - 8) || get_le32(p + 8) != FORMAT_VERSION ||
        get_le32(p + 12) != 0)
        return damaged(path, "it fails its checksum");
    if (get_le64(p + 16) != cluster_id || get_le64(p + 24) != node_id)
        return damaged(path, "offset 16: it is another node's");
    uint64_t members = get_le32(p + 72), data = get_le32(p + 76);
    if (data > CNS_SNAPSHOT_DATA_MAX || n != HEAD_BYTES + members + data + 8)
        return damaged(path, "offset 72: its lengths are impossible");
    struct cns_snapshot *s = &out->s;
    *s = (struct cns_snapshot){.index = get_le64(p + 32),
                               .term = get_le64(p + 40),
                               .members_index = get_le64(p + 48),
                               .highest_id = get_le64(p + 56),
                               .data_len = (size_t)data};
    out->epoch = get_le64(p + 64);
    uint8_t *copy = mem_alloc(members);
    memcpy(copy, p + HEAD_BYTES, members);
    s->members = cns_payload_take(copy, members);
    memcpy(s->data, p + HEAD_BYTES + members, data);
    if (log_snapshot_check(s) != ERR_OK) {
        log_snapshot_drop(s);
        return damaged(path, "what it says makes no sense");
    }
    return ERR_OK;
}

/* --- the file --------------------------------------------------------------------------------- */

enum err log_snapshot_read(const char *dir, uint64_t cluster_id, uint64_t node_id,
                           struct log_snapshot *out)
{
    struct buf b;
    char *path = mem_printf("%s/snapshot", dir);
    *out = (struct log_snapshot){0};
    buf_init(&b, FILE_MAX);
    enum err e = file_read_all(path, &b);
    if (e == ERR_OK)
        e = decode(path, b.data, b.len, cluster_id, node_id, out);
    else if (e == ERR_TOO_BIG)
        e = damaged(path, "it is too long");
    else if (e == ERR_NOT_FOUND)
        e = ERR_OK;
    buf_fini(&b);
    free(path);
    return e;
}

static enum err write_new(struct log_files *f, const char *temp, const struct buf *b)
{
    int fd;
    TRY(log_file_create(f, temp, b->len, &fd));
    enum err e = log_file_write(f, fd, temp, b->data, b->len, 0);
    if (e == ERR_OK)
        e = log_file_sync(f, fd, temp);
    (void)close(fd);
    return e;
}

enum err log_snapshot_write(struct log_files *f, const char *dir, uint64_t cluster_id,
                            uint64_t node_id, const struct log_snapshot *now, bool *renamed)
{
    struct buf b;
    *renamed = false;
    TRY(log_snapshot_check(&now->s));
    char *path = mem_printf("%s/snapshot", dir);
    char *temp = mem_printf("%s/snapshot.new", dir);
    buf_init(&b, FILE_MAX);
    encode(&b, cluster_id, node_id, now);
    enum err e = buf_status(&b);
    CHECK(e == ERR_OK); /* log_snapshot_check limits it */
    e = write_new(f, temp, &b);
    if (e == ERR_OK)
        e = log_file_rename(f, temp, path);
    if (e == ERR_OK) {
        *renamed = true;
        e = log_file_sync_dir(f, dir);
    } else
        log_file_drop(f, temp);
    buf_fini(&b);
    free(temp);
    free(path);
    return e;
}
