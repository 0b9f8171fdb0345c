/* Room: replication. Thread: owner.
 * Owns: the descriptor of the file `position`.
 * Invariants: record number N lies in slot N % 2, so a write never touches the newest whole record.
 *   A write that failed is repeated into the same slot. A slot counts when its checksum does.
 * Not here: what a record means (database.c).
 *
 *   0      slot 0 (512 bytes, one sector), then zeros
 *   4096   slot 1: a block of its own, so that a drive that tears a 4 KiB block leaves the other
 *
 * docs/FORMATS.md draws a slot byte by byte; integers are little-endian. */
#include "replication/position.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOT_BYTES  512u
#define SLOT_STRIDE 4096u
#define SLOTS       2u
#define FILE_BYTES  (SLOTS * SLOT_STRIDE)
#define VERSION     1u
#define FLAG_CLOSED 1u
#define AT_CHECKSUM (SLOT_BYTES - 8)

static const uint8_t magic[8] = {'L', 'E', 'C', 'T', 'P', 'O', 'S', 0};

struct position_file {
    char *path;
    int fd;
    uint64_t number; /* of the newest record */
};

static void slot_encode(const struct position_record *r, uint64_t number, uint8_t slot[SLOT_BYTES])
{
    CHECK(r->n_wals <= 2);
    memset(slot, 0, SLOT_BYTES);
    memcpy(slot, magic, sizeof magic);
    set_le32(slot + 8, VERSION);
    set_le32(slot + 12, r->closed ? FLAG_CLOSED : 0);
    set_le64(slot + 16, number);
    set_le64(slot + 24, r->database_id);
    set_le32(slot + 32, r->page_size);
    set_le32(slot + 36, r->n_wals);
    uint8_t *p = slot + 40;
    for (unsigned i = 0; i < 2; i++, p += 24) {
        if (i >= r->n_wals)
            continue;
        set_le32(p, r->wals[i].salt[0]);
        set_le32(p + 4, r->wals[i].salt[1]);
        set_le64(p + 8, r->wals[i].seq);
        set_le64(p + 16, r->wals[i].checksum);
    }
    if (r->closed) {
        set_le64(slot + 88, r->closed_seq);
        set_le64(slot + 96, r->closed_checksum);
    }
    set_le64(slot + AT_CHECKSUM, hash64(slot, AT_CHECKSUM, 0));
}

/* Whole, and at its place; says nothing about the version. */
static bool slot_valid(const uint8_t slot[SLOT_BYTES], unsigned index)
{
    return memcmp(slot, magic, sizeof magic) == 0 &&
           get_le64(slot + AT_CHECKSUM) == hash64(slot, AT_CHECKSUM, 0) &&
           get_le64(slot + 16) % SLOTS == index;
}

static enum err slot_decode(const uint8_t slot[SLOT_BYTES], const char *path,
                            struct position_record *r)
{
    uint32_t version = get_le32(slot + 8), flags = get_le32(slot + 12);
    if (version != VERSION)
        return err_fail(ERR_FORMAT,
                        "%s has format version %u, this program reads %u: use the "
                        "program version that wrote it",
                        path, version, VERSION);
    *r = (struct position_record){
        .database_id = get_le64(slot + 24),
        .page_size = get_le32(slot + 32),
        .n_wals = get_le32(slot + 36),
        .closed = (flags & FLAG_CLOSED) != 0,
        .closed_seq = get_le64(slot + 88),
        .closed_checksum = get_le64(slot + 96),
    };
    if (r->n_wals > 2 || (flags & ~FLAG_CLOSED) != 0)
        return err_fail(ERR_CORRUPT, "%s: its newest record holds %u WALs and flags %#x", path,
                        r->n_wals, flags);
    const uint8_t *p = slot + 40;
    for (unsigned i = 0; i < r->n_wals; i++, p += 24)
        r->wals[i] = (struct position_wal){
            .salt = {get_le32(p), get_le32(p + 4)},
            .seq = get_le64(p + 8),
            .checksum = get_le64(p + 16),
        };
    return ERR_OK;
}

/* Finds the newest whole record. */
static enum err position_read(struct position_file *p, struct position_record *record)
{
    uint8_t slots[SLOTS][SLOT_BYTES];
    int newest = -1;
    for (unsigned i = 0; i < SLOTS; i++) {
        size_t got = 0;
        TRY(file_read_at(p->fd, p->path, slots[i], SLOT_BYTES, (uint64_t)i * SLOT_STRIDE, &got));
        if (got < SLOT_BYTES || !slot_valid(slots[i], i))
            continue;
        uint64_t number = get_le64(slots[i] + 16);
        if (newest < 0 || number > p->number) {
            newest = (int)i;
            p->number = number;
        }
    }
    if (newest < 0)
        return err_fail(ERR_CORRUPT, "%s: neither of its two records is whole", p->path);
    return slot_decode(slots[newest], p->path, record);
}

static enum err open_for(const char *path, int flags, struct position_file **out,
                         struct position_record *record)
{
    *out = NULL;
    int fd;
    TRY(file_open(path, flags, 0, &fd));
    struct position_file *p = MEM_NEW(struct position_file);
    p->path = mem_strdup(path);
    p->fd = fd;
    enum err e = position_read(p, record);
    if (e != ERR_OK) {
        position_close(p);
        return e;
    }
    *out = p;
    return ERR_OK;
}

enum err position_open(const char *path, struct position_file **out, struct position_record *record)
{
    return open_for(path, O_RDWR, out, record);
}

enum err position_look(const char *path, struct position_record *record)
{
    struct position_file *p;
    TRY(open_for(path, O_RDONLY, &p, record));
    position_close(p);
    return ERR_OK;
}

enum err position_create(const char *path, const struct position_record *record,
                         struct position_file **out)
{
    *out = NULL;
    uint8_t *content = mem_zalloc(FILE_BYTES);
    slot_encode(record, 0, content);
    enum err e = file_replace(path, content, FILE_BYTES);
    free(content);
    struct position_record same;
    return e != ERR_OK ? e : position_open(path, out, &same);
}

enum err position_write(struct position_file *p, const struct position_record *record)
{
    uint8_t slot[SLOT_BYTES];
    const uint64_t number = p->number + 1;
    slot_encode(record, number, slot);
    TRY(file_write_at(p->fd, p->path, slot, SLOT_BYTES, number % SLOTS * SLOT_STRIDE));
    TRY(file_sync(p->fd, p->path));
    p->number = number;
    return ERR_OK;
}

void position_close(struct position_file *p)
{
    if (p == NULL)
        return;
    (void)close(p->fd);
    free(p->path);
    free(p);
}
