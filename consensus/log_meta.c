/* Room: consensus. Thread: loop before the log starts, then disk.
 * Owns: the descriptor of meta.
 * Invariants: a record counts as durable only when both slots hold it.
 * Not here: what the synced position is good for (log_load.c).
 *
 * Why both slots, one after the other, each synced: with two slots used in turn, a damaged newest
 * slot and a torn newest slot look the same, and falling back to the older one would forget a vote
 * that was given: two leaders in one term. Written twice, the loss of any one slot loses nothing:
 *   slot 0 torn    -> slot 1 has the record before, the new one was never acknowledged
 *   slot 1 torn    -> slot 0 has the new one, whole
 *   one damaged later -> the other has the same record
 * It costs a second sync for each election, which is rare. */
#include "consensus/log_meta.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IDENTITY_MAGIC "LecRaftI"
#define IDENTITY_BYTES 48u
#define IDENTITY_1     40u /* bytes of version 1, which had no incarnation */
#define IDENTITY_NOW   2u
#define META_MAGIC     "LecRaftM"
#define META_BYTES     80u
#define SLOT_BYTES     4096u /* apart, so that no write of one can touch the other */
#define FORMAT_VERSION 1u

/* Reads up to N bytes of PATH from its start. */
static enum err read_start(const char *path, uint8_t *to, size_t n, size_t *got)
{
    int fd;
    TRY(file_open(path, O_RDONLY, 0, &fd));
    enum err e = file_read_at(fd, path, to, n, 0, got);
    (void)close(fd);
    return e;
}

static enum err check_owner(const char *path, uint64_t cluster, uint64_t node, uint64_t cluster_id,
                            uint64_t node_id)
{
    if (cluster != cluster_id)
        return err_fail(ERR_CONFIG,
                        "%s belongs to cluster %016llx, this node is configured for %016llx: "
                        "check the cluster id or the data directory",
                        path, (unsigned long long)cluster, (unsigned long long)cluster_id);
    if (node != node_id)
        return err_fail(ERR_CONFIG,
                        "%s belongs to node %llu, this node is configured as %llu: check the node "
                        "id or the data directory",
                        path, (unsigned long long)node, (unsigned long long)node_id);
    return ERR_OK;
}

static enum err identity_decode(const char *path, const uint8_t *p, size_t n,
                                struct log_owner *owner, enum log_identity *state)
{
    bool ours = n >= 12 && memcmp(p, IDENTITY_MAGIC, 8) == 0;
    uint32_t version = ours ? get_le32(p + 8) : 0;
    if (version > IDENTITY_NOW)
        return err_fail(ERR_FORMAT, "%s has format %u; this version reads up to %u", path, version,
                        IDENTITY_NOW);
    size_t want = version == 1 ? IDENTITY_1 : IDENTITY_BYTES;
    uint32_t found = n == want ? get_le32(p + 12) : 0;
    if (version == 0 || n != want || hash64(p, want - 8, 0) != get_le64(p + want - 8) ||
        (found != LOG_IDENTITY_MAKING && found != LOG_IDENTITY_READY))
        return err_fail(ERR_CORRUPT, "%s is damaged: it does not say whose log this is", path);
    *state = (enum log_identity)found;
    *owner = (struct log_owner){.cluster_id = get_le64(p + 16),
                                .node_id = get_le64(p + 24),
                                .incarnation = version == 1 ? 0 : get_le64(p + 32)};
    return ERR_OK;
}

enum err log_identity_read(const char *dir, struct log_owner *owner, enum log_identity *state)
{
    uint8_t bytes[IDENTITY_BYTES + 1];
    size_t n = 0;
    char *path = mem_printf("%s/identity", dir);
    *state = LOG_IDENTITY_NONE;
    *owner = (struct log_owner){0};
    enum err e = ERR_OK;
    if (access(path, F_OK) == 0 || errno != ENOENT) {
        e = read_start(path, bytes, sizeof bytes, &n);
        if (e == ERR_OK)
            e = identity_decode(path, bytes, n, owner, state);
    }
    free(path);
    return e;
}

enum err log_identity_expect(const char *dir, const struct log_owner *found, uint64_t cluster_id,
                             uint64_t node_id)
{
    char *path = mem_printf("%s/identity", dir);
    enum err e = check_owner(path, found->cluster_id, found->node_id, cluster_id, node_id);
    free(path);
    return e;
}

enum err log_identity_write(struct log_files *f, const char *dir, const struct log_owner *owner,
                            enum log_identity state)
{
    uint8_t bytes[IDENTITY_BYTES];
    memcpy(bytes, IDENTITY_MAGIC, 8);
    set_le32(bytes + 8, IDENTITY_NOW);
    set_le32(bytes + 12, (uint32_t)state);
    set_le64(bytes + 16, owner->cluster_id);
    set_le64(bytes + 24, owner->node_id);
    set_le64(bytes + 32, owner->incarnation);
    set_le64(bytes + 40, hash64(bytes, 40, 0));
    char *path = mem_printf("%s/identity", dir);
    char *temp = mem_printf("%s/identity.new", dir);
    int fd;
    enum err e = log_file_create(f, temp, sizeof bytes, &fd);
    if (e == ERR_OK) {
        e = log_file_write(f, fd, temp, bytes, sizeof bytes, 0);
        if (e == ERR_OK)
            e = log_file_sync(f, fd, temp);
        (void)close(fd);
    }
    if (e == ERR_OK)
        e = log_file_rename(f, temp, path);
    if (e == ERR_OK)
        e = log_file_sync_dir(f, dir);
    free(temp);
    free(path);
    return e;
}

static void slot_encode(uint8_t out[META_BYTES], const struct log_meta *m)
{
    memcpy(out, META_MAGIC, 8);
    set_le32(out + 8, FORMAT_VERSION);
    set_le32(out + 12, 0);
    set_le64(out + 16, m->cluster_id);
    set_le64(out + 24, m->node_id);
    set_le64(out + 32, m->now.seq);
    set_le64(out + 40, m->now.term);
    set_le64(out + 48, m->now.vote);
    set_le64(out + 56, m->now.synced_epoch);
    set_le64(out + 64, m->now.synced_offset);
    set_le64(out + 72, hash64(out, 72, 0));
}

static bool slot_decode(const uint8_t *p, struct log_meta_record *r)
{
    if (memcmp(p, META_MAGIC, 8) != 0 || hash64(p, 72, 0) != get_le64(p + 72))
        return false;
    *r = (struct log_meta_record){
        .seq = get_le64(p + 32),
        .term = get_le64(p + 40),
        .vote = get_le64(p + 48),
        .synced_epoch = get_le64(p + 56),
        .synced_offset = get_le64(p + 64),
    };
    return true;
}

static void meta_init(struct log_meta *m, const char *dir, uint64_t cluster_id, uint64_t node_id)
{
    *m = (struct log_meta){
        .fd = -1,
        .path = mem_printf("%s/meta", dir),
        .cluster_id = cluster_id,
        .node_id = node_id,
    };
}

enum err log_meta_create(struct log_files *f, const char *dir, uint64_t cluster_id,
                         uint64_t node_id, const struct log_meta_record *first, struct log_meta *m)
{
    meta_init(m, dir, cluster_id, node_id);
    TRY(log_file_create(f, m->path, 2 * SLOT_BYTES, &m->fd));
    return log_meta_write(f, m, first);
}

static enum err meta_read(struct log_meta *m)
{
    uint8_t bytes[SLOT_BYTES + META_BYTES] = {0};
    size_t got;
    struct log_meta_record slot;
    TRY(file_read_at(m->fd, m->path, bytes, sizeof bytes, 0, &got));
    bool found = false;
    for (unsigned i = 0; i < 2; i++) {
        const uint8_t *p = bytes + i * SLOT_BYTES;
        if (!slot_decode(p, &slot))
            continue;
        if (get_le32(p + 8) > FORMAT_VERSION)
            return err_fail(ERR_FORMAT, "%s has format %u; this version reads up to %u", m->path,
                            get_le32(p + 8), FORMAT_VERSION);
        TRY(check_owner(m->path, get_le64(p + 16), get_le64(p + 24), m->cluster_id, m->node_id));
        if (!found || slot.seq > m->now.seq)
            m->now = slot;
        found = true;
    }
    if (!found)
        return err_fail(
            ERR_CORRUPT,
            "%s is damaged in both copies (offsets 0 and %u): this node's term and vote "
            "are lost, it must rejoin under a new id",
            m->path, SLOT_BYTES);
    return ERR_OK;
}

enum err log_meta_open(const char *dir, uint64_t cluster_id, uint64_t node_id, bool read_only,
                       struct log_meta *m)
{
    meta_init(m, dir, cluster_id, node_id);
    enum err e = file_open(m->path, read_only ? O_RDONLY : O_RDWR, 0, &m->fd);
    if (e == ERR_NOT_FOUND)
        return err_fail(ERR_CORRUPT,
                        "%s is missing: this node's term and vote are lost, it must rejoin under a "
                        "new id",
                        m->path);
    TRY(e);
    return meta_read(m);
}

enum err log_meta_write(struct log_files *f, struct log_meta *m, const struct log_meta_record *next)
{
    uint8_t bytes[META_BYTES];
    uint64_t seq = m->now.seq + 1;
    m->now = *next;
    m->now.seq = seq;
    slot_encode(bytes, m);
    for (unsigned i = 0; i < 2; i++) {
        TRY(log_file_write(f, m->fd, m->path, bytes, sizeof bytes, i * SLOT_BYTES));
        TRY(log_file_sync(f, m->fd, m->path));
    }
    return ERR_OK;
}

void log_meta_fini(struct log_meta *m)
{
    if (m->fd >= 0)
        (void)close(m->fd);
    free(m->path);
    m->fd = -1;
    m->path = NULL;
}
